# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What hralign doctor says of what is installed: each state has its level and its words."""

from types import SimpleNamespace

from hralign_ros.doctor import software
from hralign_ros.doctor.bundle import _about, _failure_finding
from hralign_ros.doctor.findings import Finding, Level
from hralign_ros.runtime import default_bundle, load_bundle
from hralign_ros.runtime.providers import CUDA_PROVIDER, Hardware
from hralign_ros.runtime.tasks import Calibration, load_tasks, Task, TaskTable
import pytest
from support.tiny_bundle import write_beside

CUDA, CPU = CUDA_PROVIDER, 'CPUExecutionProvider'
WANTS = software.Choice(provider='cuda')
AUTO = software.Choice()


@pytest.mark.parametrize(('finding', 'level', 'words'), [
    (software.python_finding((3, 9, 1)), Level.ERROR, '3.10'),
    (software.python_finding((3, 12, 3)), Level.OK, '3.12.3'),
    (software.rclpy_finding(ImportError('no'), {}), Level.ERROR, 'setup.bash'),
    (software.rclpy_finding(ImportError('no'), {'ROS_DISTRO': 'jazzy'}), Level.ERROR,
     'system-site-packages'),
    (software.rclpy_finding(RuntimeError('no home'), {}), Level.ERROR, 'ROS_LOG_DIR'),
    (software.distribution_finding({'ROS_DISTRO': 'jazzy'}), Level.OK, 'jazzy'),
    (software.distribution_finding({'ROS_DISTRO': 'kilted'}), Level.OK, 'kilted'),
    (software.distribution_finding({'ROS_DISTRO': 'humble'}), Level.WARN, 'jazzy'),
    (software.rmw_finding('rmw_fastrtps_cpp', {'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}),
     Level.WARN, 'rmw-cyclonedds-cpp'),
    (software.domain_finding({}), Level.OK, '0'),
    (software.domain_finding({'ROS_DOMAIN_ID': '102'}), Level.WARN, '101'),
    (software.domain_finding({'ROS_DOMAIN_ID': '233'}), Level.ERROR, '232'),
    (software.domain_finding({'ROS_DOMAIN_ID': 'arm'}), Level.ERROR, 'arm'),
    (software.discovery_finding({}), Level.OK, 'subnet'),
    (software.discovery_finding({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}), Level.ERROR, 'PEERS'),
    # Peers do not help: the middleware is told to take part in nothing.
    (software.discovery_finding({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF',
                                 'ROS_STATIC_PEERS': '192.168.1.5'}), Level.ERROR, 'LOCALHOST'),
    (software.discovery_finding({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'all'}), Level.WARN, 'SUBNET'),
    (software.discovery_finding({'ROS_LOCALHOST_ONLY': '1'}), Level.WARN, 'deprecated'),
    (software.packages_finding([], gpu=False), Level.ERROR, 'pip install'),
    (software.packages_finding(['onnxruntime 1'], gpu=False), Level.OK, 'onnxruntime 1'),
    (software.packages_finding(['onnxruntime 1', 'onnxruntime-gpu 1'], gpu=True), Level.WARN,
     "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
    (software.packages_finding(['onnxruntime 1', 'onnxruntime-gpu 1'], gpu=False), Level.WARN,
     "pip install 'onnxruntime'"),
    (software.driver_finding('', [CPU], AUTO), Level.OK, 'CPU'),
    (software.driver_finding('', [CUDA, CPU], WANTS), Level.ERROR, '--gpus'),
    (software.driver_finding('550.1', [CPU], AUTO), Level.WARN, 'onnxruntime-gpu'),
    (software.driver_finding('550.1', [CPU], software.Choice(provider='cpu')), Level.OK, '550.1'),
    (software.cuda_finding({}, [], '', [CPU], wanted=True), Level.SKIPPED, 'without CUDA'),
    (software.cuda_finding({}, [], '', [CUDA], wanted=False), Level.SKIPPED, 'cpu'),
    (software.cuda_finding({'CUDA runtime': '13.0'}, [], '13.0', [CUDA], wanted=True), Level.WARN,
     'cuDNN not loaded'),
    (software.cuda_finding({'CUDA runtime': '13.0', 'cuDNN': '9.20.0'}, ['nvidia-cudnn-cu13 9'],
                           '13.0', [CUDA], wanted=True), Level.OK, 'cuDNN 9.20.0'),
    (software.provider_finding(Hardware('auto', CPU), [CPU], AUTO), Level.OK, CPU),
    (software.provider_finding(Hardware('auto', CUDA), [CUDA, CPU], AUTO), Level.OK, CUDA),
    (software.provider_finding(Hardware('auto', CPU), [CUDA, CPU], AUTO), Level.WARN, 'loaded'),
    (software.provider_finding(Hardware('cuda', CPU), [CUDA, CPU], WANTS), Level.ERROR, 'loaded'),
    (software.provider_finding(Hardware('auto', CPU), [CPU], software.Choice(require_gpu=True)),
     Level.ERROR, 'required'),
])
def test_software(finding: Finding, level: Level, words: str) -> None:
    """Each state of what is installed has its level and its words."""
    text = f'{finding.found} -> {finding.remedy}'
    assert (finding.level, words in text) == (level, True), text
    assert (level in (Level.WARN, Level.ERROR)) == bool(finding.remedy)


def test_versions_of_drivers_and_libraries() -> None:
    """Versions are read as the driver and the libraries write them."""
    line = ('NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56\n'
            'GCC version: 12.2.0\n')
    assert software.parse_driver(line) == '550.54.15'
    opened = 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n'
    assert software.parse_driver(opened) == '570.86.10'
    assert 'unknown' in software.parse_driver('nothing')
    maps = ('7f00-7f01 r-xp 0 08:01 1    /usr/lib/libcudnn_ops.so.9\n'
            '7f02-7f03 r-xp 0 08:01 2    /usr/lib/libcudnn.so.9\n'
            '7f02-7f03 r-xp 0 08:01 2    /opt/libcudart.so.13\n')
    files = software.loaded_files(maps)
    assert files == {'cuDNN': '/usr/lib/libcudnn.so.9', 'CUDA runtime': '/opt/libcudart.so.13'}
    assert software.library_versions({'cuDNN': '/no/libcudnn.so.9'}) == {'cuDNN': 'libcudnn.so.9'}
    assert software.dotted(92000, 10_000, 100) == '9.20.0'
    assert software.dotted(12080, 1000, 10) == '12.8'
    assert all(' ' in wheel for wheel in software.cuda_wheels())


@pytest.mark.parametrize(('alphas', 'level'), [((), Level.WARN), ((0.05,), Level.OK)])
def test_a_bundle_without_thresholds(monkeypatch, alphas, level):
    """Guards a bundle that can only ABSTAIN: all that was said of it was OK."""
    monkeypatch.setattr('hralign_ros.doctor.bundle.load_tasks',
                        lambda bundle: SimpleNamespace(alphas=alphas, tasks=()))
    values = {'alpha': 0.05, 'dwell_s': 0.3}
    findings = _about(load_bundle(default_bundle()), AUTO, values)
    found = next(finding for finding in findings if finding.name == 'thresholds')
    assert found.level == level
    assert alphas or ('19 of each' in found.remedy and 'ABSTAIN' in found.found)


@pytest.mark.parametrize(('task', 'allow', 'level', 'words'), [
    ('Open the drawer.', False, Level.OK, 'drawer-open'),
    ('open the cupboard', False, Level.WARN, 'none of the'),
    ('open the cupboard', True, Level.OK, 'none of the'),
    ('open the cupboard', 0.01, Level.WARN, 'no threshold for alpha 0.01')])
def test_a_task_that_the_bundle_does_not_know(task, allow, level, words):
    """Guards a typo in the launch file: every decision was ABSTAIN, and the doctor content."""
    values = {'alpha': 0.01 if allow == 0.01 else 0.05, 'dwell_s': 0.3, 'task': task,
              'allow_unknown_tasks': bool(allow)}
    findings = _about(load_bundle(default_bundle()), AUTO, values)
    found = next(finding for finding in findings if finding.name == 'task')
    assert found.level == level and words in found.found


@pytest.mark.parametrize(('calibrated', 'level'), [(True, Level.OK), (False, Level.WARN)])
def test_unknown_tasks_of_a_bundle_with_two_heads(calibrated, level, tmp_path):
    """
    Guards allow_unknown_tasks: one head decides on what it does not know, and the other does not.

    That one of them does was enough for an OK, and every decision was ABSTAIN.
    """
    write_beside(tmp_path / 'bundle', 'close the drawer', calibrated=calibrated)
    values = {'alpha': 0.05, 'dwell_s': 0.3, 'task': 'close the cup', 'allow_unknown_tasks': True}
    findings = _about(load_bundle(tmp_path / 'bundle'), AUTO, values)
    found = next(finding for finding in findings if finding.name == 'task')
    assert found.level == level and ('shared_head.more.onnx' in found.found) is not calibrated


def test_tasks_of_a_shared_head_that_decide_nothing_are_counted():
    """
    Guards instructions that the gate refused: one had to be sent to learn that it is ABSTAIN.

    The shipped head was told no more than by a clock which way things are pushed or turned.
    """
    bundle = load_bundle(default_bundle())
    found = next(finding for finding in _about(bundle, AUTO, {}) if finding.name == 'shared head')
    own = [task for task in load_tasks(bundle).tasks if task.head]
    silent = [task for task in own if not task.calibration(bundle.manifest.views).rates]
    assert 0 < len(silent) < len(own)
    assert f'{len(own)} tasks of its own; {len(silent)} of them have no threshold' in found.found


@pytest.mark.parametrize(('values', 'level', 'words'), [
    ({}, Level.OK, "at a false-alarm rate of 0.0909 for 'push'; at no rate that is guaranteed for "
     '1 of 3 tasks'),
    ({'task': 'push', 'failure_threshold': 0.0, 'failure_dwell_s': 1.0}, Level.OK, '0.0909'),
    ({'task': 'push', 'failure_threshold': 0.7, 'failure_dwell_s': 2.0}, Level.OK, '0.0909'),
    ({'task': 'push', 'failure_threshold': 0.5, 'failure_dwell_s': 1.0}, Level.WARN,
     'with failure_threshold 0.6'),
    ({'task': 'push', 'failure_threshold': 0.0, 'failure_dwell_s': 0.2}, Level.WARN,
     'failure_dwell_s 1'),
    ({'task': 'push', 'failure_threshold': 1.0, 'failure_dwell_s': 0.2}, Level.OK, 'time_out_s'),
    ({'task': 'pull', 'failure_threshold': 0.0, 'failure_dwell_s': 1.0}, Level.OK,
     'no rate that is guaranteed'),
    ({'task': 'lift', 'failure_threshold': 0.5, 'failure_dwell_s': 1.0}, Level.OK, 'time_out_s'),
])
def test_the_rate_of_failure_is_told(values, level, words):
    """Guards who acts on FAILURE: at which rate it is wrong, and which parameter breaks that."""
    manifest = load_bundle(default_bundle()).manifest

    def task(name, **fields):
        return Task(name, name, modes=('failed',), calibrations=(Calibration(
            manifest.views, 'platt', {'scale': 1.0, 'shift': 0.0}, {0.1: 0.7}, **fields),))

    tasks = TaskTable((
        task('push', failure_threshold=0.6, failure_rate=0.0909), task('pull'),
        task('lift', failure_threshold=1.0)) if values.get('task') != 'lift' else (
        Task('lift', 'lift'),), Task('fallback', 'fallback'))
    finding = _failure_finding(tasks, manifest, values)
    assert (finding.level, words in finding.found) == (level, True), finding.found
