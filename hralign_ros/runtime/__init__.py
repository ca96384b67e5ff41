# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What runs on the robot: numpy and onnxruntime, no ROS and no torch.

    from hralign_ros.runtime import default_bundle, Encoder
    episode = Encoder.load(default_bundle()).start_episode('put the marker in the cup')
    tick = episode.step({'wrist': wrist_rgb, 'third_person': third_rgb}, stamp=time_ns)
    print(tick.part('spatial').shape, tick.success.probability, tick.decision.name)

Pipeline does the same for cameras that send when they like: it pairs their frames and runs in a
thread of its own, for the node or for any other program.
"""

from hralign_ros.runtime.bundle import Bundle, load_bundle
from hralign_ros.runtime.decision import (
    decide,
    Decider,
    Decision,
    DecisionRules,
    DecisionState,
    Status,
)
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.episode import Episode, Success, Tick
from hralign_ros.runtime.errors import (
    BundleError,
    FrameError,
    HralignError,
    InferenceError,
    ProviderError,
    SignatureError,
    TaskError,
)
from hralign_ros.runtime.faults import Faults
from hralign_ros.runtime.images import decode_compressed, decode_raw, Image, ViewGeometry
from hralign_ros.runtime.pairing import PairingRules
from hralign_ros.runtime.parts import DEFAULT_PARTS, EmbeddingPart, PARTS
from hralign_ros.runtime.pipeline import Callbacks, Pipeline, Result
from hralign_ros.runtime.resources import default_bundle

__all__ = [
    'Bundle', 'BundleError', 'Callbacks', 'DEFAULT_PARTS', 'Decider', 'Decision', 'DecisionRules',
    'DecisionState', 'EmbeddingPart', 'Encoder', 'Episode', 'Faults', 'FrameError', 'HralignError',
    'Image', 'InferenceError', 'PARTS', 'PairingRules', 'Pipeline', 'ProviderError', 'Result',
    'SignatureError', 'Status', 'Success', 'TaskError', 'Tick', 'ViewGeometry', 'decide',
    'decode_compressed', 'decode_raw', 'default_bundle', 'load_bundle',
]
