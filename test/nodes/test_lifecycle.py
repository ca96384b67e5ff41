# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Lifecycle, start errors and the end of the process: each a state, never a traceback."""

from dataclasses import replace
import os
from pathlib import Path
import shutil
import signal

from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.runtime import load_bundle
from hralign_ros.runtime.tasks import Evidence, load_tasks
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import pytest
from support.harness import Harness, noise, published, ROOT, VIEWS
from support.tiny_bundle import robot_bundle

GOOD = {view: noise(index) for index, view in enumerate(VIEWS)}


def silent(harness: Harness) -> None:
    """Nothing is published from now on, though cameras send; what is on its way may come."""
    since = harness.now()
    for view in VIEWS:
        harness.send(view, GOOD[view], harness.now())
    harness.spin(0.8)
    for message in (*harness.embeddings, *harness.successes):
        assert published(message) < since


def test_every_transition(harness: Harness) -> None:
    """
    Configure loads, activate opens, deactivate closes, cleanup frees; and round again.

    Nothing is published while inactive, and ~/info and diagnostics work in every state.
    """
    process = harness.start()
    assert harness.state() == 'unconfigured'
    harness.wait(lambda: '/encoder: model' in harness.statuses, 'diagnostics', process)
    assert harness.statuses['/encoder: model'].message == 'not configured'
    for _ in range(2):
        assert harness.transition(Transition.TRANSITION_CONFIGURE)
        assert harness.state() == 'inactive'
        harness.wait(lambda: harness.infos, 'EncoderInfo', process)
        silent(harness)
        assert harness.transition(Transition.TRANSITION_ACTIVATE)
        harness.send_until_embedded(GOOD)
        assert harness.transition(Transition.TRANSITION_DEACTIVATE)
        silent(harness)
        assert harness.transition(Transition.TRANSITION_CLEANUP)
        assert harness.state() == 'unconfigured'
    assert process.stop() == 0, process.output
    assert 'Traceback' not in process.output


def test_a_transition_that_is_not_available_does_not_kill_the_node(harness: Harness) -> None:
    """Activating an unconfigured node is refused, and it can be configured afterwards."""
    process = harness.start()
    assert harness.state() == 'unconfigured'
    client = harness.node.create_client(ChangeState, '/encoder/change_state')
    harness.wait(client.service_is_ready, 'change_state')
    request = ChangeState.Request()
    request.transition.id = Transition.TRANSITION_ACTIVATE
    client.call_async(request)
    harness.spin(0.5)
    assert harness.transition(Transition.TRANSITION_CONFIGURE), process.output
    assert harness.state() == 'inactive'


BAD_STARTS = {
    'no such bundle': ({'bundle': '/nonexistent'}, 'no such directory'),
    'unknown provider': ({'provider': 'tpu'}, 'allowed: auto, cpu, cuda'),
    'a GPU that is not there': ({'provider': 'cuda', 'require_gpu': 'true'}, 'GPU'),
    'int8 without int8': ({'precision': 'int8'}, 'visual.int8.onnx'),
    'views of another bundle': ({'views': '[left, right]'}, 'wrist, third_person'),
    'no required view': (
        {'wrist.required': 'false', 'third_person.required': 'false'}, 'required'),
    'a crop inside out': ({'wrist.crop': '[0.9, 0.0, 0.1, 1.0]'}, 'left < right'),
    'a wait longer than the age': ({'max_wait_s': '0.9'}, 'max_wait_s'),
    'a task too long': ({'task': 'z' * 600}, '512'),
}


@pytest.mark.parametrize('case', BAD_STARTS)
def test_bad_start_is_one_clear_error(harness: Harness, case: str) -> None:
    """
    What cannot be configured says why, in the log and in diagnostics, and can be tried again.

    rclpy swallows what lifecycle callbacks raise, without a word.
    """
    import onnxruntime

    if case == 'a GPU that is not there' \
            and 'CUDAExecutionProvider' in onnxruntime.get_available_providers():
        pytest.skip('this onnxruntime offers CUDA')
    parameters, text = BAD_STARTS[case]
    process = harness.start(autostart='true', **{
        name.replace('.', '__'): value for name, value in parameters.items()})
    status = harness.wait(
        lambda: (s := harness.statuses.get('/encoder: model')) and s.level == s.ERROR and s,
        'an ERROR in diagnostics', process)
    assert text in status.message
    assert text in process.output and process.output.count('[ERROR]') == 1
    assert 'Traceback' not in process.output
    assert harness.state() == 'unconfigured'
    assert process.stop() == 0


