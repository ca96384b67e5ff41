# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Policies in closed loop: camera images to embeddings, embeddings to commands, in one process.

The simulation waits for both, so what is measured is what a policy makes of an embedding, without
latency. Every policy meets the same starts: attempts of one seed are pairs. A finished attempt is
a line of rollouts.jsonl, and a run that was stopped goes on with those that are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from hralign_ros.data.rollouts import add_rollout, read_rollouts, Rollout
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import DataError, PolicyError
from hralign_ros.runtime.policy import MANIFEST, Policy, PolicySpec, read_policy
from hralign_ros.runtime.report import Progress, Report
from hralign_ros.simulation.arm import ACTIONS, ArmWorld, HZ, STATE
import numpy as np

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Place:
    """Where a policy is tried: task, arm and lab."""

    task_id: str
    arm: str
    lab: str


def evaluate_policies(
    policies: Sequence[Path], output: Path, bundle: Path, *, episodes: int = 40,
    first_seed: int = 100_000, task: str = '', arm: str = '', lab: str = '',
    resume: bool = False, threads: int = 1, report: Report = print,
) -> list[Rollout]:
    """
    Let every policy make the same attempts, or those that are missing of them.

    :param policies: folders, see runtime.policy; names differ.
    :param bundle: whose embeddings they learnt from.
    :param episodes: attempts of each, with the seeds from first_seed on.
    :param task: of arm.LIMIT_S; '': that of the demonstrations; arm and lab likewise.
    :param resume: there may be attempts already.
    :returns: all attempts in `output` that were asked for.
    :raises DataError: two policies share a name, there are attempts that are not to be completed,
        or unknown task, arm or lab.
    :raises PolicyError: a policy is damaged, does not belong to the bundle, or does not suit the
        arm.
    """
    named = {folder.resolve().name: folder for folder in policies}
    if len(named) < len(policies):
        raise DataError('two policies share a name; give folders with different names')
    if episodes < 1 or first_seed < 0:
        raise DataError(f'{episodes} episodes from seed {first_seed}: needed are one or more, '
                        'from a seed that is not negative')
    output.mkdir(parents=True, exist_ok=True)
    done = read_rollouts(output)
    if done and not resume:
        raise DataError(f'{output} holds rollouts already; add --resume to complete or extend '
                        'them, or name another folder')
    specs = {name: read_policy(folder) for name, folder in named.items()}
    hashes = {name: sha256((folder / MANIFEST).read_bytes()).hexdigest()
              for name, folder in named.items()}
    places = {name: _place(spec, named[name], task, arm, lab) for name, spec in specs.items()}
    seeds = range(first_seed, first_seed + episodes)
    keys = {name: [(hashes[name], place.task_id, place.arm, place.lab, seed) for seed in seeds]
            for name, place in places.items()}
    wanted = {key for some in keys.values() for key in some}
    there = {rollout.key for rollout in done}
    progress = Progress(len(wanted - there), 'attempts', report)
    # An encoder is loaded once for all policies that want the same of it, a world once for all
    # that are tried there.
    for place in sorted(set(places.values()), key=lambda one: (one.task_id, one.arm, one.lab)):
        here = [name for name in named if places[name] == place and set(keys[name]) - there]
        if not here:
            continue
        world = ArmWorld(place.task_id, place.arm, place.lab)
        try:
            options = [specs[name].encoder_options for name in here]
            for chosen in (one for i, one in enumerate(options) if one not in options[:i]):
                encoder = Encoder.load(bundle, provider='cpu', threads=threads, **chosen) \
                    if chosen['parts'] else None
                for name in (n for n in here if specs[n].encoder_options == chosen):
                    policy = Policy.load(named[name], encoder, threads=threads)
                    if policy.remark:
                        report(policy.remark)
                    for seed, key in zip(seeds, keys[name], strict=True):
                        if key in there:
                            continue
                        success, time_s = roll(world, policy, encoder, seed)
                        rollout = Rollout(name, hashes[name], place.task_id, place.arm,
                                          place.lab, seed, success, time_s)
                        add_rollout(output, rollout)
                        done.append(rollout)
                        progress.step()
        finally:
            world.close()
    return [rollout for rollout in done if rollout.key in wanted]


def roll(
    world: ArmWorld, policy: Policy, encoder: Encoder | None, seed: int,
) -> tuple[bool, float]:
    """
    Make one attempt.

    Frames that no embedding will be made of are not drawn: an embedding is asked for once a chunk,
    of the newest frame, or of frames that are a clip's period apart.

    :returns: whether the task was accomplished in time, and when, or when the attempt ended.
    """
    spec = policy.spec
    columns = [[one.name for one in STATE].index(channel.name) for channel in spec.proprio]
    apart = _steps_of_clip(encoder)
    world.reset(seed)
    attempt = policy.start_attempt()
    episode = encoder.start_episode(spec.task) if encoder else None
    while world.time_s < world.limit_s:
        embedding = None
        if episode is not None and (attempt.due or apart and attempt.left % apart == 0):
            images = {view: image for view, image in world.images().items() if view in spec.views}
            embedding = episode.step(
                images, stamp=1 + round(world.time_s * _NANOSECONDS)).embedding
        if attempt.due:
            attempt.observe(embedding, world.state()[columns].astype(np.float32))
        world.act(attempt.next_action().astype(np.float64))
        if world.accomplished:
            return True, world.time_s
    return False, world.time_s


def _steps_of_clip(encoder: Encoder | None) -> int:
    """Return how many steps the frames of a clip are apart; 0: no part has several frames."""
    if encoder is None or all(part.frames == 1 for part in encoder.parts):
        return 0
    steps = encoder.manifest.clip.period_s * HZ
    # Where a clip's frames are not those of steps, every frame is drawn.
    return round(steps) if abs(steps - round(steps)) < 1e-6 and steps >= 1.0 else 1


def _place(spec: PolicySpec, folder: Path, task: str, arm: str, lab: str) -> Place:
    """Tell where a policy is tried, and see that it suits the arm there."""
    known, wanted = {one.name for one in STATE}, [one.name for one in spec.actions]
    if wanted != [one.name for one in ACTIONS]:
        raise PolicyError(f'{folder}: its actions are {", ".join(wanted)}; the simulated arm '
                          f'takes {", ".join(one.name for one in ACTIONS)}')
    if missing := [one.name for one in spec.proprio if one.name not in known]:
        raise PolicyError(f'{folder}: it wants {", ".join(missing)}; the simulated arm has '
                          f'{", ".join(one.name for one in STATE)}')
    if abs(spec.period_s * HZ - 1.0) > 0.01:
        raise PolicyError(f'{folder}: its period is {spec.period_s:g} s; that of the simulated '
                          f'arm is {1.0 / HZ:g} s')
    chosen = Place(task or str(spec.training.get('task_id', '')),
                   arm or _only(spec.training, 'embodiments'),
                   lab or _only(spec.training, 'scenes'))
    for what, value in asdict(chosen).items():
        if not value:
            raise PolicyError(f'{folder}: {MANIFEST} does not say the {what} of its '
                              f'demonstrations; name it with --{what.removesuffix("_id")}')
    return chosen


def _only(training: Mapping[str, object], name: str) -> str:
    found = training.get(name)
    return str(found[0]) if isinstance(found, list) and len(found) == 1 else ''
