# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""`hralign data review` as a process, which is ended in every way."""

import json
import signal
import subprocess
import sys
from urllib.request import Request, urlopen

from hralign_ros.data.manifest import read_manifest
from hralign_ros.review.labels import label_of
from hralign_ros.review.store import JOURNAL
import pytest
from support.review_data import episode, write_data


def start(root, *options):
    """Start it; return the process and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'hralign_ros.cli', 'data', 'review', root, *options],
        stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith('Open '):
            return process, line.split()[1], lines
    raise AssertionError(lines)


def label(url, number, outcome):
    body = json.dumps({'episode': number, 'outcome': outcome}).encode()
    with urlopen(Request(f'{url}label', body, {'Content-Type': 'application/json'}), timeout=60):
        pass


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_every_end_keeps_the_labels(tmp_path, number):
    """Guards labels against Ctrl-C, a closed terminal and a kill just after the last one."""
    root = write_data(tmp_path, [episode(n) for n in (1, 2)])
    process, url, lines = start(root, '--name', 'Ann Lee')
    assert lines[0] == '2 episodes, 2 without a label; labels are by human:Ann Lee\n'
    label(url, 0, 'success')
    label(url, 1, 'failure')
    process.send_signal(number)
    process.stdout.read()
    assert process.wait(60) == (-number if number == signal.SIGKILL else 0)
    if number == signal.SIGKILL:
        again, _, lines = start(root)
        again.send_signal(signal.SIGINT)
        again.stdout.read()
        assert again.wait(60) == 0 and any(' 0 without a label' in line for line in lines)
    assert not (root / JOURNAL).exists()
    assert [(label_of(e).outcome, label_of(e).by) for e in read_manifest(root).episodes] == [
        ('success', 'human:Ann Lee'), ('failure', 'human:Ann Lee')]


def test_what_cannot_be_reviewed(tmp_path):
    """Guards against a traceback: one sentence, and nothing is left behind."""
    done = subprocess.run([sys.executable, '-m', 'hralign_ros.cli', 'data', 'review', tmp_path],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    assert 'no manifest.parquet there' in done.stderr and list(tmp_path.iterdir()) == []
