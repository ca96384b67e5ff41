# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Write a folder that LeRobot loads as a pretrained reward model: config.json and the bundle."""

import argparse
import json
from pathlib import Path

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
    if what := _occupied(Path(given.output)):
        parser.error(f'{what}; name a new folder, or one that this command wrote')
    for text in given.camera:
        if '=' not in text:
            parser.error(f"--camera is '{text}'; needed is VIEW=KEY")
    model = HralignRewardModel(HralignConfig(
        bundle=given.bundle, task=given.task, reward_output=given.reward,
        cameras=dict(text.split('=', 1) for text in given.camera)))
    model.save_pretrained(given.output)
    print(given.output)


def _occupied(output: Path) -> str:
    """Say what a folder holds that would be written over; '': nothing, or a model of ours."""
    if output.exists() and not output.is_dir():
        return f'{output} is a file'
    path = output / 'config.json'
    if not path.exists():
        return ''
    try:
        config = json.loads(path.read_text('utf-8'))
    except (OSError, ValueError):
        return f'{path} is there and is no configuration of a model'
    kind = config.get('type') if isinstance(config, dict) else None
    return '' if kind == 'hralign' else f"{path} is of something else (type: {kind or 'none'})"


if __name__ == '__main__':
    main()
