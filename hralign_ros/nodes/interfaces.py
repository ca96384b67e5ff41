# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The interfaces of hralign_msgs, or one sentence that says how to build them."""

try:
    from hralign_msgs.action import WaitForSuccess
    from hralign_msgs.msg import (
        ActionChunk,
        EmbeddingPart,
        EncoderInfo,
        SceneState,
        SuccessProbability,
        TaskEmbedding,
        TaskInfo,
    )
    from hralign_msgs.srv import LabelEpisode, SetScene, SetTask, StartEpisode
except ImportError as error:
    raise SystemExit(
        f'hralign_msgs cannot be imported ({error}). colcon stops at a package and does not see '
        'the one nested in it: build the workspace with\n'
        "    colcon build --base-paths src 'src/*/hralign_msgs'\n"
        'then source install/setup.bash and start again') from error

__all__ = ['ActionChunk', 'EmbeddingPart', 'EncoderInfo', 'LabelEpisode', 'SceneState',
           'SetScene', 'SetTask', 'StartEpisode', 'SuccessProbability', 'TaskEmbedding',
           'TaskInfo', 'WaitForSuccess']
