# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Recordings that bases are fitted to."""

import pytest
from support.images import image


@pytest.fixture(scope='session')
def recordings(tmp_path_factory):
    """Write a data set of six robot episodes, of which the last two are for tests."""
    from hralign_ros.data.manifest import Episode, write_manifest
    from hralign_ros.runtime.video import write_video

    folder = tmp_path_factory.mktemp('recordings')
    episodes = []
    for number in range(6):
        files = {}
        for view in ('wrist', 'third_person'):
            files[view] = f'{number}_{view}.mp4'
            write_video(folder / files[view], (
                image(100 * number + frame + len(view), 48, 64) for frame in range(6)), 5)
        episodes.append(Episode(
            episode_id=f'e{number}', task_id='cup', task_text='pick up the cup',
            scene=f's{number}', camera='c', embodiment='panda' if number < 3 else 'ur5e',
            source='robosuite', license_id='CC-BY-NC-4.0', seed=number, success=True,
            robot_videos=files,
            split='' if number == 0 else 'train' if number < 4 else 'test_seen'))
    write_manifest(folder, episodes)
    return folder
