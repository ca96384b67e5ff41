# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Cameras for the benchmark: frames held in memory, sent at a steady rate.

Every process sends at the same instants, the multiples of the period on the system clock, and
stamps frames with that instant, as cameras on one hardware trigger do; so stamps of several
processes agree, and how late a process woke counts as latency. When and how long each frame was
really sent is logged as int64 rows: view, stamp, start, end [ns].
"""

import argparse
from array import array
from pathlib import Path
import signal
import sys
from threading import Event
import time

import cv2
from hralign_ros.nodes.conversions import ns_to_stamp
from hralign_ros.runtime.resources import find_share
from hralign_ros.runtime.video import read_frames
import numpy as np
from numpy.typing import NDArray
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

RATE = 30
PERIOD = 1_000_000_000 // RATE
FRAMES = 60
LOG_COLUMNS = 4


def view_frames(view: str, size: tuple[int, int], *, count: int = FRAMES) -> list[NDArray]:
    """
    Read frames evenly spread over the shipped episode.

    :param size: width and height to resize to.
    :returns: uint8 [H, W, 3], RGB.
    """
    frames, _ = read_frames(find_share('demo/can') / f'{view}.mp4', count=count)
    return [np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)
            if frame.shape[1::-1] != size else frame for frame in frames]


def make_message(image: NDArray, encoding: str, frame_id: str) -> Image | CompressedImage:
    """Make the message of an image, all but the stamp."""
    if encoding == 'jpeg':
        _, data = cv2.imencode(
            '.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
        message = CompressedImage(format='jpeg', data=array('B', data.tobytes()))
    else:
        height, width = image.shape[:2]
        message = Image(height=height, width=width, step=width * 3, encoding='rgb8',
                        data=array('B', image.tobytes()))
    message.header.frame_id = frame_id
    return message


def wait_until(instant: int) -> None:
    """Sleep until an instant of the system clock [ns]."""
    while (rest := instant - time.time_ns()) > 0:
        time.sleep(rest * 1e-9)


def main() -> int:
    """Send until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--views', nargs='+', required=True)
    parser.add_argument('--size', nargs=2, type=int, default=(640, 480))
    parser.add_argument('--encoding', choices=('rgb8', 'jpeg'), default='rgb8')
    parser.add_argument('--namespace', required=True)
    parser.add_argument('--log', type=Path, required=True)
    options = parser.parse_args()

    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f'{"_".join(options.views)}_cameras', namespace=options.namespace)
    kind, suffix = (
        (CompressedImage, '/compressed') if options.encoding == 'jpeg' else (Image, ''))
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publishers = [node.create_publisher(kind, f'{view}/image_raw{suffix}', qos)
                  for view in options.views]
    messages = [
        [make_message(image, options.encoding, f'{view}_optical_frame')
         for image in view_frames(view, tuple(options.size))] for view in options.views]
    print('ready', flush=True)
    with options.log.open('ab', buffering=0) as log:
        tick = time.time_ns() // PERIOD + 1
        while not stop.is_set():
            wait_until(tick * PERIOD)
            stamp = tick * PERIOD
            for number, publisher in enumerate(publishers):
                message = messages[number][tick % len(messages[number])]
                message.header.stamp = ns_to_stamp(stamp)
                start = time.time_ns()
                publisher.publish(message)
                log.write(array('q', [number, stamp, start, time.time_ns()]).tobytes())
            # A process that was held up leaves frames out; it does not send them in a burst.
            tick = max(tick + 1, time.time_ns() // PERIOD)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
