# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which episodes are made: every split gets its own, and nothing leaks into training."""

from collections import defaultdict
from functools import cache

from hralign_ros.data.splits import read_splits
from hralign_ros.simulation.behaviour import EXPERT, FAULTS
from hralign_ros.simulation.plan import plan_chunks, plan_lab, STREAMS
import pytest

pytest.importorskip('pyarrow', reason='the offline packages are not installed')

RULES = read_splits()
KNOWN = ('reach', 'push', 'door-open', 'hammer', 'lift')
WORLDS = [
    *(('metaworld', task, 'sawyer') for task in (
        *KNOWN, *sorted(RULES.test_tasks), *sorted(RULES.validation_tasks))),
    *(('robosuite', task, robot) for robot in ('panda', 'ur5e')
      for task in ('lift', 'door', 'pick-bread'))]
ROUNDS = 7


@cache
def chunks(rounds=ROUNDS, failures=True, **how):
    return tuple(plan_chunks(WORLDS, RULES, rounds, failures=failures, **how))


def episodes(**options):
    return [(chunk, job) for chunk in chunks(**options) for job in chunk.jobs]


def split(chunk, job):
    return RULES.of(task_id=chunk.task_id, scene=job.scene, embodiment=chunk.embodiment,
                    seed=job.seed, episode_id='')


def kind(scene):
    return scene.rsplit('-', 1)[0]


def name(chunk, job):
    return chunk.task_id, chunk.embodiment, job.scene, job.seed, job.kind


def test_more_rounds_contain_fewer():
    """Guards a data set that grows: what is there already is the start of what is to be there."""
    for fewer in (1, 2, 4):
        assert chunks(fewer) == chunks()[:len(chunks(fewer))]
        assert len(chunks(fewer)) < len(chunks())


def test_names_are_unique():
    """Guards the files: no episode overwrites another one, in many rounds."""
    made = [name(*pair) for pair in episodes(rounds=40)]
    assert len(set(made)) == len(made)


def test_failures_only_add():
    """Guards a later run with failures: all experts are there already, in their order."""
    experts = [name(*pair) for pair in episodes(failures=False)]
    assert experts == [name(c, j) for c, j in episodes() if j.fault is None]
    assert {n[-1] for n in experts} == {EXPERT} and len(experts) < len(episodes())
    assert all(chunk.jobs for chunk in chunks(failures=False))


def test_without_humans_the_episodes_are_the_same():
    """Guards figures with and without human video: they are of the same robot episodes."""
    for purpose in ('adaptation', 'success'):
        both, robots = (chunks(2, purpose=purpose, humans=humans) for humans in (True, False))
        assert any(job.human for chunk in both for job in chunk.jobs)
        assert not any(job.human for chunk in robots for job in chunk.jobs)
        assert [name(c, j) for c in both for j in c.jobs] == \
            [name(c, j) for c in robots for j in c.jobs]


def test_nothing_that_is_tested_is_in_a_training_scene():
    """Guards the tests: neither held-out tasks nor arms, nor a scene of theirs, train."""
    for chunk, job in episodes():
        held_out = chunk.task_id in RULES.test_tasks | RULES.validation_tasks \
            or chunk.embodiment in RULES.test_embodiments
        if held_out:
            assert kind(job.scene) != 'train' and split(chunk, job) != 'train'
        if split(chunk, job) in ('train', 'calibration'):
            assert kind(job.scene) == 'train'
        if chunk.task_id in RULES.validation_tasks and chunk.embodiment == 'sawyer':
            assert split(chunk, job) == 'validation'


def test_every_split_has_successes_and_failures():
    """Guards everything that is measured: one round fills every split."""
    found = defaultdict(set)
    for chunk, job in episodes(rounds=1):
        found[split(chunk, job)].add(job.fault is None)
    assert {s: found[s] for s in sorted(found)} == {
        s: {True, False} for s in (
            'calibration', 'test_distractor', 'test_embodiment', 'test_seen', 'test_task',
            'test_view', 'train', 'validation')}


def test_the_last_digit_of_a_seed():
    """Guards calibration and test_seen: of a known task in a training scene 8 and 9, no others."""
    for chunk, job in episodes():
        if kind(job.scene) == 'train':
            want = {8: 'calibration', 9: 'test_seen'}.get(job.seed % 10, 'train')
            assert split(chunk, job) == want
    for digit in range(10):
        assert any(job.seed % 10 == digit and kind(job.scene) == 'train' for _, job in episodes())


def test_calibration_is_in_scenes_of_its_own():
    """Guards calibration: in a round no training episode shares its scene."""
    for chunk in chunks():
        places = defaultdict(set)
        for job in chunk.jobs:
            places[split(chunk, job)].add(job.scene)
        assert not places['calibration'] & places['train']
        assert not places['test_seen'] & places['train']


def test_a_scene_has_motions_to_pair():
    """Guards cross-seed pairs: experts of other seeds in the same scene, in every split."""
    together = defaultdict(set)
    for chunk, job in episodes(failures=False):
        together[chunk.task_id, chunk.embodiment, job.scene, split(chunk, job)].add(job.seed)
    for (*_, which), seeds in together.items():
        if which != 'calibration' and which != 'test_seen':
            assert len(seeds) >= (4 if which in ('train', 'validation') else 2), which


