# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Parameter files: what ROS would give to a node, and nothing of other nodes."""

from functools import partial

from hralign_ros.runtime.parameter_file import ParameterFileError, read_parameters
import pytest
import yaml


@pytest.mark.parametrize(('text', 'words'), [
    ('camera:\n  ros__parameters:\n    threads: 1\n', 'node named /encoder.*camera'),
    ('[', 'cannot be read'), ('', 'node named /encoder'), ('/**:\n  threads: 1\n', 'Key it by'),
    ('[1]: 2', 'cannot be read'), ('a: &b {c: *b}', 'cannot be read'), ('- 1', 'node named'),
])
def test_a_file_that_ros_would_ignore(tmp_path, text, words):
    """ROS starts the node with its defaults then, and says nothing."""
    file = tmp_path / 'file.yaml'
    file.write_text(text)
    with pytest.raises(ParameterFileError, match=words):
        read_parameters(file)
    with pytest.raises(ParameterFileError, match='cannot be read'):
        read_parameters(tmp_path / 'missing.yaml')


def test_parameters_of_several_robots(tmp_path):
    """
    Guards against looking at another robot's cameras: all sections of a file were merged.

    ROS takes those whose name fits the node's, namespace and all; later ones win.
    """
    file = tmp_path / 'file.yaml'
    file.write_text(yaml.safe_dump({
        '/**': {'ros__parameters': {'threads': 1}},
        '/left/encoder': {'ros__parameters': {'wrist': {'topic': '/left/cam'}}},
        'right': {'encoder': {'ros__parameters': {'wrist': {'topic': '/right/cam'}}}},
        '/*/eyes': {'ros__parameters': {'threads': 3}}}, sort_keys=False))
    read = partial(read_parameters, file)
    assert read('/left/encoder') == {'threads': 1, 'wrist.topic': '/left/cam'}
    assert read('/right/encoder') == {'threads': 1, 'wrist.topic': '/right/cam'}
    assert read('/encoder') == {'threads': 1} and read('/left/eyes') == {'threads': 3}


def test_a_name_that_comes_twice(tmp_path):
    """
    Guards parameters that a second block of the same name took away.

    ROS puts such blocks together; YAML readers keep the last one alone, without a word.
    """
    file = tmp_path / 'file.yaml'
    file.write_text('/**:\n  ros__parameters:\n    wrist:\n      rotation: 180\n    wrist:\n'
                    '      topic: /a\n    threads: 1\n    threads: 2\n'
                    '/**:\n  ros__parameters:\n    pairing: exact\n')
    assert read_parameters(file) == {
        'wrist.rotation': 180, 'wrist.topic': '/a', 'threads': 2, 'pairing': 'exact'}
