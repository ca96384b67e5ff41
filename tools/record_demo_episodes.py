# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Record the demo's first episode, a success: seeds and scenes of the test split, every step.

    export PYTHONPATH=. MUJOCO_GL=egl HRALIGN_HAND_MODEL=.venv-sim/share/hand/right.glb
    .venv-sim/bin/python tools/record_demo_episodes.py --task drawer-open

It needs what `make sim` installs. Training and test data keep every third step; here every step is
kept and shown twice, so that two cameras that are not synchronised have a frame of each other's
time.
"""

import argparse
from pathlib import Path

from hralign_ros.data.splits import read_splits
from hralign_ros.runtime.video import write_video
from hralign_ros.simulation import metaworld_tasks
from hralign_ros.simulation.appearance import make_appearance, re_render
from hralign_ros.simulation.behaviour import EXPERT, make_behaviour
from hralign_ros.simulation.hand import read_hand
from hralign_ros.simulation.plan import plan_chunks
from hralign_ros.simulation.renderer import Renderer
from hralign_ros.simulation.simulate import find_hand
import numpy as np
import yaml

REPEAT = 2
# Every step of Meta-World is kept.
_EVERY_STEP_HZ = 16.0
HEADER = ('# Copyright 2026 hralign_ros maintainers\n# SPDX-License-Identifier: Apache-2.0\n'
          '# Written by tools/record_demo_episodes.py. Frame k is at k / fps seconds.\n')


def main() -> None:
    """Record episodes and write a folder for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--task', required=True, help='of Meta-World')
    parser.add_argument('--round', type=int, default=0, help='of the plan (%(default)s)')
    parser.add_argument('--kinds', nargs='+', default=[EXPERT])
    parser.add_argument('--hand', type=Path)
    parser.add_argument('--output', type=Path, default=Path('demo/episodes'))
    options = parser.parse_args()
    named = {task.task_id: task for task in metaworld_tasks.TASKS}
    world = metaworld_tasks.MetaWorld(named[options.task])
    renderer = Renderer(world.stage, read_hand(find_hand(options.hand)))
    rules = read_splits()
    chunk = next(c for c in plan_chunks(
        [('metaworld', options.task, 'sawyer')], rules, options.round + 1, purpose='success')
        if c.round_number == options.round)
    jobs = [job for job in chunk.jobs if not job.stream and rules.of(
        task_id=options.task, scene=job.scene, embodiment='sawyer', seed=job.seed,
        episode_id='') == 'test_seen']
    try:
        for number, kind in enumerate(options.kinds, 1):
            for job in jobs:
                found = EXPERT if job.fault is None else world.faults[
                    job.fault % len(world.faults)]
                if found == kind and _record(world, renderer, job, kind, options.output / (
                        f'{number}_{"success" if kind == EXPERT else kind}'), options):
                    break
            else:
                raise SystemExit(f'no test episode of kind {kind} in round {options.round}')
    finally:
        renderer.close()
        world.close()


def _record(world, renderer, job, kind, folder, options) -> bool:  # type: ignore[no-untyped-def]
    """Record one job; False where it did not end as its kind says."""
    rng = np.random.default_rng([job.seed, 7])
    trajectory = world.run(job.seed, make_behaviour(kind, rng), hz=_EVERY_STEP_HZ)
    if trajectory is None or (trajectory.success_frame is not None) != (kind == EXPERT):
        return False
    appearance = re_render(make_appearance(job.scene), rng)
    videos = dict(zip(('third_person', 'wrist'), renderer.record_robot(
        world.model, trajectory.shots, appearance, None), strict=True))
    step = trajectory.time_s[1] - trajectory.time_s[0]
    fps = REPEAT / step
    for view, frames in videos.items():
        write_video(folder / f'{view}.mp4', np.repeat(frames, REPEAT, axis=0), fps, quality=24)
    first = trajectory.success_frame
    document = {
        'schema_version': 1, 'task': world.task.text, 'robot': 'sawyer',
        'simulator': 'Meta-World', 'seed': job.seed, 'scene': job.scene,
        'success': first is not None, 'failure': '' if first is not None else kind,
        'success_frame': None if first is None else REPEAT * first, 'fps': round(fps, 3),
        'frame_count': REPEAT * len(trajectory.time_s),
        'views': {view: {'file': f'{view}.mp4'} for view in videos},
        'licence': {'videos': 'Apache-2.0, rendered by the hralign_ros maintainers',
                    'assets': 'Robot, objects and textures as in the Meta-World wheel (MIT)'},
        'command': f'python tools/record_demo_episodes.py --task {options.task} '
                   f'--round {options.round}'}
    (folder / 'episode.yaml').write_text(
        HEADER + yaml.safe_dump(document, sort_keys=False, width=95), encoding='utf-8')
    print(f'{folder}: {document["frame_count"]} frames, success frame '
          f'{document["success_frame"]}')
    return True


if __name__ == '__main__':
    main()
