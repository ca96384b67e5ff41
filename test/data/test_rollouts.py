# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Attempts that are finished stay, whatever ends the process."""

from dataclasses import replace

from hralign_ros.data.manifest import DataError
from hralign_ros.data.rollouts import add_rollout, FILE_NAME, read_rollouts, Rollout
import pytest

ONE = Rollout('a', 'f' * 64, 'lift', 'panda', 'lab-1', 7, True, 2.5)


def test_a_line_that_is_cut_off_is_made_again(tmp_path):
    """Guards resuming: a process that is killed while it writes costs one attempt, its own."""
    assert read_rollouts(tmp_path) == []
    add_rollout(tmp_path, ONE)
    add_rollout(tmp_path, replace(ONE, seed=8))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-9])
    assert read_rollouts(tmp_path) == [ONE]
    add_rollout(tmp_path, replace(ONE, seed=9, success=False))
    assert read_rollouts(tmp_path) == [ONE, replace(ONE, seed=9, success=False)]


def test_another_line_is_refused(tmp_path):
    (tmp_path / FILE_NAME).write_text('{"policy": "a"}\n', 'utf-8')
    with pytest.raises(DataError, match='line 1 is no attempt'):
        read_rollouts(tmp_path)


def test_attempts_are_told_apart_by_what_was_tried_where(tmp_path):
    """Guards resuming: a policy that was trained anew under the same name is another."""
    assert ONE.key == replace(ONE, success=False, time_s=8.0).key
    for other in (replace(ONE, policy_sha256='0' * 64), replace(ONE, lab='lab-2'),
                  replace(ONE, seed=8)):
        assert other.key != ONE.key
