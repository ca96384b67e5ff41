# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The command line: what it prints, and one sentence with exit code 1 where something is wrong."""

import subprocess
import sys

from hralign_ros import __version__
from hralign_ros.cli.main import main
import pytest


def sentence(capsys, arguments):
    """Run a command that must fail; return the one line it says."""
    assert main([str(a) for a in arguments]) == 1
    out, error = capsys.readouterr()
    assert error.startswith('hralign: ') and error.count('\n') == 1, error
    assert 'Traceback' not in error and out == ''
    return error


def test_verify(capsys):
    """Guards what verify is for: the bundle is good, and where it really ran."""
    assert main(['verify', '--provider', 'cpu']) == 0
    out = capsys.readouterr().out
    assert 'good' in out and 'efficientnet_lite0' in out and 'wrist, third_person' in out
    assert 'asked cpu, got CPUExecutionProvider' in out
    assert 'success head trained' in out


def test_verify_a_named_bundle(capsys, tiny):
    """Guards the argument."""
    assert main(['verify', str(tiny), '--provider', 'cpu']) == 0
    out = capsys.readouterr().out
    assert str(tiny) in out and 'left, middle, right' in out


@pytest.mark.parametrize(('options', 'words'), [
    (['--provider', 'tpu'], ['tpu', 'auto, cpu, cuda']),
    (['--provider', 'cpu', '--require-gpu'], ['require_gpu']),
])
def test_verify_with_bad_options(capsys, options, words):
    """Guards against a traceback for a mistyped option."""
    text = sentence(capsys, ['verify', *options])
    assert all(word in text for word in words)


def test_verify_what_is_no_bundle(capsys, tmp_path, tiny, variant):
    """Guards against a traceback for a wrong path or a damaged bundle."""
    assert 'nowhere' in sentence(capsys, ['verify', tmp_path / 'nowhere'])
    folder = variant(tiny, files={'visual.onnx': b'rubbish'}, rehash=False)
    assert 'visual.onnx' in sentence(capsys, ['verify', folder, '--provider', 'cpu'])


@pytest.mark.parametrize(('command', 'module', 'extra'), [
    ('verify', 'tokenizers', 'tokenizers'), ('export', 'torch', 'hralign_ros[adapt]'),
    ('export', 'onnx', 'hralign_ros[adapt]')])
def test_a_package_is_not_installed(command, module, extra, tmp_path):
    """Guards a robot without the offline half: which package is missing and how to get it."""
    arguments = {'verify': ['verify', '--provider', 'cpu'],
                 'export': ['export', '--output', str(tmp_path / 'bundle')]}[command]
    program = (f'import sys\nsys.modules[{module!r}] = None\n'
               f'from hralign_ros.cli.main import main\nsys.exit(main({arguments!r}))\n')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    assert 'pip install' in done.stderr and extra in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize('arguments', [[], ['fly'], ['export'], ['verify', '--fast']])
def test_usage(arguments, capsys):
    """Guards the usual answer to a command that there is not: usage, and exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and 'usage: hralign' in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [['--help'], ['--version'], ['verify', '--help']])
def test_help(arguments, capsys):
    """Guards that help works where nothing is installed but Python."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert __version__ in out or 'bundle' in out
