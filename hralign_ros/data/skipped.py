# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a reader found wrong in somebody else's data: collected, told once, never fatal."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

_EXAMPLES = 3


@dataclass(frozen=True)
class Fault:
    """
    One thing that is wrong.

    :param kind: short name that is counted, for example corrupt_video.
    :param path: of the file or folder, relative to the root that is read.
    :param text: one sentence for a person: what is wrong and what was done.
    """

    kind: str
    path: str
    text: str


class Faults:
    """The faults of one reading, in the order in which they were found."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, kind: str, path: object, text: str) -> None:
        """Note a fault."""
        self.found.append(Fault(kind, str(path), text))

    def counts(self) -> dict[str, int]:
        """Return how often each kind was found, the most frequent first."""
        return dict(Counter(fault.kind for fault in self.found).most_common())

    def tell(self, report: Callable[[str], object]) -> None:
        """Report each kind with its count and its first examples, a line each."""
        for kind, count in self.counts().items():
            report(f'{kind}: {count}')
            examples = [fault for fault in self.found if fault.kind == kind]
            for fault in examples[:_EXAMPLES]:
                report(f'  {fault.path}: {fault.text}')
            if count > _EXAMPLES:
                report(f'  and {count - _EXAMPLES} more')
