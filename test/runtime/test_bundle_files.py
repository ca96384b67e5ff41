# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A bundle's files: what is lost, cut, exchanged, linked or huge is refused before it is used."""

import os
from pathlib import Path
import shutil
import subprocess
import sys
import tracemalloc

from hralign_ros.runtime import BundleError, Encoder, load_bundle
from hralign_ros.runtime.bundle import REQUIRED_FILES
import pytest
from support.refusals import GRAPHS, MISSING, put, refusal


@pytest.mark.parametrize('name', [
    '../secret', '/etc/passwd', 'sub/visual.onnx', '.', '..', '', 'bundle.yaml', 'bundle.sig',
    'visual.onnx\0', 5,
])
def test_only_plain_file_names(tiny, variant, name):
    """Guards against a bundle reading files that are not its own."""
    def change(document):
        document['files'][name] = {'bytes': 1, 'sha256': '0' * 64}
    refusal(variant(tiny, change=change), 'bundle.yaml', 'files', load=load_bundle)


@pytest.mark.parametrize('name', REQUIRED_FILES)
def test_every_required_file_must_be_listed(tiny, variant, name):
    """Guards against a graph that no hash vouches for."""
    folder = variant(tiny, change=lambda d: put(d, f'files/{name}', MISSING))
    refusal(folder, 'bundle.yaml', name)


@pytest.mark.parametrize('name', [n for n in REQUIRED_FILES if n != 'card.md'])
def test_a_missing_file(tiny, variant, name):
    """Guards against a copy that lost a file."""
    refusal(variant(tiny, files={name: None}), name, 'again')


def test_reading_what_is_not_listed(tiny):
    """Guards against reading a file that no hash vouches for."""
    with pytest.raises(BundleError, match='does not list'):
        load_bundle(tiny).read('other.onnx')


@pytest.mark.parametrize('name', GRAPHS)
def test_a_truncated_file(tiny, variant, name):
    """Guards against a copy that was cut off."""
    data = (tiny / name).read_bytes()
    folder = variant(tiny, files={name: data[:len(data) // 2]}, rehash=False)
    refusal(folder, name, 'bytes', 'again')


@pytest.mark.parametrize('name', [n for n in REQUIRED_FILES if n != 'card.md'])
def test_a_wrong_hash(tiny, variant, name):
    """Guards against a single changed bit in a file of the right size."""
    data = bytearray((tiny / name).read_bytes())
    data[len(data) // 2] ^= 1
    folder = variant(tiny, files={name: bytes(data)}, rehash=False)
    refusal(folder, name, 'SHA-256', 'again')


def test_a_bundle_behind_a_link(tiny, tmp_path):
    """Guards colcon's --symlink-install, where every file of a bundle is a link."""
    folder = tmp_path / 'linked'
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).symlink_to(path)
    assert Encoder.load(str(folder), provider='cpu').bundle.path == Path(folder)
    again = tmp_path / 'again'
    again.symlink_to(folder)
    Encoder.load(again, provider='cpu')


def test_a_file_that_is_a_link_elsewhere(tiny, variant, tmp_path):
    """Guards against a bundle that has somebody else's files read, hashed and complained about."""
    folder = variant(tiny)
    shutil.copy(tiny / 'visual.onnx', tmp_path / 'secret')
    (folder / 'visual.onnx').unlink()
    (folder / 'visual.onnx').symlink_to(tmp_path / 'secret')
    refusal(folder, 'visual.onnx', 'symbolic link', 'cp -rL')


def test_a_manifest_that_is_a_link_to_nowhere(tmp_path):
    """Guards against a link in a circle, and one whose end is gone."""
    for target in ('bundle.yaml', 'away.yaml'):
        folder = tmp_path / target.removesuffix('.yaml')
        folder.mkdir()
        (folder / 'bundle.yaml').symlink_to(folder / target)
        refusal(folder)


@pytest.mark.parametrize('kind', ['pipe', 'folder', 'device'])
def test_a_file_that_is_none(tiny, variant, kind):
    """
    Guards configure against waiting for ever.

    A pipe has 0 bytes until somebody writes into it: listed with 0 bytes it passed for a file of
    the right size, and reading it never came back.
    """
    folder = variant(tiny, change=lambda d: put(d, 'files/visual.onnx/bytes', 0))
    path = folder / 'visual.onnx'
    path.unlink()
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    else:
        path.symlink_to('/dev/zero')
    refusal(folder, 'visual.onnx')


def test_a_huge_file_is_not_read(tiny, variant):
    """
    Guards the robot's memory: of a file that is larger than listed, the listed size is read.

    Not larger than this: where three times as much is not free, that is what is refused first.
    """
    folder = variant(tiny)
    path = folder / 'visual.onnx'
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    with path.open('r+b') as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    try:
        refusal(folder, 'visual.onnx', 'more bytes')
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000, f'{peak} bytes to refuse a file'


def test_a_bundle_that_is_too_large_together(tiny, variant):
    """Guards the robot's disk and memory against many files that are each within the limit."""
    def change(document):
        for i in range(5):
            document['files'][f'part{i}'] = {'bytes': 2 << 30, 'sha256': '0' * 64}
    refusal(variant(tiny, change=change), 'together', load=load_bundle)


@pytest.mark.parametrize('length', [1 << 63, 1 << 30, (1 << 20) + 1])
def test_a_header_that_announces_gigabytes(tiny, variant, length):
    """Guards against eight bytes making the reader of the prompts ask for all memory."""
    data = length.to_bytes(8, 'little') + bytes(2 << 20)
    refusal(variant(tiny, files={'tasks.safetensors': data}), 'tasks.safetensors', 'header')


def test_every_byte_used_was_verified_and_read_once(tiny, tmp_path):
    """
    Guards the chain from bundle.yaml to what runs, seen from outside.

    Every file of the bundle that a load opens is bundle.yaml or listed in it, and is opened once:
    between a check and a use there is nothing that could be exchanged.
    """
    program = """
import collections, os, sys
from hralign_ros.runtime import Encoder
opened = collections.Counter()
folder = os.path.realpath(sys.argv[1])
def hook(event, arguments):
    if event == 'open' and isinstance(arguments[0], str) and arguments[0].startswith(folder):
        opened[os.path.basename(arguments[0])] += 1
sys.addaudithook(hook)
Encoder.load(sys.argv[1], provider='cpu').warm_up()
print(sorted(opened.items()))
"""
    done = subprocess.run([sys.executable, '-c', program, str(tiny)], capture_output=True,
                          text=True, timeout=120, check=True)
    used = {'bundle.yaml', 'spatial.onnx', *REQUIRED_FILES} - {'card.md'}
    assert done.stdout.strip() == str(sorted((name, 1) for name in used))