def test_failures_have_seeds_of_their_own():
    """Guards against a failure that is recorded in an expert's episode: no seed is both."""
    seeds = defaultdict(set)
    for chunk, job in episodes(rounds=40):
        seeds[job.fault is None].add((chunk.task_id, chunk.embodiment, job.seed))
    assert not seeds[True] & seeds[False]


def test_all_faults_come_up():
    """Guards the variety: within a few rounds a task has every kind of failure it can have."""
    for task in (KNOWN[0], min(RULES.test_tasks), min(RULES.validation_tasks)):
        faults = {job.fault for chunk, job in episodes()
                  if (chunk.task_id, chunk.embodiment) == (task, 'sawyer')} - {None}
        # A simulator takes the number modulo the count of faults that its task has.
        for count in range(1, len(FAULTS) + 1):
            assert {fault % count for fault in faults} == set(range(count)), (task, count)


def test_scenes_are_those_of_the_split_file():
    """Guards the number of scenes: none beyond what the file says; tasks start at others."""
    first = set()
    for chunk, job in episodes():
        word, _, number = job.scene.rpartition('-')
        assert 0 <= int(number) < RULES.scenes[word]
        if word == 'train' and chunk.round_number == 0 and chunk.simulator == 'metaworld':
            first.add((chunk.task_id, job.scene))
    assert len({scene for _, scene in first}) > len(KNOWN), 'not all tasks in the same three'


def test_the_slow_simulator_has_every_second_round():
    """Guards the balance of time; and a chunk is one world in one round."""
    rounds = defaultdict(set)
    for chunk in chunks():
        rounds[chunk.simulator].add(chunk.round_number)
    assert rounds == {'metaworld': set(range(ROUNDS)), 'robosuite': set(range(0, ROUNDS, 2))}
    assert {(c.simulator, c.task_id, c.embodiment) for c in chunks()} == set(WORLDS)


@cache
def success_jobs(rounds=ROUNDS):
    return tuple((chunk, job) for chunk in plan_chunks(WORLDS, RULES, rounds, purpose='success')
                 for job in chunk.jobs)


def test_success_episodes_never_share_a_seed_with_those_of_adaptation():
    """Guards one data set of both: no name twice, and no motion that adaptation has seen."""
    made = [name(*pair) for pair in success_jobs(40)]
    assert len(set(made)) == len(made)
    assert not {job.seed for _, job in success_jobs(40)} & {
        job.seed for _, job in episodes(rounds=40)}


def test_success_episodes_keep_the_split():
    """Guards the guarantee: thresholds and their test see scenes and seeds that did not train."""
    places = defaultdict(set)
    for chunk, job in success_jobs(1):
        places[chunk.task_id, chunk.embodiment, split(chunk, job)].add(job.scene)
        assert chunk.hz == 5.0 and job.human == (
            split(chunk, job) == 'train' or chunk.embodiment == 'ur5e' and job.human)
    for (task, robot, which), scenes in tuple(places.items()):
        others = [places[task, robot, other] for other in ('train', 'calibration', 'test_seen')
                  if other != which]
        if which in ('calibration', 'test_seen'):
            assert not scenes & set().union(*others)


def test_most_success_episodes_of_calibration_and_test_never_succeed():
    """Guards the false-alarm rate: it is measured on never-succeeding episodes, hundreds of."""
    for which, least in (('calibration', 5), ('test_seen', 9)):
        chosen = [job for chunk, job in success_jobs() if split(chunk, job) == which
                  and chunk.task_id == 'push']
        faults = [job for job in chosen if job.kind != EXPERT]
        assert len(faults) >= least * ROUNDS > len(chosen) - len(faults) > 0


def test_streams_take_turns():
    """Guards the events: every task stands idle, is occluded and lit anew within three rounds."""
    for task in KNOWN:
        streams = [job.stream for chunk, job in success_jobs() if chunk.task_id == task
                   and chunk.embodiment == 'sawyer' and job.stream]
        assert len(streams) == ROUNDS
        assert set(streams[:3]) == set(STREAMS)


def lab(successes, failures, first=0):
    chunks = plan_lab(('lift', 'push'), 'arm', 'lab-1', successes=successes, failures=failures,
                      first_seed=first)
    return [(chunk.task_id, job.seed, job.wanted) for chunk in chunks for job in chunk.jobs]


def test_a_lab_has_so_many_of_each():
    """Guards --succeeding and --failing: of each task, with seeds in a row."""
    jobs = lab(30, 12, first=100)
    for task in ('lift', 'push'):
        for wanted, count in ((True, 30), (False, 12)):
            seeds = [seed for t, seed, w in jobs if (t, w) == (task, wanted)]
            assert seeds == list(range(100, 100 + count))


def test_a_lab_grows():
    """Guards --resume: more attempts hold the fewer; other seeds are other attempts."""
    assert set(lab(10, 10)) < set(lab(50, 50))
    assert not set(lab(50, 50)) & set(lab(50, 50, first=1000))


def test_a_lab_cut_short_is_balanced():
    """Guards a night's work that ends early: all tasks and both kinds alike."""
    some = lab(50, 50)[:80]
    for task in ('lift', 'push'):
        assert [sum(t == task and w is wanted for t, _, w in some)
                for wanted in (True, False)] == [20, 20]
