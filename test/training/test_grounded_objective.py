# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The objective of a grounded head: it finds what is named, and learns on any number of ranks."""

from dataclasses import asdict, replace

from hralign_ros.data.manifest import DataError
from hralign_ros.models.grounding import Grounding
from hralign_ros.models.success import SuccessHead
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.loop import train
from hralign_ros.training.run_folder import write_record
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_run import HEAD, load_success_run
from hralign_ros.training.success_scenes import Stills
import numpy as np
import pytest
from safetensors.torch import save_file
from support.tiny_success import (
    C,
    COLOURS,
    D,
    FINE_R,
    GRID,
    make_grounding,
    make_objective,
    make_recordings,
    make_scene,
    make_stills,
    N,
    OPTIONS,
    R,
    V,
    with_fine,
)
import torch

SMALL = replace(
    OPTIONS, steps=120, cluster_every=40, checkpoint_every=120, validate_every=120,
    clips_per_task=4, grounded=True, split_file='splits.yaml', stills_per_step=32,
    texts_per_still=3, noise=0.05, average=0.8)


def objective(options=SMALL, **more):
    return make_objective(
        options, grounding=make_grounding(), **{
            'stills': make_stills(), 'recordings': [with_fine(r) for r in make_recordings(3)],
            **more})


def test_it_finds_what_is_named(tmp_path):
    """
    Guards the whole: which cell has moved is told by fine tokens and the text's colour alone.

    In scenes of other places than it was trained on; a head that looks elsewhere is right in a
    third of them.
    """
    made = objective()
    train(made, tmp_path, device='cpu', report=lambda _: None)
    stills = made.batches._stills.stills
    text = torch.from_numpy(np.stack([
        stills.vectors[f'shift the {colour} one'] for colour in COLOURS]))
    moved = np.arange(60) % 3
    scenes = [make_scene(i, moved=k, seed=9) for i, k in enumerate(moved)]
    fine = torch.from_numpy(np.stack([fine for fine, _ in scenes]).astype(np.float32))
    with torch.no_grad():
        found = made.head.grounding(fine, text.expand(60, -1, -1))
        blind = made.head.grounding(torch.zeros_like(fine), text.expand(60, -1, -1))
    assert (found.scores.argmax(1).numpy() == moved).mean() > 0.9
    assert (blind.scores.argmax(1).numpy() == moved).mean() < 0.5
    # And it points: at where each colour is now, and at where it was.
    cells = np.stack([cells for _, cells in scenes])
    found = found.looks.argmax(-1).numpy()
    for look in (0, 1):
        assert (found[..., look] == cells[..., look]).mean() > 0.8, look


def test_where_the_reference_view_is_not(tmp_path):
    """Guards clips without that view, and humans': nothing is told of them by fine tokens."""
    made = objective(replace(SMALL, drop_view=0.5, human_fraction=0.5, noise=0.0))
    batch = made.batches.load(0, Ranks())
    there = (batch.mask[:, -1].amax(-1) > 0.5) & ~batch.human
    assert 0 < there.sum() < len(there)

    def loss(some):
        with torch.no_grad():
            return [float(term) for term in made._grounding(
                some, some.fine, some.asked, Ranks())]
    assert loss(replace(batch, done=batch.done ^ ~there, failing=batch.failing ^ ~there)) \
        == loss(batch)
    done, failed = loss(batch)
    assert loss(replace(batch, done=~batch.done)) == [pytest.approx(done, abs=9), failed]
    assert loss(replace(batch, done=~batch.done))[0] != done
    assert loss(replace(batch, failing=~batch.failing))[1] != failed


def test_another_thing_was_done(tmp_path):
    """
    Guards failures that only the words tell: another thing has moved than the one that is named.

    The head's own failure output sees a clip, and no instruction: it said the same of both.
    """
    made = objective()
    train(made, tmp_path, device='cpu', report=lambda _: None)
    vectors = made.batches._stills.stills.vectors
    text = torch.from_numpy(np.stack([vectors[f'shift the {colour} one'] for colour in COLOURS]))
    moved = np.arange(60) % 3
    fine = torch.from_numpy(np.stack([
        make_scene(i, moved=k, seed=9)[0] for i, k in enumerate(moved)]).astype(np.float32))
    with torch.no_grad():
        failed = made.head.grounding(fine, text.expand(60, -1, -1)).failed.numpy()
    right = np.arange(3) == moved[:, None]
    assert (failed[right] < 0).mean() > 0.9 and (failed[~right] > 0).mean() > 0.9


