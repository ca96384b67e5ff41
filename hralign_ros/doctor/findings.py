# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Findings of the checks, and how they are shown: as a table for people, as JSON for programs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from itertools import groupby
import textwrap
from typing import Any

from hralign_ros.runtime.errors import first_line


class Level(str, Enum):
    """How good a finding is; ERROR: results cannot be relied on, WARN: they may be worse."""

    ERROR = 'ERROR'
    WARN = 'WARN'
    OK = 'OK'
    SKIPPED = 'SKIPPED'


@dataclass(frozen=True)
class Finding:
    """
    What one check found.

    :param remedy: what to do; empty where there is nothing to do.
    :param values: the numbers behind the sentence, for programs.
    """

    name: str
    level: Level
    found: str
    remedy: str = ''
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Findings about one part of the system."""

    title: str
    findings: list[Finding]


def ok(name: str, found: str, **values: Any) -> Finding:
    """Make a finding that needs nothing."""
    return Finding(name, Level.OK, found, '', values)


def warn(name: str, found: str, remedy: str, **values: Any) -> Finding:
    """Make a finding that may make results worse."""
    return Finding(name, Level.WARN, found, remedy, values)


def error(name: str, found: str, remedy: str, **values: Any) -> Finding:
    """Make a finding with which results cannot be relied on."""
    return Finding(name, Level.ERROR, found, remedy, values)


def skipped(name: str, why: str) -> Finding:
    """Say that a check was not made."""
    return Finding(name, Level.SKIPPED, why)


def guarded(
    name: str, check: Callable[..., Finding | Iterable[Finding]], *arguments: Any,
    **named: Any,
) -> list[Finding]:
    """Run a check; one that fails is a finding, and the others still run."""
    try:
        result = check(*arguments, **named)
        return [result] if isinstance(result, Finding) else list(result)
    except Exception as problem:  # whatever it is, the other checks matter more
        return [error(name, f'this check itself failed: {type(problem).__name__}: '
                      f'{first_line(problem)}', 'Report it, with this line')]


def count(sections: Sequence[Section], level: Level) -> int:
    """Count the findings of a level."""
    return sum(f.level is level for section in sections for f in section.findings)


_COLOURS = {Level.OK: '32', Level.WARN: '33', Level.ERROR: '31', Level.SKIPPED: '2'}
_WIDTH = 99


def as_text(sections: Sequence[Section], *, colours: bool = False) -> str:
    """Write findings as a table, grouped by section, with a line that counts them."""
    lines = []
    names = [f.name for section in sections for f in section.findings]
    column = max(map(len, names), default=0)
    for section in sections:
        lines += ['', section.title]
        for finding in _joined(section.findings):
            lines += _rows(finding, column, colours)
    numbers = ', '.join(f'{count(sections, level)} {level.value}' for level in Level)
    return '\n'.join([*lines[1:], '', numbers]) + '\n'


def _joined(findings: Sequence[Finding]) -> list[Finding]:
    """Put checks that were skipped one after the other for one reason into one."""
    found: list[Finding] = []
    for (level, why), group in groupby(findings, key=lambda f: (f.level, f.found)):
        first, *others = group
        if level is Level.SKIPPED and others:
            first = skipped(first.name, f'{why}; as for {", ".join(f.name for f in others)}')
            others = []
        found += [first, *others]
    return found


def _rows(finding: Finding, column: int, colours: bool) -> list[str]:
    """Write one finding; its remedy begins a row of its own."""
    word, margin = f'{finding.level.value:7}', ' ' * (2 + 7 + 2 + column + 2)
    whole = textwrap.TextWrapper(_WIDTH, break_long_words=False, break_on_hyphens=False)
    rows = []
    for text, first, others in (
            (finding.found or '-', f'  {word}  {finding.name:{column}}  ', margin),
            (finding.remedy, f'{margin}-> ', f'{margin}   ')):
        whole.initial_indent, whole.subsequent_indent = first, others
        rows += whole.wrap(text)
    if colours:
        rows[0] = rows[0].replace(word, f'\x1b[{_COLOURS[finding.level]}m{word}\x1b[0m', 1)
    return rows


def as_document(sections: Sequence[Section]) -> dict[str, Any]:
    """Arrange findings for JSON."""
    return {
        'counts': {level.value: count(sections, level) for level in Level},
        'findings': [{'section': section.title, **asdict(f), 'level': f.level.value}
                     for section in sections for f in section.findings]}
