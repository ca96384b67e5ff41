# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What killed nodes leave in shared memory is removed, and nothing of the living."""

import fcntl
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

spec = spec_from_file_location(
    'clean_shared_memory', Path(__file__).resolve().parents[1] / 'tools/clean_shared_memory.py')
tool = module_from_spec(spec)
spec.loader.exec_module(tool)


def test_only_what_nobody_holds_is_removed(tmp_path):
    """
    Guards a test run against the one before.

    After some hours of killed nodes there were 735 segments of 6 GB, and one camera of a fresh
    node never got a message.
    """
    for name in ('fastrtps_dead', 'fastrtps_dead_el', 'fastrtps_alive', 'fastrtps_alive_el',
                 'fastrtps_port7411', 'fastrtps_port7411_el', 'sem.fastrtps_port7411_mutex',
                 'fastrtps_port7002', 'sem.fastrtps_port7002_mutex', 'lttng-ust-wait-6'):
        (tmp_path / name).touch()
    with (tmp_path / 'fastrtps_alive_el').open('r+') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert tool.clean(tmp_path) == ['fastrtps_dead', 'fastrtps_port7411']
        # Whose port this is cannot be told while somebody lives.
        assert {path.name for path in tmp_path.iterdir()} == {
            'fastrtps_alive', 'fastrtps_alive_el', 'fastrtps_port7002',
            'sem.fastrtps_port7002_mutex', 'lttng-ust-wait-6'}
    tool.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['lttng-ust-wait-6']