def test_what_is_asked_of_an_attempt():
    """Guards the texts of attempts: its own, another one's, and never one twice."""
    batch = objective().batches.load(3, Ranks())
    own, other, instead = batch.asked.T
    assert (own == torch.tensor(batch.tasks)[batch.task]).all()
    assert (other != own).all() and (other >= 0).all() and (instead == -1).all()
    assert len(set(other.tolist())) > 1
    alone = objective(recordings=[
        with_fine(r) for r in make_recordings(3) if r.episode.task_id == 'lift'], tasks=['lift'])
    batch = alone.batches.load(0, Ranks())
    assert (batch.asked[:, 1] == -1).all(), 'there is no other one'


def test_what_was_done_instead_is_not_denied():
    """
    Guards against two labels for one text: what was done instead of the task has come true.

    It was sometimes drawn as the other instruction, too, of which it is told that it has not.
    """
    failed = [replace(r, episode=replace(r.episode, tags=('done:open the drawer',)))
              for r in make_recordings(3) if r.episode.task_id == 'lift' and not r.done.any()]
    made = objective(recordings=[with_fine(r) for r in [*make_recordings(1), *failed]])
    drawn = torch.cat([made.batches.load(step, Ranks()).asked for step in range(60)])
    own, other, instead = drawn[drawn[:, 2] >= 0].T
    assert len(own) > 9 and (instead == 1).all() and (own == 0).all()
    assert set(other.tolist()) == {-1, 2}


def test_clips_have_the_first_frame_and_the_newest():
    """Guards what attempts show: the recording's first frame, however late a clip begins."""
    recordings = [replace(r, features=replace(r.features, fine=np.broadcast_to(
        np.arange(r.frames, dtype=np.float16)[:, None, None], (r.frames, 16, 4))))
        for r in make_recordings(3)]
    for length in (1, 5):
        made = objective(replace(SMALL, length=length, late_view=0.5), recordings=recordings)
        for step in range(3):
            batch = made.batches.load(step, Ranks())
            newest = batch.fine[:, 1, 0, 0]
            assert batch.fine.shape[1:] == (2, 16, 4) and not batch.fine[:, 0].any()
            assert newest.max() > 10


def test_without_stills():
    """Guards a grounded head that nothing would teach to look."""
    with pytest.raises(DataError, match='there is none to train on; .*--stills'):
        objective(stills=Stills((), {}, {}))


def test_settings_need_a_split_file():
    """Guards held-out instructions: stills tell of all that one could have asked for."""
    with pytest.raises(TrainingError, match='--split-file'):
        SuccessOptions(grounded=True)
    for change in ({'texts_per_still': 1}, {'stills_per_step': 0}, {'pointing': -1.0}):
        with pytest.raises(TrainingError, match=next(iter(change))):
            replace(SMALL, **change)


def test_a_run_that_lacks_what_its_head_has(tmp_path):
    """
    A run.json without the grid of fine tokens, or with another one, ended in torch's traceback.

    It is of another version then, or damaged, and is refused as such.
    """
    head = SuccessHead(V, C, N, D, size=R, grounding=Grounding(GRID, GRID, FINE_R, D))
    save_file({f'head.{name}': value.contiguous() for name, value in head.state_dict().items()},
              tmp_path / HEAD)
    fine = {'rows': GRID, 'columns': GRID, 'channels': FINE_R}
    record = {'options': asdict(SMALL), 'texts': {}, 'fine': fine}
    write_record(tmp_path, record)
    assert load_success_run(tmp_path).head.grounding is not None
    for other in (None, {**fine, 'rows': 2}, {'rows': GRID}):
        write_record(tmp_path, {**record, 'fine': other})
        with pytest.raises(TrainingError, match='another version.*train again') as caught:
            load_success_run(tmp_path)
        assert '\n' not in str(caught.value) and len(str(caught.value)) < 400


def test_a_head_without_is_as_before():
    """Guards other training: no fine token is gathered, and no term is added."""
    made = make_objective(recordings=[with_fine(r) for r in make_recordings(3)])
    batch = made.batches.load(0, Ranks())
    assert batch.fine is None and batch.asked is None and batch.stills is None
    made.prepare(0, Ranks())
    _, terms = made.loss(batch, 0, Ranks())
    assert not {'grounding', 'scenes', 'pointing'} & set(terms)


def test_a_run_knows_its_stills():
    """Guards resuming: with other stills it is another run; and settings stay small."""
    stills = make_stills()
    one = stills.stills[0]
    other = replace(stills, stills=(replace(one, so=~one.so), *stills.stills[1:]))
    assert objective().settings == objective(stills=make_stills()).settings
    assert objective().settings != objective(stills=other).settings
    renamed = replace(stills, stills=(replace(one, goals=one.goals[::-1]), *stills.stills[1:]))
    assert objective().settings != objective(stills=renamed).settings
    assert 'move the red one' not in str(objective().settings['stills'])
