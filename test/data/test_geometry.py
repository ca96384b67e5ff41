# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Films of cameras that are mounted sideways or upside down, as the node's parameters say.

The node turned the wrist camera of `config/franka.yaml` by 180 degrees, and every film of that
camera was learned from as it lay: nothing failed, and the head had never seen what the node shows.
"""

from pathlib import Path

from hralign_ros.cli import main
from hralign_ros.data.geometry import read_geometry
from hralign_ros.data.manifest import DataError, read_manifest
from hralign_ros.data.pairs import human_clip, make_pairs, robot_clip
from hralign_ros.data.video import read_frames, write_video
from hralign_ros.runtime.images import AS_IT_COMES, ViewGeometry
import numpy as np
import pytest

CONFIG = Path(__file__).resolve().parents[2] / 'config'
TURNED = ViewGeometry(180, (0.0, 0.0, 0.5, 1.0))
# A node's file: names with dots, levels of their own, a namespace, and what is as it comes.
PARAMETERS = """
/robot:
  encoder:
    ros__parameters:
      threads: 1
      wrist: {rotation: 180, crop: [0.0, 0, 0.5, 1.0]}
      third_person.rotation: 90
      side: {rotation: 0}
"""


def films(root):
    """Make an episode whose pictures have another colour in each corner."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:], picture[16:, :24] = 250, 130, 60
    for name in ('wrist', 'third_person', 'human'):
        write_video(root / f'push it/1/{name}.mp4', [picture] * 4, 5)
    return picture


def params(folder, text=PARAMETERS):
    path = folder / 'cameras.yaml'
    path.write_text(text)
    return path


def test_what_a_node_is_started_with(tmp_path):
    """Guards the names: however a parameter file is written, the node reads the same."""
    assert read_geometry(params(tmp_path)) == {
        'wrist': TURNED, 'third_person': ViewGeometry(90)}
    assert read_geometry(CONFIG / 'encoder.yaml') == {}
    assert read_geometry(CONFIG / 'franka.yaml') == {'wrist': ViewGeometry(180)}


@pytest.mark.parametrize('text, says', [
    ('tasks: [push]', 'no ros__parameters'),
    ('- 1', 'no ros__parameters'),
    ('{', 'cameras.yaml'),
    ('/**: {ros__parameters: {wrist: {rotation: 45}}}', 'wrist.rotation is 45; allowed: 0, 90'),
    ('/**: {ros__parameters: {wrist: {rotation: yes}}}', 'wrist.rotation is True'),
    ('/**: {ros__parameters: {wrist: {crop: 3}}}', 'wrist.crop is 3'),
    ('/**: {ros__parameters: {wrist: {crop: [0, 1]}}}', 'wrist.crop has 2 numbers'),
    ('/**: {ros__parameters: {wrist.crop: [0, 0, 2, 1]}}', 'fractions'),
])
def test_what_no_node_would_take(tmp_path, text, says):
    """Guards against films that are silently left as they lie."""
    with pytest.raises(DataError, match=says):
        read_geometry(params(tmp_path, text))
    with pytest.raises(DataError, match='No such file'):
        read_geometry(tmp_path / 'none.yaml')


def test_an_import_turns_what_the_node_turns(tmp_path, capsys):
    """Guards the whole way: what is read of a film is what the node makes of the same picture."""
    films(tmp_path / 'data')
    assert main(['import', 'folders', str(tmp_path / 'data'),
                 '--params-file', str(params(tmp_path))]) == 0
    said = capsys.readouterr().out
    assert 'view wrist: 1 films are turned by 180 degrees' in said
    data = read_manifest(tmp_path / 'data')
    episode = data.episodes[0]
    # The human was filmed by the third-person camera.
    assert episode.geometry == {'wrist': TURNED, 'third_person': ViewGeometry(90),
                                'human': ViewGeometry(90)}
    wrist = robot_clip(episode, 'wrist')
    raw = read_frames(data.path(wrist.file), count=2)[0]
    seen = read_frames(data.path(wrist.file), count=2, geometry=wrist.geometry)[0]
    assert seen.shape == (2, 32, 24, 3)
    np.testing.assert_array_equal(seen, [TURNED.apply(picture) for picture in raw])
    assert abs(int(seen[0, 8, 8, 0]) - 0) < 20 and abs(int(seen[0, 24, 8, 0]) - 130) < 20
    assert human_clip(episode).geometry == ViewGeometry(90)
    assert make_pairs(data)[0].robot.geometry == ViewGeometry(90)


def test_features_of_a_film_are_of_how_it_was_turned(tmp_path):
    """Guards cached features: a clip that is turned is another clip."""
    films(tmp_path / 'data')
    keys = set()
    for text in (PARAMETERS, PARAMETERS.replace('180', '0'), '/**: {ros__parameters: {a: 1}}'):
        main(['import', 'folders', str(tmp_path / 'data'),
              '--params-file', str(params(tmp_path, text))])
        keys.add(robot_clip(read_manifest(tmp_path / 'data').episodes[0], 'wrist').key)
    assert len(keys) == 3 and 'push it/1/wrist.mp4' in keys


def test_no_copy_of_what_is_as_it_comes():
    """Guards speed: nearly all films are upright."""
    picture = np.zeros((2, 2, 3), np.uint8)
    assert AS_IT_COMES.apply(picture) is picture
