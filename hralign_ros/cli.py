# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The command line: hralign COMMAND; `hralign --help` lists them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from hralign_ros import __version__
from hralign_ros.runtime.errors import HralignError

# What each optional group of packages is for; named when one of its imports fails.
_EXTRAS = {'export': 'adapt'}
DEFAULT_VIEWS = ['wrist', 'third_person']


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='hralign', description='Work with hralign_ros bundles.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(dest='command', required=True)

    verify = commands.add_parser(
        'verify', help='check a bundle and run it once', description='Check a bundle: manifest, '
        'hashes, graphs; then run every graph once and say where it ran.')
    verify.add_argument('bundle', nargs='?', help='its directory; default: the shipped one')
    verify.add_argument('--provider', default='auto', help='auto, cpu or cuda (%(default)s)')
    verify.add_argument('--require-gpu', action='store_true', help='fail where no GPU is used')

    export = commands.add_parser(
        'export', help='make a bundle', description='Export a bundle with identity adapters and '
        'an untrained success head.')
    export.add_argument('--output', required=True, type=Path, help='directory to write')
    export.add_argument('--backbone', default='efficientnet_lite0',
                        help='efficientnet_lite0, resnet50 or vit_b_16 (%(default)s)')
    export.add_argument('--weights', help='state dict (.pth read without pickle, .safetensors)')
    export.add_argument('--views', nargs='+', default=DEFAULT_VIEWS,
                        help='camera views, the reference view last (%(default)s)')
    export.add_argument('--int8', action='store_true', help='also write visual.int8.onnx')
    export.add_argument('--seed', type=int, default=0, help='of random weights (%(default)s)')

    options = parser.parse_args(arguments)
    try:
        return {'verify': _verify, 'export': _export}[options.command](options)
    except HralignError as error:
        print(f'hralign: {error}', file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if options.command not in _EXTRAS:
            raise
        print(f"hralign: {options.command} needs the package '{error.name}': "
              f"pip install 'hralign_ros[{_EXTRAS[options.command]}]'", file=sys.stderr)
        return 1


def _verify(options: argparse.Namespace) -> int:
    from hralign_ros.runtime import default_bundle, Encoder

    encoder = Encoder.load(
        options.bundle or default_bundle(), provider=options.provider,
        require_gpu=options.require_gpu)
    seconds = encoder.warm_up()
    manifest, hardware = encoder.manifest, encoder.hardware
    print(f'{encoder.bundle.path}: good')
    print(f'  bundle     {manifest.name}, {encoder.bundle.sha256[:16]}')
    print(f'  backbone   {manifest.backbone}, adapter {manifest.adapter}')
    print(f'  views      {", ".join(manifest.views)}; {manifest.channels} values each')
    print(f'  tasks      {len(encoder.tasks.tasks)}; success head '
          f'{"trained" if manifest.success_trained else "not trained"}')
    print(f'  provider   asked {hardware.requested}, got {hardware.provider}')
    if hardware.remark:
        print(f'  remark     {hardware.remark}')
    print(f'  one tick   {seconds * 1e3:.1f} ms, one 640x480 picture per view')
    return 0


def _export(options: argparse.Namespace) -> int:
    from hralign_ros.export.bundle import export_bundle, ExportOptions

    command = ' '.join([
        'hralign export', f'--output {options.output.name}', f'--backbone {options.backbone}',
        *([f'--weights {Path(options.weights).name}'] if options.weights else []),
        *([f'--views {" ".join(options.views)}'] if options.views != DEFAULT_VIEWS else []),
        *(['--int8'] if options.int8 else []), f'--seed {options.seed}'])
    try:
        manifest = export_bundle(
            options.output,
            ExportOptions(backbone=options.backbone, weights=options.weights,
                          views=tuple(options.views), int8=options.int8, seed=options.seed,
                          name=options.output.name),
            command=command)
    except (ValueError, RuntimeError, OSError) as error:
        print(f'hralign: {error}', file=sys.stderr)
        return 1
    total = sum(entry['bytes'] for entry in manifest['files'].values())
    for name, entry in manifest['files'].items():
        print(f'  {entry["bytes"] / 1e6:7.2f} MB  {name}')
    print(f'  {total / 1e6:7.2f} MB  {options.output}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
