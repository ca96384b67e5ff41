# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""`hralign bundle` and `hralign doctor`."""

from collections.abc import Sequence
from pathlib import Path

from hralign_ros.cli.options import compute_on, Device, read_views


def verify(
    *, bundle: Path | None = None, device: Device = 'auto', require_gpu: bool = False,
    trusted_keys: Sequence[Path] = (),
) -> None:
    """
    Check a bundle and run it once: manifest, hashes, every graph, and where each one ran.

    :param require_gpu: fail where no GPU is used
    :param trusted_keys: fail unless the bundle is signed with one of these public keys (PEM)
    """
    from hralign_ros.runtime import default_bundle, Encoder

    encoder = Encoder.load(
        bundle or default_bundle(), provider=device, require_gpu=require_gpu,
        trusted_keys=trusted_keys, require_signature=bool(trusted_keys))
    seconds = encoder.warm_up()
    manifest, hardware = encoder.manifest, encoder.hardware
    print(f'{encoder.bundle.path}: good')
    print(f'  bundle     {manifest.name}, {encoder.bundle.sha256[:16]}')
    print(f'  embedding  {encoder.identity.sha256[:16]}')
    if encoder.bundle.signed_by:
        print(f'  signature  good, by the trusted key {encoder.bundle.signed_by[:16]}')
    print(f'  backbone   {manifest.backbone.name}, adapter {manifest.adapter.name}')
    print(f'  views      {", ".join(manifest.views)}; {manifest.tokens.channels} values each')
    if manifest.fine:
        print(f'  fine       {manifest.fine.rows} x {manifest.fine.columns} tokens of '
              f'{manifest.fine.channels} values, of {manifest.reference_view}')
    print(f'  tasks      {len(encoder.tasks.tasks)}; success head '
          f'{"trained" if manifest.success.trained else "not trained"}'
          f'{", grounded" if manifest.success.grounded else ""}')
    for file, head in manifest.heads.items():
        count = sum(task.head == file for task in encoder.tasks.tasks)
        print(f'  beside it  {file}{", grounded" if head.grounded else ""}; tasks {count}')
    print(f'  device     asked {hardware.requested}, got {hardware.provider}')
    if hardware.remark:
        print(f'  remark     {hardware.remark}')
    print(f'  one tick   {seconds * 1e3:.1f} ms, one 640x480 image per view')


def evaluate(
    *, data: Path, output: Path, bundle: Path | None = None, split: Sequence[str] = (),
    allow_unknown_tasks: bool = False, device: Device = 'auto', command: str,
) -> None:
    """
    Measure a finished bundle on recorded episodes: detection, calibration, false alarms, delays.

    Plays the episodes to the runtime that is in the node. Nothing is fitted; taught tasks are
    measured as well. Writes report.html, .json and .csv.

    :param output: folder of the report
    :param split: of the episodes to play; default: all, whatever their splits, but for those that
        the bundle is known to be made of
    :param allow_unknown_tasks: decide on tasks that the bundle does not know, too
    """
    from hralign_ros.data.manifest import read_manifest
    from hralign_ros.evaluation.bundle import evaluate_bundle
    from hralign_ros.runtime import default_bundle

    compute_on(device)
    evaluate_bundle(
        read_manifest(data), bundle or default_bundle(), output, splits=split,
        allow_unknown=allow_unknown_tasks, device=device, commands=[command])


def add_parts(
    *, data: Sequence[Path], bundle: Path | None = None, output: Path | None = None, command: str,
) -> None:
    """
    Give a bundle the parts spatial and keypoints of its embedding, or fit them anew.

    Fits a basis of its tokens to a few frames of many episodes, without labels, and writes it as
    spatial.onnx. Episodes of the split train are used, and those of no split. All else stays as it
    is, but for a signature: sign the bundle again.

    :param data: data sets: folders with a manifest, as `hralign data` writes them
    :param bundle: its folder; default: the shipped one
    :param output: bundle to write; default: --bundle itself
    """
    from hralign_ros.data.manifest import read_manifest
    from hralign_ros.export import parts
    from hralign_ros.runtime import default_bundle

    source = bundle or default_bundle()
    target = output or source
    manifest = parts.add_parts(
        source, [read_manifest(folder) for folder in data], target, command=command)
    total = sum(entry.bytes for entry in manifest.files.values())
    print(f'{target}: spatial.onnx has {manifest.files["spatial.onnx"].bytes / 1e6:.2f} MB, the '
          f'bundle {total / 1e6:.2f} MB')


