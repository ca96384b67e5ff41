# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Bundles to test with: the shipped one, and the tiny one of test/tiny_bundle.py.

Variants of either are made by linking the files that stay and writing those that change.
"""

from collections.abc import Callable, Mapping
import os
from pathlib import Path
import shutil
from typing import Any

from hralign_ros.runtime import default_bundle, Encoder
import pytest
from support.tiny_bundle import listing, write_tiny_bundle  # noqa: E402
import yaml

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope='session')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tiny bundle; not to be changed, use `variant` for that."""
    pytest.importorskip('onnx', reason='onnx is not installed: it makes the tiny bundle')
    folder = tmp_path_factory.mktemp('bundles') / 'tiny'
    folder.mkdir()
    write_tiny_bundle(folder)
    return folder


@pytest.fixture(scope='session')
def tiny_grounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tiny bundle with fine tokens and a head that looks at them."""
    pytest.importorskip('onnx', reason='onnx is not installed: it makes the tiny bundle')
    folder = tmp_path_factory.mktemp('bundles') / 'grounded'
    folder.mkdir()
    write_tiny_bundle(folder, fine=True, grounded=True)
    return folder


def make_variant(
    folder: Path, source: Path, *, change: Change | None = None,
    files: Mapping[str, bytes | None] | None = None, rehash: bool = True,
) -> Path:
    """
    Make a variant of a bundle in an empty folder.

    :param change: edits the document of bundle.yaml in place.
    :param files: are written, or removed where None.
    :param rehash: bundle.yaml then tells the size and hash that these files really have.
    """
    for path in source.iterdir():
        if path.name in (files or {}):
            continue
        try:
            os.link(path.resolve(), folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)
    for name, data in (files or {}).items():
        if data is not None:
            (folder / name).write_bytes(data)
    document = yaml.safe_load((source / 'bundle.yaml').read_text('utf-8'))
    written = [name for name, data in (files or {}).items() if data is not None]
    if rehash:
        document['files'].update(listing(folder, written))
    if change is not None:
        change(document)
    (folder / 'bundle.yaml').unlink(missing_ok=True)
    (folder / 'bundle.yaml').write_text(yaml.safe_dump(document, sort_keys=False), 'utf-8')
    return folder


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Path]:
    """Give `make_variant`, each time with a new folder."""
    def make(source: Path, **how: Any) -> Path:
        folder = tmp_path / f'variant{len(list(tmp_path.iterdir()))}'
        folder.mkdir()
        return make_variant(folder, source, **how)

    return make


@pytest.fixture
def tiny_encoder(tiny: Path) -> Encoder:
    """Load the tiny bundle afresh, so that a test may break it."""
    return Encoder.load(tiny, provider='cpu', threads=1)


@pytest.fixture
def encoder() -> Encoder:
    """Load the shipped bundle afresh."""
    return Encoder.load(default_bundle(), provider='cpu')


@pytest.fixture(scope='session')
def shipped() -> Path:
    """Tell where the shipped bundle is."""
    return default_bundle()
