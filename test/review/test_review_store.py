# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Labels while they are given: what is on the disk when, and who may write."""

import subprocess
import sys

from hralign_ros.data.manifest import DataError, read_manifest, write_manifest
from hralign_ros.review.labels import Label, label_of
from hralign_ros.review.store import JOURNAL, LabelStore
from hralign_ros.runtime.labels import DISCARD, FAILURE, SUCCESS
import pytest
from support.review_data import episode, TIMES

ANN = 'human:ann'
# Labels two episodes and is killed before a thread could write the manifest.
_KILLED = """
import os, signal, sys
from pathlib import Path
from hralign_ros.review import store
from hralign_ros.review.labels import Label
store._PAUSE_S = 3600.0
review = store.LabelStore(Path(sys.argv[1]))
one, other = review.data.episodes[:2]
review.give(one, Label('failure', by='human:ann'), (0.0, 0.2))
review.give(one, Label('success', 0.2, 'human:ann'), (0.0, 0.2))
review.give(other, Label('discard', by='human:ann'))
os.kill(os.getpid(), signal.SIGKILL)
"""


def episodes():
    return [episode(1, success=True, time_s=TIMES, success_flags=[False] * 5 + [True] * 5,
                    tags=['by:human:bob']),
            episode(2, success=False, tags=['by:model']), episode(3), episode(4),
            episode(5, robot_videos={}, human_video='x.mp4')]


def labels_in(folder):
    return {one.episode_id[-3:]: label_of(one).outcome
            for one in read_manifest(folder).episodes if one.robot_videos}


def names(data):
    return [one.episode_id[-3:] for one in data.episodes]


def test_what_needs_a_label_comes_first(tmp_path):
    """Guards a person's time: no label, then the model's, then those of people."""
    write_manifest(tmp_path, episodes())
    store = LabelStore(tmp_path)
    assert names(store.data) == ['003', '004', '002', '001']
    assert store.label(store.data.episodes[3]) == Label(SUCCESS, 1.0, 'human:bob')
    store.close()


def test_labels_survive_a_kill(tmp_path):
    """Guards against the loss of an afternoon: what the page has shown as said is kept."""
    write_manifest(tmp_path, episodes())
    ended = subprocess.run([sys.executable, '-c', _KILLED, tmp_path], timeout=60)
    assert ended.returncode == -9 and (tmp_path / JOURNAL).is_file()
    assert labels_in(tmp_path) == {'003': '', '004': '', '002': 'failure', '001': 'success'}
    # The last line was not whole when the process ended.
    with open(tmp_path / JOURNAL, 'a', encoding='utf-8') as journal:
        journal.write('{"episode": "pick up the cup/001", "la')
    said = []
    LabelStore(tmp_path, said.append).close()
    assert said[0].startswith('3 labels') and not (tmp_path / JOURNAL).exists()
    rows = {one.episode_id[-3:]: one for one in read_manifest(tmp_path).episodes}
    assert label_of(rows['003']) == Label(SUCCESS, 0.2, ANN)
    assert list(rows['003'].success_flags) == [False, True]
    assert label_of(rows['004']).outcome == DISCARD and rows['001'].success


def test_the_table_has_it_at_once(tmp_path):
    """Guards labels.csv beside videos: the line is there before the page says so."""
    write_manifest(tmp_path, episodes())
    store = LabelStore(tmp_path)
    store.give(store.data.episodes[0], Label(SUCCESS, 0.4, ANN), TIMES)
    assert 'pick up the cup/003,success,0.400,,human:ann' in (tmp_path / 'labels.csv').read_text()
    store.give(store.data.episodes[0], Label('', by=ANN), TIMES)
    assert '003' not in (tmp_path / 'labels.csv').read_text()
    store.close()
    assert labels_in(tmp_path)['003'] == ''


def test_a_table_that_cannot_be_written(tmp_path):
    """Guards a label whose table is broken: the manifest has it, and the person is told."""
    write_manifest(tmp_path, episodes())
    (tmp_path / 'labels.csv').write_text('no table\n')
    store = LabelStore(tmp_path)
    assert 'a later import will lose it' in store.give(
        store.data.episodes[0], Label(FAILURE, by=ANN), TIMES)
    store.close()
    assert labels_in(tmp_path)['003'] == 'failure'


def test_an_import_in_the_meantime(tmp_path):
    """Guards what was imported while somebody labelled: both are there in the end."""
    write_manifest(tmp_path, episodes())
    said = []
    store = LabelStore(tmp_path, said.append)
    first, second = store.data.episodes[:2]
    write_manifest(tmp_path, [one for one in episodes() if one != episode(4)] + [episode(9)])
    store.give(first, Label(FAILURE, by=ANN))
    store.give(second, Label(FAILURE, by=ANN))
    store.close()
    assert labels_in(tmp_path) == {'001': 'success', '002': 'failure', '003': 'failure', '009': ''}
    assert said == ['1 labelled episodes are in the manifest no more: pick up the cup/004']


def test_one_review_at_a_time(tmp_path):
    """Guards two people's labels, of which one would be gone."""
    write_manifest(tmp_path, episodes())
    store = LabelStore(tmp_path)
    with pytest.raises(DataError, match='another review'):
        LabelStore(tmp_path)
    store.close()
    LabelStore(tmp_path).close()


def test_no_data_set(tmp_path):
    """Guards the message: what is missing, and what makes it."""
    with pytest.raises(DataError, match='hralign data import'):
        LabelStore(tmp_path)
