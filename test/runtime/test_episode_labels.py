# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Labels of episodes: set, changed, read back, and never lost."""

from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from pathlib import Path

from hralign_ros.runtime.labels import (
    Label,
    LabelError,
    labelled_episodes,
    read_labels,
    set_label,
)
import pytest

ANNA = 'human:anna'


def test_a_label_comes_back(tmp_path: Path) -> None:
    """What is set is what is read, and the file is what others are told that it is."""
    label = Label('a', 'success', 4.2, 'lifted it, "at last"', ANNA)
    set_label(tmp_path, label)
    set_label(tmp_path, Label('b', 'failure', by='model'))
    assert read_labels(tmp_path) == {'a': label, 'b': Label('b', 'failure')}
    assert (tmp_path / 'labels.csv').read_text('utf-8') == (
        'episode,success,time_s,note,by\n'
        'a,success,4.200,"lifted it, ""at last""",human:anna\n'
        'b,failure,,,model\n')


def test_no_file_has_no_labels(tmp_path: Path) -> None:
    """A folder in which nobody has labelled anything is no fault."""
    assert read_labels(tmp_path) == {}


def test_a_label_can_be_changed(tmp_path: Path) -> None:
    """There is one row an episode, whatever was said of it before."""
    for label in (Label('a', 'success', 4.2, by='model'), Label('a', 'discard', by='human:bo'),
                  Label('a', 'failure', by=ANNA)):
        set_label(tmp_path, label)
    assert read_labels(tmp_path) == {'a': Label('a', 'failure', by=ANNA)}
    assert len((tmp_path / 'labels.csv').read_text().splitlines()) == 2


def test_the_model_does_not_overrule_a_human(tmp_path: Path) -> None:
    """A person who has looked is right, also where the model decides later."""
    set_label(tmp_path, Label('a', 'failure', by=ANNA))
    with pytest.raises(LabelError, match='labelled failure by human:anna'):
        set_label(tmp_path, Label('a', 'success', by='model'))
    assert read_labels(tmp_path)['a'].success == 'failure'


@pytest.mark.parametrize('label', [
    Label('a', 'good'), Label('', 'success'), Label('a/b', 'success'),
    Label('a', 'success', -1.0), Label('a', 'success', float('nan')), Label('a', 'failure', 1.0),
    Label('a', 'success', by='anna'), Label('a', 'success', by='human:'),
    Label('a', 'success', by='human:a\nb,success,,,model')])
def test_values_that_are_refused(tmp_path: Path, label: Label) -> None:
    """Nothing is written that a reader would stumble over."""
    with pytest.raises(LabelError):
        set_label(tmp_path, label)
    assert not (tmp_path / 'labels.csv').exists()


def test_a_table_written_by_hand(tmp_path: Path) -> None:
    """A byte order mark, other columns in another order, and a row for an episode twice."""
    (tmp_path / 'labels.csv').write_text(
        '\ufeffsession,episode,success,time_s,note,by\r\n'
        'mon,a,success,1.5,,human:bo\r\nmon,b,failure,,,human:bo\r\nmon,a,failure,,,human:bo\r\n')
    assert read_labels(tmp_path)['a'].success == 'failure'
    set_label(tmp_path, Label('b', 'success', 2.0, by=ANNA))
    assert read_labels(tmp_path)['b'] == Label('b', 'success', 2.0, by=ANNA)
    assert 'mon,b,success,2.000,,human:anna' in (tmp_path / 'labels.csv').read_text()


def test_a_short_table(tmp_path: Path) -> None:
    """Two columns suffice; whoever wrote them by hand is a human, whom the model respects."""
    (tmp_path / 'labels.csv').write_text('episode,success\na,yes\nb,failure\n')
    assert labelled_episodes(tmp_path) == {'a', 'b'}
    with pytest.raises(LabelError, match='by hand'):
        set_label(tmp_path, Label('b', 'success'))
    set_label(tmp_path, Label('a', 'success', 1.0, by=ANNA))
    assert (tmp_path / 'labels.csv').read_text() == (
        'episode,success,time_s,note,by\nb,failure,,,\na,success,1.000,,human:anna\n')
    assert read_labels(tmp_path)['b'].human


@pytest.mark.parametrize('text', [
    '', 'episode,by\na,model\n', 'episode,success,time_s,note,by\na,success,,,model,x\n',
    'episode,success,time_s,note,by\na,good,,,model\n', b'\xff\xfe\x00'])
def test_a_file_that_is_no_table_of_labels(tmp_path: Path, text: str | bytes) -> None:
    """It is refused in one sentence, and what is in it is not overwritten."""
    data = text.encode() if isinstance(text, str) else text
    (tmp_path / 'labels.csv').write_bytes(data)
    with pytest.raises(LabelError, match='labels.csv'):
        read_labels(tmp_path)
    if b'good' not in data:
        with pytest.raises(LabelError, match='labels.csv'):
            set_label(tmp_path, Label('b', 'success'))
        assert (tmp_path / 'labels.csv').read_bytes() == data


def _set_many(folder: Path, who: int) -> None:
    for number in range(20):
        set_label(folder, Label(f'{who}-{number}', 'success', by=f'human:{who}'))


def test_several_label_at_once(tmp_path: Path) -> None:
    """Guards the page for reviews beside a recorder: each would write over the other's rows."""
    # Not forked: a thread of another test may hold a lock.
    with ProcessPoolExecutor(3, multiprocessing.get_context('spawn')) as pool:
        list(pool.map(_set_many, [tmp_path] * 3, range(3)))
    assert len(read_labels(tmp_path)) == 60
