# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Make an episode of the demo of an attempt in a data set.

    python tools/demo_episode_of.py DATA EPISODE_ID demo/episodes/NAME --command "hralign data ..."

Record the data set with `--hz 16`: an attempt is the same at any rate, and a demo has more frames
than training needs. Each is shown twice, so that two cameras that are not synchronised have a
frame of each other's time.
"""

import argparse
from pathlib import Path

from hralign_ros.data.manifest import read_manifest
from hralign_ros.runtime.video import play, write_video
import numpy as np
import yaml

REPEAT = 2
HEADER = ('# Copyright 2026 hralign_ros maintainers\n# SPDX-License-Identifier: Apache-2.0\n'
          '# Written by tools/demo_episode_of.py. Frame k is at k / fps seconds.\n')


def main() -> None:
    """Write the folder of one episode."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('data', type=Path)
    parser.add_argument('episode_id')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--command', required=True, help='that recorded the data set')
    options = parser.parse_args()
    data = read_manifest(options.data)
    episode = next((e for e in data.episodes if e.episode_id == options.episode_id), None)
    if episode is None:
        raise SystemExit(f'{options.data} has no episode {options.episode_id}')
    told = dict(tag.split(':', 1) for tag in episode.tags if ':' in tag)
    fps = REPEAT / float(np.median(np.diff(episode.time_s)))
    for view, file in episode.robot_videos.items():
        frames = np.stack([image for _, image in play(data.folder / file)])
        write_video(options.folder / f'{view}.mp4', np.repeat(frames, REPEAT, axis=0), fps,
                    quality=24)
    done = np.flatnonzero(episode.success_flags)
    document = {
        'schema_version': 1, 'task': episode.task_text, 'robot': episode.embodiment,
        'simulator': f'{episode.source}, the simulated table', 'seed': episode.seed,
        'scene': episode.scene, 'success': bool(episode.success),
        'failure': '' if episode.success else told['behaviour'],
        **({} if episode.success or 'done' not in told else {'done_instead': told['done']}),
        'success_frame': REPEAT * int(done[0]) if episode.success else None,
        'fps': round(fps, 3), 'frame_count': REPEAT * len(episode.time_s),
        'views': {view: {'file': f'{view}.mp4'} for view in episode.robot_videos},
        'licence': {'videos': 'Apache-2.0, rendered by the hralign_ros maintainers',
                    'assets': 'Robots, meshes, textures: robosuite wheel (MIT); else our own'},
        'command': options.command}
    (options.folder / 'episode.yaml').write_text(HEADER + yaml.safe_dump(
        document, sort_keys=False, width=95), encoding='utf-8')
    print(f'{options.folder}: {document["frame_count"]} frames, success frame '
          f'{document["success_frame"]}')


if __name__ == '__main__':
    main()