def add_fine(
    *, data: Path, bundle: Path | None = None, output: Path, command: str,
) -> None:
    """
    Give a bundle fine tokens, in which a success head can look for the things that are named.

    Its visual graph hands out the map of an earlier stage, twice as fine as the last one, reduced
    by a basis that is fitted to a few frames of many episodes of the split train, without labels.
    The embedding's numbers and the bundle's tasks, success head and thresholds stay. But
    visual.onnx is another file, and with it the embedding another one to whoever asks
    (embedding_sha256): policies that learnt on the old bundle are refused, features are computed
    anew, and runs of `hralign success train` on the old one cannot be put into this. Train a head
    that looks at fine tokens by `hralign success train --grounded`.

    :param data: data set: folder with a manifest
    :param bundle: its folder; default: the shipped one
    :param output: bundle to write
    """
    from hralign_ros.data.manifest import read_manifest
    from hralign_ros.export import fine_tokens
    from hralign_ros.runtime import default_bundle

    manifest = fine_tokens.add_fine(
        bundle or default_bundle(), read_manifest(data), output, command=command)
    fine = manifest.fine
    assert fine is not None
    print(f'{output}: {fine.rows} x {fine.columns} fine tokens of {fine.channels} numbers, of '
          f'{manifest.reference_view}')


def contract(
    *, output: Path, bundle: Path | None = None, extend: Path | None = None,
    parts: Sequence[str] = ('keypoints',), node: str = '/encoder', fps: int = 30, command: str,
) -> None:
    """
    Write a contract of rosetta: embedding, result, reward and task of a bundle's encoder.

    The first lines of the file say what the encoder has to be started with.

    :param output: YAML file
    :param extend: contract of your robot, which keeps all it has; default: one of a robot without
        topics, which records what the encoder says
    :param parts: of the embedding that are appended to observation.state, in this order
    :param fps: rows of the data set a second, where no --extend says so
    """
    from hralign_ros.runtime import default_bundle, load_bundle, rosetta_contract
    from hralign_ros.runtime.parts import choose_parts

    rosetta_contract.require_writable(output)
    node = rosetta_contract.check_node(node)
    loaded = load_bundle(bundle or default_bundle())
    chosen = choose_parts(parts, loaded, 'attention')
    views = loaded.manifest.views
    made = rosetta_contract.make_contract(
        chosen, views, robot=rosetta_contract.read_robot(extend, fps=fps), node=node)
    output.write_text(rosetta_contract.contract_text(
        made, chosen, bundle=bundle, node=node, command=command), 'utf-8')
    size = sum(part.size for part in chosen) * len(views)
    print(f'{output}: {size} numbers of {", ".join(part.name for part in chosen)} from '
          f'{", ".join(views)}; result, reward, success and task')


def sign(*, bundle: Path, key: Path) -> None:
    """
    Sign a bundle: check the hash of every file, then write bundle.sig beside bundle.yaml.

    Whatever changes the bundle makes the signature worthless: sign last.

    :param bundle: its folder
    :param key: the private file of `hralign bundle keygen`
    """
    from hralign_ros.runtime.bundle import sign_bundle

    path, key_id = sign_bundle(bundle, key)
    print(f'{path}: signed with the key {key_id[:16]}')


def keygen(*, output: Path) -> None:
    """
    Make a pair of keys for signing bundles. Nothing is overwritten.

    :param output: path and beginning of the names: <output>.private.pem, which only you may read
        and which signs, and <output>.public.pem, which robots need
    """
    from hralign_ros.runtime.signature import make_key

    private, public, key_id = make_key(output)
    print(f'key {key_id[:16]}')
    print(f'  {private}: signs; keep it to yourself')
    print(f'  {public}: for the robots, parameter trusted_keys')


def doctor(
    *, bundle: Path | None = None, device: Device | None = None, seconds: float = 5.0,
    views: Sequence[str] = (), params_file: Path | None = None, node: str = '/encoder',
    json: Path | None = None,
) -> int:
    """
    Check a robot's computer and cameras as the encoder needs them, and say what to do.

    Checks Python, ROS, onnxruntime, bundle, transport, cameras and computer. The exit code is 1
    where anything is an ERROR.

    :param bundle: its folder; default: the parameter file's, or the shipped one
    :param device: default: provider of the parameter file, or auto
    :param seconds: how long to listen to the cameras
    :param views: VIEW=TOPIC: image topics of the views, without '/compressed'
    :param params_file: that the encoder is started with
    :param json: write the findings there too
    """
    # Nothing but the part that listens needs ROS.
    from hralign_ros.doctor import run

    return run.doctor(run.read_options(
        bundle=bundle, device=device, topics=read_views(views, 'wrist=/camera/wrist'),
        params_file=params_file, node=node, seconds=seconds, json_file=json))
