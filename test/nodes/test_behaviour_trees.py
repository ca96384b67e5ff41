# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The tree in docs/how_to/behaviour_trees.md, run by py_trees_ros against a node.

py_trees_ros has no wheel. Its sources (2.2.2), py_trees 2.2 and a build of py_trees_ros_interfaces
on PYTHONPATH are enough.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
import re
from types import SimpleNamespace
from typing import Any

from hralign_msgs.action import WaitForSuccess
import pytest
from support.harness import Harness, ROOT, VIEWS
from support.robot import Cameras
from support.tiny_bundle import write_tiny_bundle

py_trees = pytest.importorskip('py_trees', reason='py_trees is not installed')
pytest.importorskip('py_trees_ros', reason='py_trees_ros is not installed')
behaviours = import_module('hralign_ros.nodes.behaviours')

PAGE = ROOT / 'docs/how_to/behaviour_trees.md'
CUP = 'pick up the cup'
NEVER, SOON = 60.0, 0.3
Status = py_trees.common.Status


@pytest.fixture(scope='module')
def page() -> SimpleNamespace:
    """Run the code of the page, and give its names."""
    code, = re.findall(r'```python\n(.*?)```', PAGE.read_text('utf-8'), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), 'exec'), names)
    return SimpleNamespace(**names)


@pytest.fixture(scope='module')
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """Give a node whose cameras stream."""
    bundle = tmp_path_factory.mktemp('bundle')
    write_tiny_bundle(bundle, VIEWS, ood_threshold=1e6)
    harness = Harness(tmp_path_factory.mktemp('trees'))
    process = harness.start_active(
        task=f"'{CUP}'", bundle=str(bundle), mirrors__succeeded='true',
        wait_for_success__give_up_after_s='600.0')
    cameras = Cameras(harness)
    cameras.start()
    yield harness
    cameras.end()
    assert process.stop() == 0, process.output
    harness.close()


class Counting(py_trees.behaviour.Behaviour):
    """An arm that acts until it is told to stop, or a call; counts how often it began."""

    def __init__(self, name: str, then: Any) -> None:
        super().__init__(name)
        self.began = 0
        self.then = then

    def initialise(self) -> None:
        """Begin once more."""
        self.began += 1

    def update(self) -> Any:
        """Go on, or be done at once."""
        return self.then


def stage() -> tuple[Counting, Counting]:
    """Give an arm that acts, and somebody who can be called."""
    return Counting('act', Status.RUNNING), Counting('call', Status.SUCCESS)


def tick(harness: Harness, tree: Any, until: Callable[[], bool], what: str) -> None:
    """Tick a tree as its timer would, until something holds."""
    def step() -> bool:
        tree.tick_once()
        return until()

    harness.wait(step, what)


def planted(harness: Harness, tree: Any) -> Any:
    """Set a tree up on the harness's node."""
    for node in tree.iterate():
        node.setup(node=harness.node)
    return tree


def decides(harness: Harness, dwell: float, time_out: float = 0.0) -> None:
    assert harness.set_parameters(dwell_s=dwell, time_out_s=time_out).successful


def ended(tree: Any) -> Callable[[], bool]:
    return lambda: tree.status in (Status.SUCCESS, Status.FAILURE)


def test_success(harness, page):
    decides(harness, SOON)
    act, call = stage()
    tree = planted(harness, page.task(CUP, act, call))
    tick(harness, tree, ended(tree), 'the end of the task')
    assert tree.status == Status.SUCCESS and act.began == 1 and call.began == 0
    assert act.status == Status.INVALID  # the arm was stopped
    assert py_trees.blackboard.Blackboard.get('/outcome') == WaitForSuccess.Result.OUTCOME_SUCCESS


def test_failures_are_tried_again(harness, page):
    """Each try begins an episode; after the last one the task has failed, and nobody is called."""
    decides(harness, NEVER, time_out=0.5)
    act, call = stage()
    tree = planted(harness, page.task(CUP, act, call, tries=2))
    tick(harness, tree, ended(tree), 'the end of the task')
    assert tree.status == Status.FAILURE and act.began == 2 and call.began == 0
    assert py_trees.blackboard.Blackboard.get('/outcome') == WaitForSuccess.Result.OUTCOME_FAILURE


def test_a_person_is_called_where_the_node_cannot_tell(harness, page):
    """An unknown instruction is refused: trying it again would change nothing."""
    decides(harness, SOON)
    act, call = stage()
    tree = planted(harness, page.task('water the plants', act, call))
    tick(harness, tree, ended(tree), 'the end of the task')
    assert tree.status == Status.SUCCESS and act.began == 1 and call.began == 1
    refused, = (node for node in tree.iterate() if node.name == 'wait')
    assert 'refused' in refused.feedback_message


def test_a_tree_that_is_halted(harness, page):
    """The goal is cancelled, and the node takes the next one."""
    decides(harness, NEVER)
    act, call = stage()
    tree = planted(harness, page.task(CUP, act, call))
    wait, = (node for node in tree.iterate() if node.name == 'wait')
    tick(harness, tree, lambda: getattr(wait, 'goal_handle', None) is not None, 'a goal')
    tree.stop(Status.INVALID)
    harness.wait(lambda: 'cancelled' in wait.feedback_message, 'the cancel')
    assert act.status == Status.INVALID
    decides(harness, SOON)
    tick(harness, tree, ended(tree), 'the end of the task')
    assert tree.status == Status.SUCCESS and call.began == 0


@pytest.mark.parametrize('accepted', (True, False))
def test_a_tree_that_is_started_again_at_once(harness, page, accepted):
    """
    The answer to the goal that was stopped is no answer to the next one.

    py_trees_ros 2.2.2 took it for one, or raised an AttributeError; and a goal that it stopped
    before that was accepted it did not cancel at all.
    """
    decides(harness, NEVER)
    act, call = stage()
    tree = planted(harness, page.task(CUP, act, call))
    wait, = (node for node in tree.iterate() if node.name == 'wait')
    tree.tick_once()
    if accepted:
        tick(harness, tree, lambda: wait.goal_handle is not None, 'a goal')
    tree.stop(Status.INVALID)
    decides(harness, SOON)
    tick(harness, tree, ended(tree), 'the end of the task')
    assert tree.status == Status.SUCCESS and act.began == 2 and call.began == 0


def test_the_condition(harness, page):
    """It says what is decided, also where that was said before the tree was there."""
    decides(harness, NEVER)
    harness.start_episode()
    condition = planted(harness, behaviours.says('/encoder/success/succeeded'))
    tick(harness, condition, lambda: condition.feedback_message.startswith("'data'"), 'a Bool')
    assert condition.status == Status.FAILURE
    decides(harness, SOON)
    tick(harness, condition, lambda: condition.status == Status.SUCCESS, 'the decision')
