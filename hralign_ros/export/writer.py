# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Writing a bundle: whole and as its reader takes it, or not at all, and not over other things."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
import shutil
from tempfile import mkdtemp
from typing import Any

from hralign_ros.export.card import render_card
from hralign_ros.runtime.bundle import (
    Bundle,
    CARD,
    FileEntry,
    load_bundle,
    MANIFEST,
    Manifest,
    SCHEMA_VERSION,
    TASK_TENSORS,
    TASKS,
)
from hralign_ros.runtime.errors import BundleError
from hralign_ros.runtime.schema import to_document
from hralign_ros.runtime.tasks import load_tasks, TaskTable
import numpy as np
from safetensors.numpy import save
import yaml


def graphs_of(bundle: Bundle) -> dict[str, bytes]:
    """Read all files that a bundle takes over from another: graphs and tokenizer."""
    return {name: bundle.read(name) for name in bundle.manifest.files
            if name not in (TASKS, TASK_TENSORS, CARD)}


def is_trained(bundle: Path) -> bool:
    """Whether there is a bundle, of any version, with a trained success head; damaged: no."""
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


def write_bundle(
    output: Path, manifest: Manifest, graphs: Mapping[str, bytes], tasks: TaskTable,
) -> Manifest:
    """
    Write all files beside the target, load them, then put the directory in its place.

    :param manifest: its `files` are filled in here.
    :param graphs: graphs and tokenizer, by the file's name.
    :returns: the manifest as written.
    :raises BundleError: see require_replaceable; or no reader would take the bundle.
    """
    require_replaceable(output)
    # A link goes on pointing where it points.
    output = output.resolve()
    files = {
        **graphs, TASKS: _yaml(to_document(tasks.stored)), CARD: render_card(manifest).encode(),
        TASK_TENSORS: save({f'prompts/{task.task_id}': np.ascontiguousarray(
            # Those of heads that are shared by hundreds would be most of a bundle's own files.
            task.prompts, np.float32) for task in tasks.everyone if task.robot or not task.head})}
    manifest = replace(manifest, files={
        name: FileEntry(len(data), sha256(data).hexdigest())
        for name, data in sorted(files.items())})
    files[MANIFEST] = _yaml({'schema_version': SCHEMA_VERSION, **to_document(manifest)})
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(mkdtemp(prefix=f'{output.name}.new-', dir=output.parent))
    fresh.chmod(0o755)
    try:
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        written = load_bundle(fresh)
        load_tasks(written)
        for name in manifest.files:
            written.read(name)
    except (OSError, BundleError):  # a full disk, say: nothing is left of the attempt
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if output.exists():
        old = Path(mkdtemp(prefix=f'{output.name}.old-', dir=output.parent))
        output.rename(old)
        fresh.rename(output)
        shutil.rmtree(old)
    else:
        fresh.rename(output)
    return manifest


def _yaml(document: Any) -> bytes:
    return bytes(yaml.safe_dump(
        document, sort_keys=False, width=98, allow_unicode=True, encoding='utf-8'))
