# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A few hundred of the cases that `make fuzz` tries by millions, the same in every run."""

import random
import sys

from fuzz.decisions import Decisions
from fuzz.source import Source
from fuzz.targets import TARGETS
import pytest


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
    """Guards every guarantee of docs/faults/fuzzing.md: nothing comes out but what may."""
    target = TARGETS[name]()
    for data in [*target.seeds(), *cases(target.seeds(), count)]:
        target(data)


def test_a_broken_guarantee_is_seen(monkeypatch):
    """Guards the targets themselves: one that can see nothing finds nothing."""
    decide = sys.modules['fuzz.decisions'].decide

    def forgetful(state, rules, **given):
        after, decision = decide(state, rules, **given)
        return after.__class__(start=after.start, above_since=after.above_since), decision

    monkeypatch.setattr(sys.modules['fuzz.decisions'], 'decide', forgetful)
    target = Decisions()
    with pytest.raises(AssertionError):
        for data in cases(target.seeds(), 600):
            target(data)


def test_a_source_has_no_end():
    """Guards against a short case ending in an error of the target's own."""
    source = Source(b'\x01')
    assert source.below(4) == 1 and source.done
    assert (source.below(9), source.whole(4), source.text(), source.rest()) == (0, 0, '', b'')
