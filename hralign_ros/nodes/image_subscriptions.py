# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Camera topics: how they are subscribed to, and the way from a message to an image."""

from functools import cache
from importlib.util import find_spec
import os
from typing import Any

from hralign_ros.runtime.errors import FrameError
from hralign_ros.runtime.images import (
    check_size,
    decode_compressed,
    decode_raw,
    Image,
    RAW_ENCODINGS,
)
import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage

NOT_INSTALLED = 'cv_bridge is not installed'
# Distributions whose cv_bridge is compiled against numpy 1; numpy 2 in the same process makes it
# fail at import, or crash.
_NUMPY_1_DISTRIBUTIONS = ('humble', 'iron', 'jazzy', 'kilted')


def camera_topic(
    topic: str, transport: str, reliability: str, *, depth: int = 1,
) -> tuple[type, str, QoSProfile]:
    """
    Tell how a camera is published and subscribed to.

    :param topic: resolved: a remapping of the base name has to move .../compressed with it.
    :returns: message type, topic with what the transport adds, QoS.
    """
    qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])
    if transport == 'compressed':
        return CompressedImage, f'{topic}/compressed', qos
    return ImageMessage, topic, qos


def decode(message: ImageMessage | CompressedImage) -> tuple[Image, str]:
    """
    Decode a camera message.

    :returns: uint8 [H, W, 3] RGB, and the message's frame_id.
    :raises FrameError: the image cannot be used.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data, encoding=message.format), message.header.frame_id
    if message.encoding in RAW_ENCODINGS:
        image = decode_raw(
            message.data, height=message.height, width=message.width, step=message.step,
            encoding=message.encoding)
    else:
        image = _decode_with_cv_bridge(message)
    return image, message.header.frame_id


def _decode_with_cv_bridge(message: ImageMessage) -> Image:
    """Decode what is not a plain 8-bit image, such as Bayer or YUV."""
    check_size(message.height, message.width)
    bridge, why_not = find_cv_bridge()
    if bridge is None:
        raise FrameError(
            'unsupported_encoding',
            f"encoding '{message.encoding}' needs cv_bridge, and {why_not}; without it allowed: "
            f'{", ".join(RAW_ENCODINGS)}')
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, 'rgb8'), np.uint8)
    except Exception as error:  # cv_bridge raises errors of its own, OpenCV's and numpy's
        raise FrameError(
            'unsupported_encoding',
            f"encoding '{message.encoding}' cannot be turned into rgb8 ({error}); set the camera "
            f'driver to one of {", ".join(RAW_ENCODINGS)}') from error


@cache
def find_cv_bridge() -> tuple[Any, str]:
    """Import cv_bridge once; give it, or why it cannot be used."""
    if find_spec('cv_bridge') is None:
        return None, NOT_INSTALLED
    distribution = os.environ.get('ROS_DISTRO', '')
    if int(np.__version__.split('.')[0]) >= 2 and distribution in _NUMPY_1_DISTRIBUTIONS:
        return None, (f'the cv_bridge of ROS 2 {distribution} is built for numpy 1, and numpy '
                      f"{np.__version__} is loaded: pip install 'numpy<2'")
    try:
        from cv_bridge import CvBridge

        return CvBridge(), ''
    except Exception as error:  # a broken installation fails in many ways
        return None, f'cv_bridge cannot be imported ({error})'
