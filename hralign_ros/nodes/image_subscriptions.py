# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Camera topics: how they are subscribed to, and the way from a message to an image."""

from hralign_ros.runtime.images import decode_message, Image
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage


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
    return decode_message(message), message.header.frame_id
