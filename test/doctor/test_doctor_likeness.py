# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What hralign doctor says of images that are unlike those that a bundle was made with.

It said that all was well with the cameras, and every decision was ABSTAIN all the same: whether
images are OUT_OF_DISTRIBUTION could only be seen in the messages of a node that ran.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
from hralign_ros.doctor import likeness
from hralign_ros.doctor.findings import Finding, guarded, Level
from hralign_ros.doctor.likeness import likeness_finding
from hralign_ros.doctor.listening import _Ear
from hralign_ros.nodes.parameters import table
from hralign_ros.runtime import default_bundle
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.resources import find_share
from hralign_ros.runtime.video import read_frames
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage
from support.harness import noise, VIEWS
from support.small_lab import draw, make_lab, TASK

AS_IT_IS = dict.fromkeys(VIEWS, ViewGeometry())


@pytest.fixture(scope='module')
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teach the tiny bundle twelve attempts in a lab; return the bundle."""
    pytest.importorskip('torch', reason='torch is not installed')
    from hralign_ros.calibration.teach import teach
    from support.tiny_bundle import robot_bundle

    folder = tmp_path_factory.mktemp('lab')
    make_lab(folder / 'data', 6, flags=True)
    teach(robot_bundle(), folder / 'data', folder / 'taught', report=silent)
    return folder / 'taught'


@pytest.fixture
def images() -> dict[str, Any]:
    """Give what the cameras of the lab see in mid-attempt."""
    attempt, _ = draw(np.random.default_rng(5), '')
    return {view: attempt[view][8] for view in VIEWS}


def look(
    bundle: Path, images: dict[str, Any], task: str = TASK,
    geometry: dict[str, ViewGeometry] = AS_IT_IS, required: tuple[str, ...] = VIEWS,
) -> Finding:
    """Check images with the defaults of the node, on the CPU."""
    values = {name: row.default for name, row in table().items()}
    return likeness_finding(
        images, {**values, 'bundle': str(bundle), 'task': task, 'provider': 'cpu'},
        geometry, required)


def test_images_of_the_lab_that_was_taught(lab: Path, images: dict[str, Any]) -> None:
    """They are like the recordings, with the task set or not."""
    for task, said in ((TASK, 'score'), ('', 'no task is set')):
        finding = look(lab, images, task)
        assert finding.level is Level.OK and said in finding.found, finding
        assert finding.values['score'] < finding.values['limit'] and finding.values['taught']


def test_images_that_the_node_turns(lab: Path, images: dict[str, Any]) -> None:
    """What counts is the upright image, as the node makes it of one that lies on its side."""
    images['wrist'] = np.rot90(images['wrist']).copy()
    turned = {**AS_IT_IS, 'wrist': ViewGeometry(90)}
    assert look(lab, images, geometry=turned).level is Level.OK
    finding = look(lab, images)
    assert finding.level is Level.WARN
    assert finding.values['would_do'][0] == 'with wrist.rotation 90 degrees further'
    assert 'with wrist.rotation 90 degrees further' in finding.remedy


def test_what_would_put_it_right_is_tried(lab: Path, images: dict[str, Any]) -> None:
    """Swapped views are found by swapping them; what no change helps is named by its view."""
    swapped = dict(zip(images, reversed(list(images.values())), strict=True))
    finding = look(lab, swapped)
    assert finding.level is Level.WARN
    assert 'with the topics of wrist and third_person swapped' in finding.values['would_do']
    assert 'every decision will be ABSTAIN' in finding.found
    covered = look(lab, {**images, 'third_person': np.zeros_like(images['wrist'])})
    assert covered.level is Level.WARN and covered.values['would_do'] == []
    assert covered.remedy.startswith('Look at third_person first. Compare with the recordings')
    assert 'docs/start/your_robot.md' in covered.remedy
    assert covered.values['score'] > covered.values['limit']


@pytest.mark.parametrize('task', ['', 'open the drawer', 'fold the towel'])
def test_a_bundle_that_was_taught_nothing(task: str) -> None:
    """The shipped bundle has one limit, whatever the task is: images of a robot are beyond it."""
    seen = look(default_bundle(), {view: noise(i) for i, view in enumerate(VIEWS)}, task)
    assert seen.level is Level.WARN and 'hralign success teach' in seen.remedy
    assert ('no task is set' in seen.found) == (not task) and not seen.values['taught']
    episode = find_share('demo/episodes') / '1_success'
    shipped = {view: read_frames(episode / f'{view}.mp4', count=1)[0][0] for view in VIEWS}
    assert look(default_bundle(), shipped, task).level is Level.OK


def test_what_keeps_images_from_being_looked_at(
    tmp_path: Path, images: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it is, it is a finding, and never a crash."""
    del images['wrist']
    missing = look(default_bundle(), images)
    assert missing.level is Level.SKIPPED and 'no usable image of wrist' in missing.found
    assert look(default_bundle(), images, required=('third_person',)).level is Level.WARN
    assert look(default_bundle(), {}, required=()).level is Level.SKIPPED
    nowhere = look(tmp_path, images, required=())
    assert nowhere.level is Level.SKIPPED and 'cannot be run' in nowhere.found
    others = look(default_bundle(), images, geometry={'third_person': ViewGeometry()},
                  required=())
    assert others.level is Level.SKIPPED and 'views' in others.found

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError('out of memory')

    monkeypatch.setattr(likeness.Encoder, 'load', broken)
    finding, = guarded('name', look, default_bundle(), images, required=())
    assert finding.level is Level.ERROR and 'out of memory' in finding.found


def test_the_newest_image_that_can_be_decoded() -> None:
    """The last message of a camera may be cut off; the one before it will do."""
    ear = _Ear(SimpleNamespace())  # type: ignore[arg-type]
    assert ear.newest() is None
    for value in (10, 200):
        _, data = cv2.imencode('.png', np.full((20, 30, 3), value, np.uint8))
        ear.kept.append(CompressedImage(format='png', data=data.tobytes()))
    ear.kept.append(CompressedImage(format='png', data=data.tobytes()[:30]))
    newest = ear.newest()
    assert newest is not None and newest.shape == (20, 30, 3) and (newest == 200).all()


def test_two_heads_have_a_limit_each(tmp_path: Path, images: dict[str, Any]) -> None:
    """
    Guards a bundle with a head beside its own: without a task both limits are looked at.

    The words 'any task' stood for the bundle's own head; where a task of the other one is nearest
    to them, its own limit was never tried, and good cameras were called unlike.
    """
    from support.tiny_bundle import write_beside

    write_beside(tmp_path / 'bundle', 'do any task', limit=1.0)
    assert look(tmp_path / 'bundle', images, 'do any task').level is Level.WARN
    finding = look(tmp_path / 'bundle', images, '')
    assert finding.level is Level.OK and finding.values['task_id'] == 'cup', finding
