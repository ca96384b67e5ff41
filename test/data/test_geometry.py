# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Videos of cameras that are mounted sideways or upside down, as the node's parameters say.

The node turned the wrist camera of `config/franka.yaml` by 180 degrees, and every video of that
camera was learned from as it lay: nothing failed, and the head had never seen what the node shows.
"""

from pathlib import Path

from hralign_ros.cli.main import main
from hralign_ros.data.geometry import read_geometry
from hralign_ros.data.manifest import read_manifest
from hralign_ros.data.pairs import human_clip, make_pairs, robot_clip
from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.video import read_frames, write_video
import numpy as np
import pytest

CONFIG = Path(__file__).resolve().parents[2] / 'config'
TURNED = ViewGeometry(180, (0.0, 0.0, 0.5, 1.0))
# Names with dots and levels of their own, of our node, of other ones, and of no view at all.
PARAMETERS = """
/**:
  ros__parameters:
    threads: 1
    wrist: {rotation: 180, crop: [0.0, 0.0, 0.5, 1.0]}
    third_person.rotation: 90
    side: {rotation: 90}
/camera:
  ros__parameters:
    rotation_filter.rotation: 0.0
    wrist: {rotation: 270}
/left/encoder:
  ros__parameters:
    wrist: {rotation: 0}
"""


def videos(root):
    """Make an episode whose images have another colour in each corner."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24] = 250, 130, 60
    for name in ('wrist', 'third_person', 'human'):
        write_video(root / f'push it/1/{name}.mp4', [image] * 4, 5)
    return image


def params(folder, text=PARAMETERS):
    path = folder / 'cameras.yaml'
    path.write_text(text)
    return path


def test_what_a_node_is_started_with(tmp_path):
    """
    Guards against other nodes' parameters: the second arm's took those of the first away.

    And a camera driver's own (`rotation_filter.rotation`) made the whole file unusable.
    """
    assert read_geometry(params(tmp_path)) == {
        'wrist': TURNED, 'third_person': ViewGeometry(90)}
    assert read_geometry(tmp_path / 'cameras.yaml', '/left/encoder') == {
        'wrist': ViewGeometry(0, TURNED.crop), 'third_person': ViewGeometry(90)}
    assert read_geometry(params(tmp_path, PARAMETERS.replace(
        'threads: 1', 'views: [side]'))) == {'side': ViewGeometry(90)}
    assert read_geometry(CONFIG / 'encoder.yaml') == {}
    assert read_geometry(CONFIG / 'franka.yaml') == {'wrist': ViewGeometry(180)}


@pytest.mark.parametrize('text, says', [
    ('tasks: [push]', 'no parameters for a node named /encoder'),
    ('{', 'cannot be read'),
    ('/**: {ros__parameters: {views: side}}', 'views is .side.; needed is a list'),
    ('/**: {ros__parameters: {wrist: {rotation: 45}}}', 'wrist.rotation is 45; allowed: 0, 90'),
    ('/**: {ros__parameters: {wrist: {rotation: yes}}}', 'wrist.rotation is True'),
    ('/**: {ros__parameters: {wrist: {crop: 3}}}', 'wrist.crop is 3'),
    ('/**: {ros__parameters: {wrist: {crop: [0, 0.0, 1, 1]}}}', 'with a decimal point'),
    ('/**: {ros__parameters: {wrist: {crop: [0.0, 1.0]}}}', 'wrist.crop has 2 numbers'),
    ('/**: {ros__parameters: {wrist.crop: [0.0, 0.0, 2.0, 1.0]}}', 'fractions'),
])
def test_what_no_node_would_take(tmp_path, text, says):
    """Guards against videos that are silently left as they lie."""
    with pytest.raises(HralignError, match=says):
        read_geometry(params(tmp_path, text))


def test_an_import_turns_what_the_node_turns(tmp_path, capsys):
    """Guards the whole way: what is read of a video is what the node makes of the same image."""
    videos(tmp_path / 'data')
    assert main(['data', 'import', 'folders', str(tmp_path / 'data'),
                 '--params-file', str(params(tmp_path))]) == 0
    said = capsys.readouterr().out
    assert 'view wrist: turned by 180 degrees' in said and 'in 1 of 1 episodes' in said
    data = read_manifest(tmp_path / 'data')
    episode = data.episodes[0]
    # The human was recorded by the third-person camera.
    assert episode.geometry == {'wrist': TURNED, 'third_person': ViewGeometry(90),
                                'human': ViewGeometry(90)}
    wrist = robot_clip(episode, 'wrist')
    raw = read_frames(data.path(wrist.file), count=2)[0]
    seen = read_frames(data.path(wrist.file), count=2, geometry=wrist.geometry)[0]
    assert seen.shape == (2, 32, 24, 3)
    np.testing.assert_array_equal(seen, [TURNED.apply(image) for image in raw])
    assert abs(int(seen[0, 8, 8, 0]) - 0) < 20 and abs(int(seen[0, 24, 8, 0]) - 130) < 20
    assert human_clip(episode).geometry == ViewGeometry(90)
    assert make_pairs(data)[0].robot.geometry == ViewGeometry(90)


def test_features_of_a_video_are_of_how_it_was_turned(tmp_path):
    """Guards cached features: a clip that is turned is another clip."""
    videos(tmp_path / 'data')
    keys = set()
    for text in ('/**: {ros__parameters: {a: 1}}', PARAMETERS.replace('180', '0'), PARAMETERS):
        assert main(['data', 'import', 'folders', str(tmp_path / 'data'),
                     '--params-file', str(params(tmp_path, text))]) == 0
        keys.add(robot_clip(read_manifest(tmp_path / 'data').episodes[0], 'wrist').key)
    assert len(keys) == 3 and 'push it/1/wrist.mp4' in keys


def test_an_import_again_without_the_file(tmp_path, capsys):
    """Guards a data set that has grown: a second import left all its videos as they lie."""
    videos(tmp_path / 'data')
    again = ['data', 'import', 'folders', str(tmp_path / 'data')]
    assert main([*again, '--params-file', str(params(tmp_path))]) == 0
    assert main(again) == 1
    assert 'third_person, wrist are rotated and cropped' in capsys.readouterr().err
    upright = params(tmp_path, PARAMETERS.replace('180', '0'))
    assert main([*again, '--params-file', str(upright)]) == 0
    assert read_manifest(tmp_path / 'data').episodes[0].geometry['wrist'].rotation == 0
    # To say that the cameras are upright now is another thing than to say nothing.
    nothing = params(tmp_path, '/**: {ros__parameters: {threads: 1}}')
    assert main([*again, '--params-file', str(nothing)]) == 0
    assert 'no view is turned or cropped' in capsys.readouterr().out
