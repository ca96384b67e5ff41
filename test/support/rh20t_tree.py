# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A miniature of RH20T in its published layout, with one of everything that is wrong in the real one.

Good scenes: `SCENES` in configuration 3 (video in the camera's folder) and 5 (the small release:
video one folder deeper), two global cameras and one in the hand each. `make_tree` makes those;
`add_faults` adds a scene for every fault, named in `FAULTS`.
"""

import json
from pathlib import Path
import shutil

from hralign_ros.runtime.video import write_video
import numpy as np

GLOBAL = ('100000000001', '100000000002')
HAND = {3: '045322071843', 5: '104422070042'}
FRAMES = 10
RATE_HZ = 10
START_MS = 1_640_000_000_000
STEP_MS = 100
# Of the human's ten frames, those from number 2 to 7 show the demonstration.
HUMAN_FROM, HUMAN_TO = 2, 7
# The robot is done at this frame.
ROBOT_TO = 8
TEXTS = {'task_0001': 'Press the button.', 'task_0002': 'Open the drawer on the left.',
         'task_0003': 'Put the cup on the plate.'}
# Task, scene, configuration, rating; every task has two scenes.
SCENES = tuple((task, scene, config, rating) for task, rating in ((1, 9), (2, 5), (3, 2))
               for scene, config in ((1, 3), (6, 5)))


def scene_name(task, scene, config, user=1):
    return f'task_{task:04d}_user_{user:04d}_scene_{scene:04d}_cfg_{config:04d}'


def scene_folder(root, *where, **more):
    name = scene_name(*where, **more)
    return Path(root) / f'RH20T_cfg{where[2]}' / name


def draw_image(task, camera, step, human):
    """Draw a square whose path is the task's, in the actor's colour, on the camera's ground."""
    image = np.full((36, 64, 3), 40 + 60 * camera, np.uint8)
    x, y = [(4 + 5 * step, 12), (50 - 5 * step, 12), (28, 2 + 2 * step)][(task - 1) % 3]
    image[y:y + 8, max(x, 0):max(x, 0) + 8] = (220, 170, 140) if human else (30, 90, 230)
    return image


def write_camera(folder, task, camera, human, deep, drift_ms=0):
    video = folder / 'color' / 'color.mp4' if deep else folder / 'color.mp4'
    write_video(video, (draw_image(task, camera, i, human) for i in range(FRAMES)), RATE_HZ)
    stamps = [START_MS + drift_ms + STEP_MS * i for i in range(FRAMES)]
    np.save(folder / 'timestamps.npy', {'color': stamps, 'depth': stamps})


def write_states(folder, cameras, offset_ms=0):
    """Write 100 Hz samples; the hand's x is the second since the start, the gripper closes."""
    folder.mkdir(parents=True, exist_ok=True)
    times = [START_MS + offset_ms + 10 * i for i in range(FRAMES * 10)]
    hands = {c: [{'timestamp': t, 'tcp': np.array([0.01 * i, 0, 0.3, 1, 0, 0, 0]),
                  'robot_ft': np.zeros(6)} for i, t in enumerate(times)] for c in cameras}
    grippers = {c: {t: {'gripper_command': [0, 0, 0], 'gripper_info': [110 - i, 0, 0]}
                    for i, t in enumerate(times)} for c in cameras}
    np.save(folder / 'tcp_base.npy', hands)
    np.save(folder / 'gripper.npy', grippers)


def write_metadata(folder, **values):
    (folder / 'metadata.json').write_text(json.dumps(values), encoding='utf-8')


def add_scene(root, task, scene, config, rating, *, user=1, cameras=GLOBAL, human=True):
    """Add a robot scene and its human one; return the robot's folder."""
    folder = scene_folder(root, task, scene, config, user=user)
    deep = config == 5
    for i, serial in enumerate((*cameras, HAND[config])):
        write_camera(folder / f'cam_{serial}', task, i, False, deep, drift_ms=7 * i)
    write_states(folder / 'transformed', cameras)
    write_metadata(folder, calib=START_MS - 5000, calib_quality=2, rating=rating,
                   finish_time=START_MS + STEP_MS * ROBOT_TO + 50)
    if human:
        person = folder.with_name(folder.name + '_human')
        for i, serial in enumerate(cameras):
            write_camera(person / f'cam_{serial}', task, i, True, deep, drift_ms=7 * i)
        write_metadata(person, calib=START_MS - 5000, calib_quality=-1,
                       start_time=START_MS + STEP_MS * HUMAN_FROM - 20,
                       end_time=START_MS + STEP_MS * HUMAN_TO + 20)
    return folder


def make_tree(root, scenes=SCENES):
    """Make the good scenes; return the root."""
    root = Path(root)
    for where in scenes:
        add_scene(root, *where)
    (root / 'RH20T_cfg3' / 'calib' / str(START_MS)).mkdir(parents=True)
    (root / 'task_description.json').write_text(json.dumps({
        task: {'task_description_english': text, 'task_description_chinese': ''}
        for task, text in TEXTS.items()}), encoding='utf-8')
    return root


