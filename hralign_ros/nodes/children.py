# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Processes that a command starts, and that are not to outlive it."""

from collections.abc import Sequence
import shutil


def tied(command: Sequence[str]) -> list[str]:
    """
    Let a command be interrupted (SIGINT) once the thread that starts it is gone, however it ended.

    A process that is killed (SIGKILL) stops nothing that it has started. The kernel can: this is
    its parent-death signal, set by `setpriv` of util-linux. Where that is not, the command stays
    as it is.
    """
    setpriv = shutil.which('setpriv')
    return [setpriv, '--pdeathsig', 'INT', '--', *command] if setpriv else [*command]
