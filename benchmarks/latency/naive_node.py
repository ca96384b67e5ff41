# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The node that people write first, for comparison: the same networks, none of the care.

Everything happens in the image callback on a queue of ten: conversion as cv_bridge does it, torch
in eager mode, and all frames of the clip encoded anew at every tick. Where there was a choice it
got the faster one: frames are resized and normalised once, and the text is encoded once.
"""

from array import array
from collections import deque
import sys
import time

import cv2
from hralign_msgs.msg import TaskEmbedding
from hralign_ros.models.adapters import adapters_of
from hralign_ros.models.backbones import load_backbone
from hralign_ros.models.hr_align import TaskAttention
from hralign_ros.models.success import SuccessHead
from hralign_ros.nodes.conversions import duration_message
import numpy as np
from numpy.typing import NDArray
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
import torch
from torch.nn import functional

VIEWS = ('wrist', 'third_person')
LENGTH = 5
MODES = 3
TEXT_DIM = 384


class NaiveNode(Node):
    """Subscribe to both cameras, encode the whole clip in the callback of the second."""

    def __init__(self) -> None:
        super().__init__('naive')
        torch.set_num_threads(2)
        backbone = load_backbone('efficientnet_lite0')
        self._spec = backbone.preprocessing
        self._backbone = backbone.module
        self._adapters = adapters_of(backbone.channels, backbone.kind).eval()
        self._attention = TaskAttention(TEXT_DIM, backbone.channels).eval()
        self._success = SuccessHead(
            len(VIEWS), backbone.channels, backbone.grid[0] * backbone.grid[1], TEXT_DIM).eval()
        self._text = functional.normalize(torch.randn(1 + MODES, TEXT_DIM), dim=1)
        self._frames: dict[str, deque[torch.Tensor]] = {
            view: deque(maxlen=LENGTH) for view in VIEWS}
        self._conversion = 0
        self._publisher = self.create_publisher(TaskEmbedding, '~/embedding', 10)
        # A queue of ten as ever, but best effort: the cameras offer nothing else.
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Image, 'wrist/image_raw', self._on_wrist, qos)
        self.create_subscription(Image, 'third_person/image_raw', self._on_third_person, qos)

    def _on_wrist(self, message: Image) -> None:
        start = time.monotonic_ns()
        self._frames['wrist'].append(self._convert(message))
        self._conversion = time.monotonic_ns() - start

    def _on_third_person(self, message: Image) -> None:
        start = time.monotonic_ns()
        self._frames['third_person'].append(self._convert(message))
        if not all(len(frames) == LENGTH for frames in self._frames.values()):
            return
        embedding = self._encode()
        answer = TaskEmbedding(header=message.header, view_names=list(VIEWS),
                               part_names=['clip'], part_offsets=[0],
                               dim=embedding.shape[1], data=array('f', embedding.tobytes()))
        answer.view_stamps = [message.header.stamp] * len(VIEWS)
        answer.view_valid = [True] * len(VIEWS)
        answer.publish_time = self.get_clock().now().to_msg()
        answer.processing_duration = duration_message(
            time.monotonic_ns() - start + self._conversion)
        self._publisher.publish(answer)

    @torch.no_grad()
    def _convert(self, message: Image) -> torch.Tensor:
        """Convert as cv_bridge does for 'bgr8', then back to RGB, resize and normalise."""
        rows = np.ndarray((message.height, message.step), np.uint8, buffer=message.data)
        pixels = rows.reshape(message.height, message.width, 3).copy()
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        image = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255.0
        image = functional.interpolate(
            image, (self._spec.size,) * 2, mode='bilinear', antialias=True)
        mean = torch.tensor(self._spec.mean)[:, None, None]
        std = torch.tensor(self._spec.std)[:, None, None]
        return (image - mean) / std

    @torch.no_grad()
    def _encode(self) -> NDArray[np.float32]:
        """Encode T frames of V views in one batch and run both heads."""
        batch = torch.cat([frame for view in VIEWS for frame in self._frames[view]])
        maps = self._adapters(self._backbone(batch))
        tokens = maps.flatten(2).transpose(1, 2).unflatten(0, (len(VIEWS), LENGTH))
        mask = torch.ones(len(VIEWS), LENGTH)
        embedding, _ = self._attention(tokens, mask, self._text[0])
        self._success(tokens, mask, mask, self._text, torch.ones(MODES))
        return np.asarray(embedding.numpy(), np.float32)


def main() -> int:
    """Spin until SIGINT."""
    rclpy.init()
    node = NaiveNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
