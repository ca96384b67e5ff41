# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Synthetic recordings: a task is a direction, being accomplished is another one."""

from dataclasses import replace

from hralign_ros.data.manifest import Episode
from hralign_ros.data.token_features import EpisodeFeatures
from hralign_ros.models.failure_prompts import Prompts
from hralign_ros.models.grounding import Grounding
from hralign_ros.models.success import SuccessHead
from hralign_ros.models.text import PromptedTextEncoder
from hralign_ros.training.success_clips import Recording
from hralign_ros.training.success_objective import SuccessObjective
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_scenes import Still, Stills
import numpy as np
import torch

V, N, C, R, D = 2, 4, 10, 6, 32
TASKS = {'lift': 'lift the cube', 'open': 'open the drawer', 'press': 'press the button'}
RATE_HZ = 5.0
OPTIONS = SuccessOptions(
    modes=2, prompt_length=2, steps=24, tasks_per_step=3, clips_per_task=12, warm_up=5,
    learning_rate=3e-3, final_rate=3e-5, cluster_every=5, checkpoint_every=5, validate_every=6,
    average=0.9, noise=0.05, failure_text=1.0, human_fraction=0.2)
# What a token is where a task is at work, and what it becomes when it is accomplished.
_WORK = {task: np.eye(R)[i] * 3.0 for i, task in enumerate(TASKS)}
_DONE = np.eye(R)[3] * 3.0
_FAILED = (np.eye(R)[4] * 3.0, np.eye(R)[5] * 3.0)


def make_recording(task, number, *, kind='success', frames=20, human=False, seed=0):
    """Make a recording; kind: success, or failure 0 or 1, which differ from the middle on."""
    rng = np.random.default_rng([seed, number, list(TASKS).index(task), human])
    tokens = rng.normal(0.0, 0.2, (frames, V, N, R))
    tokens[:, :, 1] += _WORK[task]
    done = np.zeros(frames, bool)
    if kind == 'success':
        done[int(frames * rng.uniform(0.5, 0.7)):] = True
        tokens[done, :, 2] += _DONE
    else:
        tokens[frames // 2:, :, 2] += _FAILED[kind]
    present = np.array([not human, True])
    tokens[:, ~present] = 0.0
    times = np.arange(frames) / RATE_HZ
    means = np.concatenate([tokens.mean(2), rng.normal(0, 1, (frames, V, C - R))], -1)
    episode = Episode(
        episode_id=f'{task}-{number}', task_id=task, task_text=TASKS[task], scene=f's{number}',
        camera='c', embodiment='arm', source='test', license_id='Apache-2.0', split='train',
        success=kind == 'success', failure='' if kind == 'success' else f'kind {kind}',
        robot_videos={'wrist': 'w.mp4', 'third_person': 't.mp4'}, time_s=times.tolist(),
        success_flags=done.tolist())
    failing = np.zeros(frames, bool) if kind == 'success' else times >= times[-1] / 2
    first = int(done.argmax()) if done.any() else 0
    progress = np.minimum(np.arange(frames) / first, 1.0).astype(np.float32) if done.any() \
        else np.full(frames, np.nan, np.float32)
    return Recording(episode, EpisodeFeatures(
        tokens.astype(np.float16), means.astype(np.float16), present, times),
        human, done, failing, progress)


def make_recordings(count=6, seed=0):
    """Make robots' successes and two kinds of failure, and humans' successes, of every task."""
    recordings = []
    for task in TASKS:
        for i in range(count):
            recordings += [make_recording(task, 10 * i, seed=seed),
                           make_recording(task, 10 * i + 1, kind=i % 2, seed=seed),
                           make_recording(task, 10 * i, human=True, seed=seed)]
    return recordings


# Fine tokens: rows and columns of their map, and numbers of each: three colours, and noise.
GRID, FINE_R = 4, 4
COLOURS = ('red', 'green', 'blue')


def make_scene(number, *, moved, seed=0):
    """
    Make a scene's first and newest fine tokens: a cell of each colour, of which one moves.

    :returns: fine float16 [2, M, FINE_R], and cells int64 [3, 3] of each colour: now, before, and
        of its place, which it has none.
    """
    rng = np.random.default_rng([seed, number, 5])
    cells = rng.permutation(GRID * GRID)[:4]
    fine = rng.normal(0.0, 0.1, (2, GRID * GRID, FINE_R))
    before = cells[:3]
    now = before.copy()
    now[moved] = cells[3]
    for colour in range(3):
        fine[0, before[colour], colour] += 2.0
        fine[1, now[colour], colour] += 2.0
    return fine.astype(np.float16), np.stack([now, before, np.full(3, -1)], 1)


def make_stills(count=60, seed=0):
    """Make stills that tell of each colour whether it has moved."""
    rng = np.random.default_rng([seed, 6])
    vectors = {f'{way} the {colour} one': _unit(rng.normal(0, 0.3, D) + 3.0 * np.eye(D)[row])
               for row, colour in enumerate(COLOURS) for way in ('move', 'shift')}
    texts = {f'move the {colour} one': (f'move the {colour} one', f'shift the {colour} one')
             for colour in COLOURS}
    stills = []
    for i in range(count):
        fine, cells = make_scene(i, moved=i % 3, seed=seed)
        stills.append(Still(f'still-{i}', fine, tuple(texts), np.arange(3) == i % 3, cells))
    return Stills(tuple(stills), texts, vectors)


def _unit(vector):
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def make_grounding(seed=0):
    torch.manual_seed(seed)
    return Grounding(GRID, GRID, FINE_R, D, width=32)


def with_fine(recording, fine=None):
    """Give a recording fine tokens: zeros, or the same two for its start and for the rest."""
    frames = np.zeros((recording.frames, GRID * GRID, FINE_R), np.float16)
    if fine is not None:
        frames[0], frames[1:] = fine
    return replace(recording, features=replace(recording.features, fine=frames))


def make_head(seed=0, **options):
    torch.manual_seed(seed)
    head = SuccessHead(V, C, N, D, size=R, width=16, ood_size=3, **options)
    head.basis_matrix.copy_(torch.eye(C, R))
    return head


def make_text(seed=0):
    """Make a text encoder of MiniLM's kind, small and random."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    encoder = PromptedTextEncoder(BertModel(BertConfig(
        hidden_size=D, num_hidden_layers=1, num_attention_heads=2, intermediate_size=D)))
    with torch.no_grad():
        encoder.embeddings.word_embeddings.weight.mul_(20.0)
    return encoder.eval().requires_grad_(False)


def make_objective(options=OPTIONS, *, recordings=None, text=None, tasks=TASKS, others=(),
                   stills=None, grounding=None):
    text = text or make_text()
    torch.manual_seed(options.seed)
    prompts = Prompts(
        text, {task: TASKS[task] for task in tasks}, modes=options.modes, others=others,
        length=options.prompt_length, human_prompt=options.human_prompt)
    return SuccessObjective(
        options, make_head(newest=options.newest_path, grounding=grounding), prompts,
        make_recordings() if recordings is None else recordings, {}, stills)