def test_a_bundle_can_be_fixed_while_the_node_waits(harness: Harness, tmp_path: Path) -> None:
    """A truncated model fails configure; once it is whole again configure succeeds."""
    bundle = tmp_path / 'bundle'
    shutil.copytree(robot_bundle(), bundle)
    visual = bundle / 'visual.onnx'
    whole = visual.read_bytes()
    visual.write_bytes(whole[:len(whole) // 2])
    process = harness.start(bundle=str(bundle))
    assert not harness.transition(Transition.TRANSITION_CONFIGURE)
    assert 'visual.onnx' in process.output and 'cut or replaced' in process.output
    visual.write_bytes(whole)
    assert harness.transition(Transition.TRANSITION_CONFIGURE), process.output
    assert process.stop() == 0


@pytest.mark.parametrize('parameters', [
    {'threads': '0'}, {'threads': 'many'}, {'max_age_s': '-1.0'}, {'max_age_s': '20'},
    {'views': '[a, a]'}, {'views': '[]'}, {'threads': '[]'}, {'task': '[]'},
])
def test_a_parameter_of_a_wrong_type_or_range_ends_the_start(
    harness: Harness, parameters: dict[str, str],
) -> None:
    """The process ends with code 1 and one sentence that names the parameter."""
    process = harness.start(**parameters)
    assert process.wait() == 1
    name = next(iter(parameters))
    assert name in process.output and 'Traceback' not in process.output


@pytest.mark.parametrize('state', ['unconfigured', 'active'])
@pytest.mark.parametrize('signals', [
    (signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT),
    (signal.SIGINT, signal.SIGTERM)])
def test_signals_end_it_with_code_0(
    harness: Harness, state: str, signals: tuple[signal.Signals, ...],
) -> None:
    """SIGINT and SIGTERM, once or twice: exit code 0 and no traceback, in each state."""
    process = harness.start(autostart='true' if state == 'active' else 'false')
    harness.wait(lambda: harness.statuses, 'diagnostics', process)
    if state == 'active':
        harness.send_until_embedded(GOOD)
    for number in signals:
        process.process.send_signal(number)
    assert process.wait() == 0, process.output
    assert 'Traceback' not in process.output and 'Error' not in process.output


def test_without_hralign_msgs_it_says_how_to_build(harness: Harness) -> None:
    """Colcon does not see the nested package by itself: the one line that fixes it is printed."""
    hidden = harness.folder / 'hidden/hralign_msgs'
    hidden.mkdir(parents=True)
    (hidden / '__init__.py').write_text("raise ImportError('No module named hralign_msgs')\n")
    process = harness.start(environment={
        'PYTHONPATH': os.pathsep.join([str(hidden.parent), os.environ.get('PYTHONPATH', '')])})
    assert process.wait() == 1
    assert "colcon build --base-paths src 'src/*/hralign_msgs'" in process.output
    assert 'Traceback' not in process.output


def test_another_bundle_needs_no_new_process(harness: Harness, tmp_path: Path) -> None:
    """
    Guards who teaches a bundle while the robot runs: the node had to be killed for it.

    A bundle written in the place of the old one is read when the node is configured again.
    Its parameter stays read-only: whoever can set parameters must not choose what the robot runs.
    """
    shutil.copytree(robot_bundle(), tmp_path / 'mine')
    process = harness.start_active(bundle=str(tmp_path / 'mine'))
    before = harness.infos[-1].bundle_sha256
    whole = load_bundle(robot_bundle())
    tasks = load_tasks(whole)
    taught = replace(tasks.tasks[0], robot='kinova', calibrations=tuple(replace(
        one, failed=10, succeeded=12, evidence=Evidence(0.99, 0.9, 0.6, 22),
        failure_threshold=0.6, failure_rate=0.0909)
        for one in tasks.tasks[0].calibrations))
    write_bundle(tmp_path / 'mine', whole.manifest, graphs_of(whole),
                 replace(tasks, tasks=(taught, *tasks.tasks[1:])))
    assert harness.set_task('pick up the cup').accepted, 'the old one still answers'
    for number in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
                   Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert harness.transition(number), process.output
    harness.wait(lambda: harness.infos[-1].bundle_sha256 != before, 'the new bundle', process)
    info = harness.infos[-1]
    assert 'kinova' in info.robots and info.tasks[0].attempts_succeeded == 12
    assert 'elapsed time alone has 0.60' in info.tasks[0].verdict
    assert info.tasks[0].failure_alpha == pytest.approx(0.0909)
    assert info.tasks[0].failure_threshold == pytest.approx(0.6)
    harness.send_until_embedded(GOOD)


def test_last_words_after_a_long_end(harness: Harness) -> None:
    """
    Guards the answer of a goal that waits while the model hangs, and SIGINT comes.

    The time for its answer was reckoned from before the worker was waited for, and had run out
    when that was done: the client was never answered.
    """
    process = harness.start(str(ROOT / 'test/support/last_words.py'))
    harness.wait(lambda: 'ready' in process.output, 'the node', process)
    assert process.stop() == 0, process.output
    assert 'my last words' in process.output
