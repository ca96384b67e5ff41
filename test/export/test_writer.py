# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The writer of bundles: what it writes is what the reader reads, and it harms nothing."""

from dataclasses import replace

from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.runtime import BundleError, load_bundle
from hralign_ros.runtime.tasks import load_tasks
import pytest


def parts_of(folder):
    """Read all that the writer takes."""
    bundle = load_bundle(folder)
    return bundle.manifest, graphs_of(bundle), load_tasks(bundle)


@pytest.mark.parametrize('which', ['shipped', 'tiny'])
def test_a_bundle_written_again_is_the_same(tmp_path, request, which):
    """Guards every byte: what the reader does not take, a bundle with one task more would lose."""
    source = request.getfixturevalue(which)
    write_bundle(tmp_path / 'again', *parts_of(source))
    names = sorted(path.name for path in source.iterdir())
    assert names == sorted(path.name for path in (tmp_path / 'again').iterdir())
    for name in names:
        assert (tmp_path / 'again' / name).read_bytes() == (source / name).read_bytes(), name


def test_a_link_to_a_bundle_goes_on_pointing_at_it(tmp_path, tiny):
    """Guards models/current -> v1: after minutes of work it could not be replaced."""
    (tmp_path / 'v1').mkdir()
    (tmp_path / 'v1/bundle.yaml').write_text('old')
    (tmp_path / 'current').symlink_to('v1')
    write_bundle(tmp_path / 'current', *parts_of(tiny))
    assert (tmp_path / 'current').is_symlink() and load_bundle(tmp_path / 'v1').sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ['current', 'v1']


@pytest.mark.parametrize('what', ['graph', 'prompts', 'views'])
def test_what_no_reader_takes_leaves_the_old_bundle(tmp_path, tiny, what):
    """Guards the robot's bundle: a new one is loaded before it takes the place of the old."""
    manifest, graphs, tasks = parts_of(tiny)
    if what == 'graph':
        del graphs['visual.onnx']
    elif what == 'prompts':
        tasks = replace(tasks, fallback=replace(
            tasks.fallback, prompts=tasks.fallback.prompts[:1]))
    else:
        manifest = replace(manifest, views=('left', 'right'))
    folder = tmp_path / 'bundle'
    folder.mkdir()
    (folder / 'bundle.yaml').write_text('old')
    with pytest.raises(BundleError):
        write_bundle(folder, manifest, graphs, tasks)
    assert (folder / 'bundle.yaml').read_text() == 'old'
    assert list(tmp_path.iterdir()) == [folder]
