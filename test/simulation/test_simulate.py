# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What becomes of an episode that could not be made."""

import errno
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip('mujoco', reason='the simulators are not installed')

from hralign_ros.data.manifest import DataError, read_manifest  # noqa: E402, I100
from hralign_ros.simulation import simulate  # noqa: E402, I100
from hralign_ros.simulation.lab import simulate_lab  # noqa: E402, I100
from hralign_ros.simulation.plan import Chunk, Job  # noqa: E402, I100

CHUNK = Chunk('metaworld', 'reach', 'sawyer', 0, (Job('train-0', 0, None), Job('train-0', 1, 0)))


@pytest.fixture
def output(tmp_path, monkeypatch):
    """Stand in for the simulators, which are in an environment of their own."""
    renderer = ModuleType('renderer')
    renderer.Renderer = lambda stage, hand: SimpleNamespace(close=lambda: None)
    monkeypatch.setitem(sys.modules, 'hralign_ros.simulation.renderer', renderer)
    monkeypatch.setattr('hralign_ros.simulation.hand.read_hand', lambda path: None)
    monkeypatch.setattr(
        simulate, '_open', lambda chunk: SimpleNamespace(stage=None, close=lambda: None))
    (tmp_path / simulate.EPISODES).mkdir()
    return tmp_path


def fail_with(monkeypatch, error):
    def make(output, world, renderer, job, name, *, hz):
        raise error

    monkeypatch.setattr(simulate, '_make_episode', make)


def test_a_full_disk_is_no_fault_of_the_episode(output, monkeypatch):
    """
    A disk that was full for a minute cost its episodes for ever.

    They were noted as left out, and a run that goes on takes what is noted for done.
    """
    fail_with(monkeypatch, OSError(errno.ENOSPC, 'No space left on device'))
    with pytest.raises(OSError, match='No space left'):
        simulate.make_chunk(output, CHUNK, None)
    assert not list((output / simulate.EPISODES).iterdir())
    assert len(simulate._missing(output, CHUNK)) == 2


def test_an_unlucky_episode_is_left_out_for_good(output, monkeypatch):
    """The simulator fails in the same way next time: it is not tried again."""
    fail_with(monkeypatch, ValueError('the arm flew away'))
    made, problems = simulate.make_chunk(output, CHUNK, None)
    assert made == 2 and len(problems) == 2
    assert all('ValueError: the arm flew away' in problem for problem in problems)
    assert simulate._missing(output, CHUNK) == []
    record = next((output / simulate.EPISODES).glob('*.json'))
    assert json.loads(record.read_text()) == {'left_out': 'ValueError: the arm flew away'}


def write_row(output, name, **changes):
    row = {'episode_id': name, 'task_id': 'lift', 'task_text': 'lift the cube', 'scene': 'lab-1',
           'camera': 'lab-1', 'embodiment': 'iiwa', 'source': 'robosuite', 'license_id': 'MIT',
           'seed': 8, 'success': True, **changes}
    (output / simulate.EPISODES / f'{name}.json').write_text(json.dumps(row))


def test_attempts_of_a_lab_belong_to_no_split(output, monkeypatch):
    """Guards a user's lab: seeds that calibrate elsewhere are attempts like others there."""
    monkeypatch.setattr(simulate, 'write_lab_sheets', lambda output, episodes: [])
    write_row(output, 'one')
    write_row(output, 'two', seed=9, success=False, failure='drops')
    (output / simulate.EPISODES / 'three.json').write_text('{"left_out": "no attempt"}')
    data = read_manifest(simulate.finish(output, None, lambda line: None).parent)
    assert [(e.episode_id, e.split, e.success) for e in data.episodes] == [
        ('one', '', True), ('two', '', False)]


@pytest.mark.parametrize(('wrong', 'message'), [
    ({'arm': 'panda'}, "arm 'panda'; allowed in a lab: kinova3, iiwa"),
    ({'tasks': ('lift', 'sing')}, 'no task sing in a lab; known: lift, pick-can'),
    ({'lab': 'train-001'}, "lab 'train-001'; allowed: lab-<number>"),
    ({'lab': 'lab-1@up'}, 'degrees'),
    ({'successes': 0, 'failures': 0}, '0 successes and 0 failures'),
    ({'first_seed': -1}, 'none may be negative')])
def test_what_a_lab_has_not(tmp_path, wrong, message):
    """Guards the options: each is refused with what is allowed, before anything is made."""
    with pytest.raises(DataError, match=message):
        simulate_lab(tmp_path / 'data', **wrong)
    assert not (tmp_path / 'data').exists()
