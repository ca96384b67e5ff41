# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What instructions are about: read, and what is no such file."""

import json

from hralign_ros.data.instructions import FILE_NAME, read_instructions, Said
from hralign_ros.data.manifest import DataError
import pytest

ROW = {'text': 'put the red mug in the bowl', 'paraphrases': ['place the red mug into the bowl'],
       'object': 'red-mug', 'place': 'bowl', 'family': 'put'}


def test_read(tmp_path):
    """Guards what each key means; keys that are of no use here are left aside."""
    lift = {'text': 'lift the cup', 'paraphrases': [], 'object': 'cup', 'place': ''}
    (tmp_path / FILE_NAME).write_text(json.dumps([ROW, lift]), 'utf-8')
    assert read_instructions(tmp_path) == {
        ROW['text']: Said(ROW['text'], ('place the red mug into the bowl',), 'red-mug', 'bowl'),
        'lift the cup': Said('lift the cup', (), 'cup', '')}


def test_no_such_file(tmp_path):
    """Guards a data set that was not simulated: which file is missing, and what writes it."""
    with pytest.raises(DataError, match='no instructions.json there; `hralign data simulate'):
        read_instructions(tmp_path)


@pytest.mark.parametrize('text', [
    b'', b'[{', b'\xff\xfe', b'5', b'null', b'{"text": "x"}', b'["put"]',
    json.dumps([{k: v for k, v in ROW.items() if k != 'place'}]).encode(),
    json.dumps([{k: v for k, v in ROW.items() if k != 'text'}]).encode(),
    json.dumps([{**ROW, 'paraphrases': 5}]).encode()])
def test_what_is_no_list_of_instructions(tmp_path, text):
    """Guards a sentence in place of a traceback, whatever the file holds."""
    (tmp_path / FILE_NAME).write_bytes(text)
    with pytest.raises(DataError, match='needed is a list of instructions as'):
        read_instructions(tmp_path)


def test_a_folder_in_its_place(tmp_path):
    """Guards what cannot be read at all."""
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(DataError, match=FILE_NAME):
        read_instructions(tmp_path)
