# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A few hundred of the cases that benchmarks/fuzz.py tries by millions, the same in every run."""

import json
from pathlib import Path
import random
import sys

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('hralign_msgs', reason='hralign_msgs is not built')
pytest.importorskip('onnx', reason='onnx is not installed: it makes the tiny bundle')

from fuzz_decisions import Decisions  # noqa: E402, I100
from fuzz_source import Source  # noqa: E402, I100
import fuzz_tables as page  # noqa: E402, I100
from fuzz_targets import TARGETS  # noqa: E402, I100


def cases(seeds, count):
    """Change seeds at random places, mostly near their beginning, where the choices lie."""
    rng = random.Random(0)
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(8)):
            data[min(int(rng.expovariate(0.1)), len(data) - 1)] = rng.randrange(256)
        yield bytes(data) + rng.randbytes(rng.randrange(40))


@pytest.mark.parametrize(('name', 'count'), [
    ('images', 400), ('parameters', 600), ('decisions', 600), ('tasks', 600), ('bundle', 300)])
def test_target(name, count):
    """Guards every guarantee of docs/fuzzing.md: nothing comes out but what may."""
    target = TARGETS[name]()
    for data in [*target.seeds(), *cases(target.seeds(), count)]:
        target(data)


def test_a_broken_guarantee_is_seen(monkeypatch):
    """Guards the targets themselves: one that can see nothing finds nothing."""
    decide = sys.modules['fuzz_decisions'].decide

    def forgetful(state, rules, **given):
        after, decision = decide(state, rules, **given)
        return after.__class__(start=after.start, above_since=after.above_since), decision

    monkeypatch.setattr(sys.modules['fuzz_decisions'], 'decide', forgetful)
    target = Decisions()
    with pytest.raises(AssertionError):
        for data in cases(target.seeds(), 600):
            target(data)


def test_a_source_has_no_end():
    """Guards against a short case ending in an error of the target's own."""
    source = Source(b'\x01')
    assert source.below(4) == 1 and source.done
    assert (source.below(9), source.whole(4), source.text(), source.rest()) == (0, 0, '', b'')


def test_the_page_has_the_figures_of_the_run():
    """Guards against a table that was edited by hand, or left behind by new results."""
    found = json.loads(page.RESULTS.read_text('utf-8'))
    text = page.PAGE.read_text('utf-8')
    assert page.filled(text, page.tables(found)) == text, 'run benchmarks/fuzz_tables.py'
