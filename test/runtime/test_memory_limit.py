# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Memory is asked for before a model is loaded.

A node whose address space was limited used to be aborted inside onnxruntime, in configure, with
std::bad_alloc as its last words.
"""

from pathlib import Path

from hralign_ros.runtime import BundleError
from hralign_ros.runtime import memory_limit as headroom
import pytest


def test_what_is_free_is_told() -> None:
    """This computer has memory, and more than none of it is free."""
    free = dict(headroom.free_memory())
    assert free["computer's memory"] > 10_000_000


@pytest.mark.parametrize(('what', 'free', 'refused'), [
    ("computer's memory", 200_000_000, True), ("computer's memory", 260_000_000, False),
    ("container's memory", 200_000_000, True), (headroom.ADDRESS_SPACE, 600_000_000, True),
    (headroom.ADDRESS_SPACE, 700_000_000, False),
])
def test_too_little_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, free: int, refused: bool,
) -> None:
    """A bundle of 50 MB needs 250 MB, and 400 MB more of address space."""
    monkeypatch.setattr(headroom, 'free_memory', lambda: iter([(what, free)]))
    if not refused:
        headroom.require_memory(tmp_path, 50_000_000)
        return
    with pytest.raises(BundleError, match=r'MB of memory are needed .* MB are left'):
        headroom.require_memory(tmp_path, 50_000_000)
