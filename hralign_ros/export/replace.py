# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Putting a bundle in its place: whole, or not at all, and not over anything else."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
import shutil
from tempfile import mkdtemp
from typing import Any

from hralign_ros.runtime.bundle import MANIFEST
from hralign_ros.runtime.errors import BundleError
import yaml


def is_trained(bundle: Path) -> bool:
    """Whether there is a bundle whose success head is trained; a damaged one's is not."""
    try:
        return bool(yaml.safe_load((bundle / MANIFEST).read_bytes())['success']['trained'])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False


def require_replaceable(output: Path) -> None:
    """
    Refuse to put a bundle in the place of something else; to be called before any work is done.

    :raises BundleError: `output` is a file, or a folder of other things.
    """
    if output.exists() and not (output.is_dir() and (
            (output / MANIFEST).is_file() or not any(output.iterdir()))):
        raise BundleError(
            f'{output} holds other things; only a bundle or an empty folder is replaced. Name '
            'another one')


def replace_bundle(output: Path, files: Mapping[str, bytes], manifest: dict[str, Any]) -> None:
    """
    Write all files beside the target, then put the directory in its place.

    :param manifest: bundle.yaml without the hashes of the files, which are added to it.
    :raises BundleError: see require_replaceable.
    """
    require_replaceable(output)
    # A link goes on pointing where it points.
    output = output.resolve()
    manifest['files'] = {
        name: {'bytes': len(data), 'sha256': sha256(data).hexdigest()}
        for name, data in sorted(files.items())}
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(mkdtemp(prefix=f'{output.name}.new-', dir=output.parent))
    fresh.chmod(0o755)
    try:
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        (fresh / MANIFEST).write_text(
            yaml.safe_dump(manifest, sort_keys=False, width=98, allow_unicode=True), 'utf-8')
    except OSError:  # a full disk, say: nothing is left of the attempt
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if output.exists():
        old = Path(mkdtemp(prefix=f'{output.name}.old-', dir=output.parent))
        output.rename(old)
        fresh.rename(output)
        shutil.rmtree(old)
    else:
        fresh.rename(output)
