# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A camera made of a video file: plays it as an image topic, for demo, tests and benchmark."""

from array import array
from collections.abc import Iterator
import math
from pathlib import Path
import sys
import time

import cv2
from hralign_ros.nodes.conversions import image_message, ns_to_stamp
from hralign_ros.nodes.image_subscriptions import camera_topic
from hralign_ros.nodes.parameters import declared, Parameter, ParameterError
from hralign_ros.nodes.process import run_node
from hralign_ros.runtime.errors import DataError
from hralign_ros.runtime.video import play, probe
import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage

# Encodings that can be sent -> OpenCV conversion from RGB.
_FROM_RGB = {
    'rgb8': None,
    'bgr8': cv2.COLOR_RGB2BGR,
    'rgba8': cv2.COLOR_RGB2RGBA,
    'bgra8': cv2.COLOR_RGB2BGRA,
    'mono8': cv2.COLOR_RGB2GRAY,
}
PARAMETERS = (
    Parameter('file', '', 'Video file to play.'),
    Parameter('rate_hz', 0.0, "Frames per second; 0: the times of the video's own frames.",
              0.0, 1000.0),
    Parameter('loop', False, 'Begin again at the end.'),
    Parameter('encoding', 'rgb8', 'Of the messages; jpeg: sensor_msgs/CompressedImage.',
              choices=(*_FROM_RGB, 'jpeg')),
    Parameter('quality', 95, 'Of JPEG.', 1, 100),
    Parameter('width', 0, 'Resize to; 0: as it is.', 0, 8192),
    Parameter('height', 0, 'Resize to; 0: as it is.', 0, 8192),
    Parameter('frame_id', 'camera_optical_frame', "Header's frame_id."),
    Parameter('wait_for_subscribers', 1, 'Start once so many listen.', 0, 100),
    Parameter('wait_s', 0.0, 'Start after so long whoever listens [s]; 0: wait on.', 0.0, 3600.0),
    Parameter('reliability', 'best_effort', 'Reliability offered to subscribers.',
              choices=('best_effort', 'reliable')),
)
# How often it looks for subscribers [s].
_LOOK_S = 0.02
# How long the last frames may take to arrive, where delivery is reliable [s].
_LAST_S = 1.0
# A frame that is later than this moves all that follow, where a video cannot be decoded at its
# rate: stamps that stay behind the clock would be refused as too old [ns].
_LATE = 200_000_000


class VideoPublisher(Node):
    """
    Publish the frames of a file at the times of the video, or at a steady rate.

    Stamps are as far apart as the frames of the video are. It waits for subscribers before it
    starts, so that all of them see the first frames.

    :raises ParameterError: a parameter has a value that cannot be used.
    :raises DataError: the file cannot be played.
    """

    def __init__(self) -> None:
        super().__init__('video_publisher')
        self._values = values = declared(self, PARAMETERS)
        if not values['file']:
            raise ParameterError('parameter file is empty; needed is a video file')
        self._file = Path(values['file'])
        # Seconds between frames where the video does not say: after the last one of a loop.
        self._period = 1.0 / (values['rate_hz'] or probe(self._file).rate_hz or 30.0)
        self._frames = self._play()
        self._next: tuple[float, NDArray[np.uint8]] | None = next(self._frames)
        self._waiting = values['wait_for_subscribers']
        self._at_last = time.monotonic() + values['wait_s'] if values['wait_s'] else math.inf
        kind, topic, qos = camera_topic(
            'image_raw', 'compressed' if values['encoding'] == 'jpeg' else 'raw',
            values['reliability'])
        self._publisher: Publisher = self.create_publisher(kind, topic, qos)
        self._failed: DataError | None = None
        self._finished = False
        # Of the clock, when the first frame was sent [ns].
        self._start: int | None = None
        self._timer = self.create_timer(_LOOK_S, self._on_timer)

    def is_finished(self) -> bool:
        """
        Tell whether the last frame has been shown.

        :raises DataError: it was the last because the next one cannot be decoded.
        """
        if self._finished and self._failed is not None:
            raise self._failed
        return self._finished

    def _play(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield each frame with the seconds from the first at which it is due."""
        rate, start, count = self._values['rate_hz'], 0.0, 0
        while True:
            for seconds, image in play(self._file):
                due = count / rate if rate else start + seconds
                yield due, image
                count += 1
            if not self._values['loop']:
                return
            start = due + self._period

    def _on_timer(self) -> None:
        """Send the next frame if it is due, and wait for the one after it."""
        if self._publisher.get_subscription_count() < self._waiting \
                and time.monotonic() < self._at_last:
            return
        self._waiting = 0
        if self._next is None:
            self._publisher.wait_for_all_acked(Duration(seconds=_LAST_S))
            self._finished = True
            return
        now = self.get_clock().now().nanoseconds
        self._start = now if self._start is None else self._start
        seconds, image = self._next
        stamp = self._start + round(seconds * 1e9)
        if now - stamp > _LATE:
            self.get_logger().warning(
                f'{self._file} cannot be decoded at its rate here; it plays slower', once=True)
            self._start, stamp = self._start + now - stamp, now
        if now >= stamp:
            self._send(image, stamp)
            self._next = self._advance()
            # The last frame is shown for a while, too.
            seconds = self._next[0] if self._next else seconds + self._period
            stamp = self._start + round(seconds * 1e9)
            now = self.get_clock().now().nanoseconds
        self._timer.timer_period_ns = max(stamp - now, 0)
        self._timer.reset()

    def _advance(self) -> tuple[float, NDArray[np.uint8]] | None:
        """Decode the next frame ahead of its time; None at the end."""
        try:
            return next(self._frames, None)
        except DataError as error:
            self._failed = error
            return None

    def _send(self, rgb: NDArray[np.uint8], stamp: int) -> None:
        width, height = self._values['width'], self._values['height']
        if width and height:
            rgb = np.asarray(
                cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        encoding, frame_id = self._values['encoding'], self._values['frame_id']
        if encoding == 'jpeg':
            _, data = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
                                   [cv2.IMWRITE_JPEG_QUALITY, self._values['quality']])
            message = CompressedImage(format='jpeg', data=array('B', data.tobytes()))
            message.header.stamp, message.header.frame_id = ns_to_stamp(stamp), frame_id
        else:
            conversion = _FROM_RGB[encoding]
            pixels = rgb if conversion is None else cv2.cvtColor(rgb, conversion)
            message = image_message(
                np.asarray(pixels, np.uint8), stamp, frame_id, encoding=encoding)
        self._publisher.publish(message)


def main(arguments: list[str] | None = None) -> int:
    """Run the node as a process; it ends with the video."""
    return run_node('video_publisher', VideoPublisher, arguments,
                    finished=VideoPublisher.is_finished)


if __name__ == '__main__':
    sys.exit(main())
