# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Write a folder that LeRobot loads as a pretrained reward model: config.json and the bundle."""

import argparse

from lerobot_policy_hralign.configuration_hralign import HralignConfig, OUTPUTS
from lerobot_policy_hralign.modeling_hralign import HralignRewardModel


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(prog='python -m lerobot_policy_hralign', description=__doc__)
    parser.add_argument('output', help='new folder')
    parser.add_argument('--task', required=True, help='the instruction')
    parser.add_argument('--bundle', default='', help='its folder; default: the shipped one')
    parser.add_argument('--camera', action='append', default=[], metavar='VIEW=KEY',
                        help='which images are which view; default: observation.images.<view>')
    parser.add_argument('--reward', default='success', choices=OUTPUTS)
    given = parser.parse_args()
    model = HralignRewardModel(HralignConfig(
        bundle=given.bundle, task=given.task, reward_output=given.reward,
        cameras=dict(text.split('=', 1) for text in given.camera)))
    model.save_pretrained(given.output)
    print(given.output)


if __name__ == '__main__':
    main()
