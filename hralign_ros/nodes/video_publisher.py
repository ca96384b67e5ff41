# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A camera made of a video file: plays it as an image topic, for demo, tests and benchmark."""

from array import array
import math
import sys
import time
from typing import Any

import cv2
from hralign_ros.nodes.process import run_node
from hralign_ros.runtime.errors import HralignError
import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage

# Encodings that can be sent -> OpenCV conversion from BGR, channels.
_FROM_BGR: dict[str, tuple[int | None, int]] = {
    'rgb8': (cv2.COLOR_BGR2RGB, 3),
    'bgr8': (None, 3),
    'rgba8': (cv2.COLOR_BGR2RGBA, 4),
    'bgra8': (cv2.COLOR_BGR2BGRA, 4),
    'mono8': (cv2.COLOR_BGR2GRAY, 1),
}


class VideoError(HralignError):
    """A video cannot be played as asked."""


class VideoPublisher(Node):
    """
    Publish the frames of a file at a steady rate, stamped as they are sent.

    Waits for subscribers before it starts, so that the first frames are seen by all of them.
    """

    def __init__(self) -> None:
        super().__init__('video_publisher')
        self._file = self._parameter('file', '', 'Video file to play.')
        rate = self._parameter('rate_hz', 30.0, 'Frames per second.', 0.1, 1000.0)
        self._loop = self._parameter('loop', False, 'Begin again at the end.')
        self._encoding = self._parameter(
            'encoding', 'rgb8', f'One of {", ".join(_FROM_BGR)}, or jpeg.')
        self._quality = self._parameter('quality', 95, 'Of JPEG.', 1, 100)
        self._size = (self._parameter('width', 0, 'Resize to; 0: as it is.', 0, 8192),
                      self._parameter('height', 0, 'Resize to; 0: as it is.', 0, 8192))
        self._frame_id = self._parameter(
            'frame_id', 'camera_optical_frame', "Header's frame_id.")
        self._waiting = self._parameter(
            'wait_for_subscribers', 1, 'Start once so many listen.', 0, 100)
        patience = self._parameter(
            'wait_s', 0.0, 'Start after so long whoever listens [s]; 0: wait on.', 0.0, 3600.0)
        self._at_last = time.monotonic() + patience if patience else math.inf
        reliability = self._parameter('reliability', 'best_effort', 'best_effort or reliable.')
        if self._encoding not in (*_FROM_BGR, 'jpeg'):
            raise VideoError(f"parameter encoding is '{self._encoding}'; allowed: "
                             f'{", ".join(_FROM_BGR)}, jpeg')
        self._video = cv2.VideoCapture(self._file)
        if not self._file or not self._video.isOpened():
            raise VideoError(f"parameter file is '{self._file}': no video that OpenCV can play")
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE
                         if reliability == 'reliable' else ReliabilityPolicy.BEST_EFFORT)
        kind, topic = ((CompressedImage, 'image_raw/compressed') if self._encoding == 'jpeg'
                       else (ImageMessage, 'image_raw'))
        self._publisher = self.create_publisher(kind, topic, qos)
        self.finished = False
        self.sent = 0
        self.create_timer(1.0 / rate, self._on_timer)

    def _parameter(
        self, name: str, default: Any, text: str, low: float | None = None,
        high: float | None = None,
    ) -> Any:
        """Declare a read-only parameter and read it."""
        descriptor = ParameterDescriptor(description=text, read_only=True)
        if low is not None and high is not None:
            if isinstance(default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=low, to_value=high, step=0.0)]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(low), to_value=int(high), step=0)]
        return self.declare_parameter(name, default, descriptor).value

    def _on_timer(self) -> None:
        """Send the next frame."""
        if self._publisher.get_subscription_count() < self._waiting \
                and time.monotonic() < self._at_last:
            return
        self._waiting = 0
        found, frame = self._video.read()
        if not found and self._loop and self.sent:
            self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
            found, frame = self._video.read()
        if not found:
            self.finished = True
            return
        if all(self._size):
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        message = self._message(np.asarray(frame, np.uint8))
        message.header.frame_id = self._frame_id
        message.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)
        self.sent += 1

    def _message(self, bgr: np.ndarray) -> ImageMessage | CompressedImage:
        """Make a message of a BGR image, without the header."""
        if self._encoding == 'jpeg':
            _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
            return CompressedImage(format='jpeg', data=array('B', data.tobytes()))
        conversion, channels = _FROM_BGR[self._encoding]
        pixels = bgr if conversion is None else cv2.cvtColor(bgr, conversion)
        height, width = bgr.shape[:2]
        return ImageMessage(
            height=height, width=width, step=width * channels, encoding=self._encoding,
            data=array('B', pixels.tobytes()))


def main(arguments: list[str] | None = None) -> int:
    """Run the node as a process; it ends with the video."""
    try:
        return run_node(VideoPublisher, arguments, finished=lambda node: node.finished)
    except HralignError as error:
        print(f'video_publisher: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
