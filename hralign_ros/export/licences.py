# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Under which terms weights are that were trained on somebody's videos."""

from collections.abc import Iterable

# Licences of training videos that leave open what becomes of weights trained on them.
PERMISSIVE = {'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'CC0-1.0', 'CC-BY-4.0', 'MIT'}


def trained_license(licenses: Iterable[str]) -> str:
    """
    Say under which terms weights are that were trained here.

    :param licenses: SPDX names of those of the training videos, which may bind what is made of
        them.
    """
    others = ['none stated' if name in ('', 'NOASSERTION') else name
              for name in sorted(set(licenses) - PERMISSIVE)]
    return (f'what the licences of the training videos allow: {", ".join(others)}' if others
            else 'Apache-2.0')
