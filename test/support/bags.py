# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Bags as rosbags writes them, in each way of storing, with two cameras and an arm.

An image's brightness tells its number, a little moved square the rest. The third-person camera is
at 10 Hz, the wrist's 20 ms later; received is all 50 ms after it was taken.
"""

from pathlib import Path
import shutil

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

ROOT = Path(__file__).resolve().parents[2]
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND + 123_456_789
PERIOD, LATE, BEHIND = SECOND // 10, 50_000_000, 20_000_000
TOPICS = {'third_person': '/camera/front/color/image_raw', 'wrist': '/camera/wrist/image_raw'}
FRAMES = 12
# How bags are stored: plug-in and compression.
STORED = {
    'sqlite3': (StoragePlugin.SQLITE3, CompressionMode.NONE),
    'sqlite3, zstd by file': (StoragePlugin.SQLITE3, CompressionMode.FILE),
    'sqlite3, zstd by message': (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    'mcap': (StoragePlugin.MCAP, CompressionMode.NONE),
    'mcap, zstd by file': (StoragePlugin.MCAP, CompressionMode.FILE),
    'mcap, zstd by message': (StoragePlugin.MCAP, CompressionMode.MESSAGE),
    'mcap, zstd by chunk': (StoragePlugin.MCAP, CompressionMode.STORAGE)}


def type_store():
    """Return the types of ROS and our own."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in (ROOT / 'hralign_msgs/msg').glob('*.msg'):
        types |= get_types_from_msg(path.read_text('utf-8'), f'hralign_msgs/msg/{path.stem}')
    store.register(types)
    return store


STORE = type_store()
T = {kind.rpartition('/')[2]: made for kind, made in STORE.types.items()
     if kind.startswith(('sensor_msgs', 'std_msgs', 'geometry_msgs', 'builtin', 'hralign'))}


def draw(number, view):
    """Draw an image: uint8 [32, 48, 3] RGB."""
    image = np.full((32, 48, 3), 20 + 5 * (number % 40), np.uint8)
    at = 4 + number % 20
    image[at:at + 6, 10:16] = (250, 10, 60) if view == 'wrist' else (10, 90, 250)
    return image


def stamp_of(number, view='third_person', start=START):
    return start + number * PERIOD + (BEHIND if view == 'wrist' else 0)


def time_of(nanoseconds):
    return T['Time'](sec=nanoseconds // SECOND, nanosec=nanoseconds % SECOND)


def header(stamp):
    return T['Header'](stamp=time_of(stamp), frame_id='camera')


def raw(image, stamp, encoding='rgb8'):
    return T['Image'](header=header(stamp), height=image.shape[0], width=image.shape[1],
                      encoding=encoding, is_bigendian=0, step=image[0].size,
                      data=np.ascontiguousarray(image).ravel())


def jpeg(image, stamp):
    _, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return T['CompressedImage'](header=header(stamp), format='rgb8; jpeg compressed bgr8',
                                data=np.asarray(data, np.uint8).ravel())


def joints(names, values, stamp):
    none = np.empty(0)
    return T['JointState'](header=header(stamp), name=list(names),
                           position=np.array(values, np.float64), velocity=none, effort=none)


def success(stamp, episode_id, task=''):
    """Make a message of an encoder: of this image, in this episode."""
    zero = {'float32': 0.0, 'bool': False, 'uint8': 0, 'uint32': 0, 'string': ''}
    values = {name: zero[what[0]] for name, (_, what) in STORE.fielddefs[
        'hralign_msgs/msg/SuccessProbability'][1] if what[0] in zero}
    none = np.empty(0, np.float32)
    values |= {'header': header(stamp), 'episode_id': time_of(episode_id), 'task': task,
               'processing_duration': T['Duration'](sec=0, nanosec=0), 'publish_time': time_of(0),
               'view_names': ['wrist'], 'view_stamps': [time_of(stamp)],
               'view_ages': np.zeros(1, np.float32), 'view_valid': np.ones(1, bool),
               'mode_names': [], 'mode_probabilities': none, 'clip_stamps': []}
    return T['SuccessProbability'](**values)


def write(path, messages, stored='mcap'):
    """
    Write a bag.

    :param messages: (topic, message, time of arrival), in any order.
    """
    plugin, compression = STORED[stored]
    writer = Writer(path, version=9, storage_plugin=plugin)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, message, received in sorted(messages, key=lambda one: one[2]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], received, STORE.serialize_cdr(message, kind))
    return path


def images(frames=FRAMES, start=START, make=raw, views=TOPICS, late=LATE):
    """List messages of images."""
    return [(topic, make(draw(number, view), stamp_of(number, view, start)),
             stamp_of(number, view, start) + late)
            for view, topic in views.items() for number in range(frames)]


def moves(frames=FRAMES, start=START):
    """List joint states at 50 Hz, of an arm and of its gripper in messages of their own."""
    listed = []
    for step in range(-5, frames * 5):
        stamp = start + step * PERIOD // 5
        listed.append(('/joint_states', joints(['b', 'a'], [step, step * 0.5], stamp), stamp))
        if step % 5 == 0:
            listed.append(('/joint_states', joints(['gripper'], [100 + step], stamp), stamp + 1))
    return listed


def cut(path, share):
    """Cut the storage file of a bag off, and take its metadata away, as a killed recorder does."""
    (path / 'metadata.yaml').unlink()
    file, = path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[:int(len(data) * share)])
    return path


def copy(path, target):
    shutil.copytree(path, target)
    return target