def _corrupt_robot(folder, person):
    (folder / f'cam_{GLOBAL[0]}' / 'color.mp4').write_bytes(b'no video at all' * 50)


def _corrupt_human(folder, person):
    path = person / f'cam_{GLOBAL[0]}' / 'color.mp4'
    path.write_bytes(path.read_bytes()[:200])


def _corrupt_hand(folder, person):
    (folder / f'cam_{HAND[3]}' / 'color.mp4').write_bytes(b'')


def _no_video(folder, person):
    (folder / f'cam_{GLOBAL[0]}' / 'color.mp4').unlink()


def _no_human_camera(folder, person):
    shutil.rmtree(person / f'cam_{GLOBAL[1]}')


def _no_human(folder, person):
    shutil.rmtree(person)


def _no_robot(folder, person):
    shutil.rmtree(folder)


def _no_rating(folder, person):
    write_metadata(folder, calib=1, finish_time=START_MS + 650)


def _unknown_rating(folder, person):
    write_metadata(folder, calib=1, rating=-1)


def _uncalibrated(folder, person):
    write_metadata(folder, calib=-1, rating=9)


def _uncalibrated_human(folder, person):
    write_metadata(person, calib=-1, start_time=START_MS)


def _no_stamps(folder, person):
    (person / f'cam_{GLOBAL[0]}' / 'timestamps.npy').unlink()


def _few_stamps(folder, person):
    np.save(folder / f'cam_{GLOBAL[0]}' / 'timestamps.npy', {'color': [START_MS], 'depth': []})


def _broken_json(folder, person):
    (folder / 'metadata.json').write_text('{"rating": 9', encoding='utf-8')


def _broken_human_json(folder, person):
    (person / 'metadata.json').write_text('[]', encoding='utf-8')


def _states_of_another_time(folder, person):
    write_states(folder / 'transformed', GLOBAL, offset_ms=60_000)


def _one_state_file(folder, person):
    (folder / 'transformed' / 'gripper.npy').unlink()


def _no_cameras(folder, person):
    for serial in GLOBAL:
        shutil.rmtree(folder / f'cam_{serial}')


def _other_time(folder, person):
    write_metadata(person, calib=1, start_time=START_MS + 10**6, end_time=START_MS + 2 * 10**6)


# What is done to a good scene (task 1, scene 1, configuration 3, a user of its own), the fault
# that is to be reported, how often, and what is left: episodes, and those with a human clip.
FAULTS = {
    'corrupt robot video': (_corrupt_robot, {'corrupt_video': 1}, 1, 1),
    'cut human video': (_corrupt_human, {'corrupt_video': 1}, 2, 1),
    'empty in-hand video': (_corrupt_hand, {'corrupt_video': 1}, 2, 2),
    'no robot video': (_no_video, {'corrupt_video': 1}, 1, 1),
    'camera missing in the human folder': (_no_human_camera, {'no_human_camera': 1}, 2, 1),
    'no human folder': (_no_human, {'no_human': 1}, 2, 0),
    'no robot folder': (_no_robot, {'no_robot_scene': 1}, 0, 0),
    'no rating': (_no_rating, {'no_rating': 1}, 2, 2),
    'rating -1': (_unknown_rating, {'no_rating': 1}, 2, 2),
    'calib -1': (_uncalibrated, {'uncalibrated': 1}, 0, 0),
    'human calib -1': (_uncalibrated_human, {'uncalibrated': 1}, 2, 0),
    'no time stamps': (_no_stamps, {'no_timestamps': 1}, 2, 2),
    'too few time stamps': (_few_stamps, {'no_timestamps': 1}, 2, 2),
    'human of another time': (_other_time, {'no_timestamps': 2}, 2, 2),
    'broken metadata': (_broken_json, {'broken_metadata': 1}, 0, 0),
    'broken human metadata': (_broken_human_json, {'broken_metadata': 1}, 2, 2),
    'states of another time': (_states_of_another_time, {'no_state': 2}, 2, 2),
    'one file of states': (_one_state_file, {'no_state': 1}, 2, 2),
    'no global camera': (_no_cameras, {'no_cameras': 1}, 0, 0),
}


def add_fault(root, name, user=9):
    """Add a scene that has this fault; return its folder."""
    folder = add_scene(root, 1, 1, 3, 9, user=user)
    FAULTS[name][0](folder, folder.with_name(folder.name + '_human'))
    return folder


def add_faults(root):
    """Add a scene for every fault; return by fault how many should be reported."""
    expected = {}
    for user, (name, (_, counts, _, _)) in enumerate(FAULTS.items(), start=10):
        add_fault(root, name, user)
        for kind, count in counts.items():
            expected[kind] = expected.get(kind, 0) + count
    return expected
