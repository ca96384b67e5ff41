# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""labels.csv as people, spreadsheets, the recorder and the review page write it."""

from hralign_ros.data.labels import LABELS, read_labels
from hralign_ros.data.manifest import DataError
import pytest


def read(folder, text, encoding='utf-8'):
    (folder / LABELS).write_bytes(text.encode(encoding))
    return read_labels(folder / LABELS)


@pytest.mark.parametrize('answer, success', [
    ('success', True), ('yes', True), ('TRUE', True), ('1', True), ('failure', False),
    ('No', False), ('0', False), ('discard', None), ('', None)])
def test_answers(tmp_path, answer, success):
    """Guards the recorder's words and those of folders of videos: both say the same."""
    label = read(tmp_path, f'episode,success\na,{answer}\n')['a']
    assert (label.success, label.discard) == (success, answer == 'discard')


def test_times(tmp_path):
    """Guards what a time means: when a success was there, or when a failure went wrong."""
    labels = read(tmp_path, 'episode,success,time_s,done_s,failed_s\na,yes,1.5,,\nb,no,2.5,,\n'
                  'c,yes,,3,\nd,no,,,4\ne,,9,,\n')
    assert [(one.success_s, one.failed_s) for one in labels.values()] == [
        (1.5, None), (None, 2.5), (3.0, None), (None, 4.0), (None, None)]


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('mark', ',;\t')
def test_what_spreadsheets_write(tmp_path, encoding, mark):
    """
    Guards tables saved by a spreadsheet, which were refused.

    It has filled lines and columns with nothing ("'' is named twice"), and where people write 1,5
    it separates by semicolons.
    """
    number = '1,5' if mark == ';' else '1.5'
    lines = [['episode', 'success', 'time_s', 'task_text', '', ''],
             ['Tür/1', 'yes', number, 'Öffne die Tür', '', ''],
             ['', '', '', '', '', ''], ['', '', '', '', '', '']]
    labels = read(tmp_path, '\r\n'.join(map(mark.join, lines)) + '\r\n', encoding)
    assert list(labels) == ['Tür/1'] and labels['Tür/1'].success_s == 1.5
    assert labels['Tür/1'].word('task_text') == 'Öffne die Tür'


def test_who_says_so(tmp_path):
    """Guards people's labels against the model's; people may change their minds."""
    labels = read(tmp_path, 'episode,success,by\na,yes,model\na,no,human:ann\na,yes,model\n'
                  'b,yes,human:ann\nb,discard,human:bob\nc,yes,model\nc,no,model\n'
                  'd,no,\nd,yes,model\n')
    assert [(one.success, one.discard) for one in labels.values()] == [
        (False, False), (None, True), (False, False), (False, False)]


def test_parts_of_a_bag(tmp_path):
    """Guards where an episode begins and ends in its bag."""
    labels = read(tmp_path, 'episode,bag,start_s,end_s\na,x,1,2.5\nb,x,3,\nc,x,,4\n')
    assert [one.span_s for one in labels.values()] == [
        (1.0, 2.5), (3.0, float('inf')), (0.0, 4.0)]


@pytest.mark.parametrize('text, message', [
    ('episode,split\na,test\n', "line 2: split is 'test'; allowed are train"),
    ('episode,start_s,end_s\na,3,2\n', 'end_s is not later'),
    ('episode,success\n,yes\n', 'names no episode'),
    ('episode,episode\na,b\n', 'each once'),
    ('episode,time_s\na,nan\n', "time_s is 'nan'"),
])
def test_what_is_refused(tmp_path, text, message):
    """Guards labels against being read as something else."""
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_another_encoding(tmp_path):
    """Guards the message: which line, and how to save it."""
    with pytest.raises(DataError, match='line 3: not UTF-8 .*CSV UTF-8'):
        read(tmp_path, 'episode,task_text\na,b\nc,Tür\n', 'cp1252')
    assert read_labels(tmp_path / 'none.csv') == {}
