# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Success and progress by hralign_ros in LeRobot.

Importing this registers the reward model `hralign` and the processor step
`hralign_reward_processor`; `register_third_party_plugins` of LeRobot does.
"""

from lerobot_policy_hralign.configuration_hralign import HralignConfig
from lerobot_policy_hralign.modeling_hralign import HralignRewardModel
from lerobot_policy_hralign.processor_hralign import (
    HralignRewardProcessorStep,
    make_hralign_pre_post_processors,
)

__all__ = ['HralignConfig', 'HralignRewardModel', 'HralignRewardProcessorStep',
           'make_hralign_pre_post_processors']
