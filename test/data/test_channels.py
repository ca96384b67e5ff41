# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the numbers of proprioception and actions are called."""

from hralign_ros.data.channels import Channels, read_channels, write_channels
from hralign_ros.data.manifest import DataError, DataSet, Episode
from hralign_ros.runtime.policy import Channel
import pytest


def data_in(folder):
    return DataSet(folder, (Episode(
        'one', 'cup', 'pick up the cup', 'bench', 'c', 'arm', 'folder', 'Apache-2.0',
        time_s=[0.0, 0.1], actions=[[1.0], [2.0]], proprio=[[0.0, 1.0], [0.0, 1.0]]),))


def test_names_and_units(tmp_path):
    """Guards the file: what is written is read, and without one the numbers are counted."""
    assert [one.name for one in read_channels(data_in(tmp_path)).proprio] == [
        'proprio_0', 'proprio_1']
    channels = Channels((Channel('x', 'm'), Channel('y')), (Channel('dx', 'm'),))
    write_channels(tmp_path, channels)
    assert read_channels(data_in(tmp_path)) == channels


@pytest.mark.parametrize(('text', 'words'), [
    ('proprio: [{name: x}]\nactions: [{name: dx}]', 'proprio has 2 numbers a frame.* has 1'),
    ('proprio: []', 'actions is missing'),
    ('[', 'channels.yaml')])
def test_a_file_that_is_wrong(tmp_path, text, words):
    (tmp_path / 'channels.yaml').write_text(text, 'utf-8')
    with pytest.raises(DataError, match=words):
        read_channels(data_in(tmp_path))
