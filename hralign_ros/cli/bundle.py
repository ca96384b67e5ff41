# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Commands for bundles and for the computer that runs one: verify, doctor, sign, make-key."""

import argparse
from pathlib import Path

from hralign_ros.cli.options import Commands


def add_to(commands: Commands) -> None:
    """Add the commands to the parser."""
    for add in (_add_verify, _add_doctor, _add_sign, _add_make_key):
        add(commands)


def _add_verify(commands: Commands) -> None:
    verify = commands.add_parser(
        'verify', help='check a bundle and run it once', description='Check a bundle: manifest, '
        'hashes, graphs; then run every graph once and say where it ran.')
    verify.add_argument('bundle', nargs='?', help='its directory; default: the shipped one')
    verify.add_argument('--provider', default='auto', help='auto, cpu or cuda (%(default)s)')
    verify.add_argument('--require-gpu', action='store_true', help='fail where no GPU is used')
    verify.add_argument('--trusted-key', action='append', default=[], metavar='PUBLIC_PEM',
                        help='fail unless the bundle is signed with this key, or another one so '
                        'named')
    verify.set_defaults(run=_verify)


def _add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser(
        'doctor', help="check a robot's computer, cameras included", description='Check Python, '
        'ROS, onnxruntime, bundle, transport, cameras and computer as the encoder needs them, and '
        'say what to do. Exit code 1 where anything is an ERROR.')
    doctor.add_argument('--bundle', help="its directory; default: the parameter file's, or the "
                        'shipped one')
    doctor.add_argument('--provider', help="auto, cpu or cuda; default: the parameter file's, or "
                        'auto')
    doctor.add_argument('--seconds', type=float, default=5.0,
                        help='how long to listen to the cameras (%(default)g)')
    doctor.add_argument('--topics', nargs='+', default=[], metavar='VIEW=TOPIC',
                        help="image topics of the views, without '/compressed'")
    doctor.add_argument('--params-file', type=Path, help='that the encoder is started with')
    doctor.add_argument('--namespace', default='/', help='of the encoder (%(default)s)')
    doctor.add_argument('--name', default='encoder', help='of its node (%(default)s)')
    doctor.add_argument('--json', type=Path, metavar='FILE', help='write the findings there too')
    doctor.set_defaults(run=_doctor)


def _add_sign(commands: Commands) -> None:
    signing = commands.add_parser(
        'sign', help='sign a bundle', description='Check the hash of every file of a bundle, then '
        'sign bundle.yaml, which holds them; bundle.sig is written beside it. Whatever changes '
        'the bundle makes the signature worthless: sign last.')
    signing.add_argument('bundle', help='its directory')
    signing.add_argument('--key', required=True, metavar='PRIVATE_PEM',
                         help='the private file of `hralign make-key`')
    signing.set_defaults(run=_sign)


def _add_make_key(commands: Commands) -> None:
    making = commands.add_parser(
        'make-key', help='make a pair of keys for signing bundles', description='Write '
        'OUT.private.pem, which only you may read and which signs, and OUT.public.pem, which '
        'robots need. Nothing is overwritten.')
    making.add_argument('out', metavar='OUT', help='path and beginning of the names')
    making.set_defaults(run=_make_key)


def _verify(options: argparse.Namespace) -> int:
    from hralign_ros.runtime import default_bundle, Encoder

    encoder = Encoder.load(
        options.bundle or default_bundle(), provider=options.provider,
        require_gpu=options.require_gpu, trusted_keys=options.trusted_key,
        require_signature=bool(options.trusted_key))
    seconds = encoder.warm_up()
    manifest, hardware = encoder.manifest, encoder.hardware
    print(f'{encoder.bundle.path}: good')
    print(f'  bundle     {manifest.name}, {encoder.bundle.sha256[:16]}')
    if encoder.bundle.signed_by:
        print(f'  signature  good, by the trusted key {encoder.bundle.signed_by[:16]}')
    print(f'  backbone   {manifest.backbone}, adapter {manifest.adapter}')
    print(f'  views      {", ".join(manifest.views)}; {manifest.channels} values each')
    print(f'  tasks      {len(encoder.tasks.tasks)}; success head '
          f'{"trained" if manifest.success_trained else "not trained"}')
    print(f'  provider   asked {hardware.requested}, got {hardware.provider}')
    if hardware.remark:
        print(f'  remark     {hardware.remark}')
    print(f'  one tick   {seconds * 1e3:.1f} ms, one 640x480 image per view')
    return 0


def _doctor(options: argparse.Namespace) -> int:
    # Lazily, as all commands: nothing but the part that listens needs ROS.
    from hralign_ros.doctor.run import doctor, read_options

    return doctor(read_options(
        bundle=options.bundle, provider=options.provider, topics=options.topics,
        params_file=options.params_file, namespace=options.namespace, seconds=options.seconds,
        json_file=options.json, name=options.name))


def _sign(options: argparse.Namespace) -> int:
    from hralign_ros.runtime.bundle import sign_bundle

    path, key_id = sign_bundle(options.bundle, options.key)
    print(f'{path}: signed with the key {key_id[:16]}')
    return 0


def _make_key(options: argparse.Namespace) -> int:
    from hralign_ros.runtime.signature import make_key

    private, public, key_id = make_key(options.out)
    print(f'key {key_id[:16]}')
    print(f'  {private}: signs; keep it to yourself')
    print(f'  {public}: for the robots, parameter trusted_keys')
    return 0
