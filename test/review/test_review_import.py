# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Imported, labelled on the page, and imported again: the labels stay, and mean the same."""

from hralign_ros.data.bag_conversion import BagOptions
from hralign_ros.data.importing import import_data
from hralign_ros.data.manifest import read_manifest
from hralign_ros.review.labels import Label, label_of
from hralign_ros.review.server import Review
from hralign_ros.runtime.labels import DISCARD, FAILURE, SUCCESS
from hralign_ros.runtime.report import silent
import pytest
from support.review_data import episode, write_data

ANN = 'human:ann'


def label(root, said):
    """Label episodes by the ends of their names: outcome, and the frame of a success."""
    review = Review(root, 'ann', report=silent)
    numbers = {e.episode_id[-3:]: n for n, e in enumerate(review.data.episodes)}
    for name, (outcome, frame) in said.items():
        answer = review.label({'episode': numbers[name], 'outcome': outcome, 'frame': frame})
        assert answer['warning'] == ''
    review.close()
    return labels(root)


def labels(root):
    return {e.episode_id[-3:]: (label_of(e), list(e.success_flags), e.success_s)
            for e in read_manifest(root).episodes}


def test_folders_of_videos(tmp_path):
    """Guards labels of videos against the next import, which knows nothing of the manifest's."""
    write_data(tmp_path, [episode(n) for n in range(1, 6)])
    (tmp_path / 'manifest.parquet').unlink()
    (tmp_path / 'labels.csv').write_text('episode,success,by\npick up the cup/005,yes,model\n')
    import_data('folders', tmp_path, report=silent)
    assert labels(tmp_path)['005'][0] == Label(SUCCESS, None, 'model')
    said = label(tmp_path, {'001': (SUCCESS, 4), '002': (SUCCESS, None), '003': (FAILURE, None),
                            '004': (DISCARD, None)})
    assert said['001'] == (Label(SUCCESS, pytest.approx(0.8), ANN), [False] * 4 + [True] * 6,
                           pytest.approx(0.8))
    assert said['003'] == (Label(FAILURE, by=ANN), [False] * 10, None)
    import_data('folders', tmp_path, report=silent)
    assert said.pop('004')[0] == Label(DISCARD, by=ANN)
    assert labels(tmp_path) == said


def test_thirds_of_a_second(tmp_path):
    """Guards a video of 30 Hz: its third frame is at .0667 s, and the table says .067."""
    write_data(tmp_path, [episode(1)], rate_hz=30)
    said = label(tmp_path, {'001': (SUCCESS, 2)})
    assert said['001'][1] == [False] * 2 + [True] * 8
    (tmp_path / 'manifest.parquet').unlink()
    import_data('folders', tmp_path, report=silent)
    assert ',success,0.067,' in (tmp_path / 'labels.csv').read_text()
    assert labels(tmp_path)['001'][1] == said['001'][1]


def test_bags(tmp_path):
    """
    Guards labels of bags, whose table lies beside them and counts from the first image.

    Here that is the wrist's: the other camera began three images later.
    """
    bags = pytest.importorskip('support.bags', reason='rosbags is not installed')
    late = [one for one in bags.images(start=bags.START + 3 * bags.PERIOD)
            if one[0] == bags.TOPICS['third_person']]
    early = bags.images(frames=bags.FRAMES + 3, views={'wrist': bags.TOPICS['wrist']})
    for name in ('001', '002', '003'):
        bags.write(tmp_path / f'bags/{name}', [*late, *early])

    def run():
        import_data('rosbag', tmp_path / 'bags', tmp_path / 'data', instruction='push it',
                    options=BagOptions(views=bags.TOPICS), report=silent)
    run()
    said = label(tmp_path / 'data', {
        '001': (SUCCESS, 5), '002': (FAILURE, None), '003': (DISCARD, None)})
    # The sixth image of the later camera, 20 ms of the wrist's taken off.
    assert (tmp_path / 'bags/labels.csv').read_text() == (
        'episode,success,time_s,note,by\n001,success,0.780,,human:ann\n'
        '002,failure,,,human:ann\n003,discard,,,human:ann\n')
    run()
    assert said.pop('003')[0].outcome == DISCARD
    again = labels(tmp_path / 'data')
    assert again['001'][0].time_s == pytest.approx(said['001'][0].time_s, abs=1e-3)
    assert [(one[0].by, one[1]) for one in again.values()] == [
        (one[0].by, one[1]) for one in said.values()]
