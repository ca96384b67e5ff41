# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What was measured with other people's programs, in results/ecosystem.json.

Each measurement adds what it found and leaves the rest alone: a consumer that was run again
replaces its own entry only. A module here calls `record`; what is measured by hand, this command
takes:

    python -m benchmarks.ecosystem.measure --command 'make site' --fact site_warnings=0
    python -m benchmarks.ecosystem.measure --command pytest --consumer 'rosetta 0.3' --no-glue
"""

import argparse
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any

from benchmarks.pages import ROOT

RESULTS = ROOT / 'results/ecosystem.json'
RUN, WITHOUT_GLUE, PARSERS, COMMANDS = (
    'consumers_run', 'consumers_without_glue', 'parsers_all_fields', 'commands')
# Lists of programs, each "name version".
_PROGRAMS = (RUN, WITHOUT_GLUE, PARSERS)
# What else is measured.
FACTS = ('kilted_tests_passed', 'kilted_tests_failed', 'pythons', 'rabc_gain_points',
         'rabc_gain_points_interval', 'label_times_real_time', 'site_warnings', 'dead_links')


def record(
    command: str, *, consumers: Sequence[str] = (), without_glue: Sequence[str] = (),
    parsers: Sequence[str] = (), facts: Mapping[str, Any] | None = None, path: Path = RESULTS,
) -> dict[str, Any]:
    """
    Add what was found to the results, and return them.

    :param command: that found it, as it is typed in the repository's root.
    :param consumers: programs that were run and used what we publish, "name version" each.
    :param without_glue: those of them for which a user writes no code.
    :param parsers: programs that read all fields of all messages.
    :param facts: other keys, of FACTS, and their values.
    :raises ValueError: a program has no version, or a key is not one of FACTS.
    """
    results = json.loads(path.read_text('utf-8')) if path.exists() else {}
    for key, programs in zip(_PROGRAMS, (consumers, without_glue, parsers), strict=True):
        results[key] = _merged(results.get(key, ()), programs)
    for key, value in (facts or {}).items():
        if key not in FACTS:
            raise ValueError(f'{key} is no key of {path.name}; there are {", ".join(FACTS)}')
        results[key] = value
    results[COMMANDS] = sorted({*results.get(COMMANDS, ()), command})
    order = (*_PROGRAMS, *FACTS, COMMANDS)
    # A line for each entry, so that two branches that add one each merge.
    path.write_text(json.dumps(
        {key: results[key] for key in order if key in results}, indent=1) + '\n', 'utf-8')
    return results


def name_of(program: str) -> str:
    """
    Return the name in "name version".

    :raises ValueError: there is no version.
    """
    name, space, version = program.rpartition(' ')
    if not space or not any(sign.isdigit() for sign in version):
        raise ValueError(f'{program!r} has no version; write it after the name, as "rosetta 0.3"')
    return name


def _merged(there: Sequence[str], new: Sequence[str]) -> list[str]:
    by_name = {name_of(program): program for program in (*there, *new)}
    return sorted(by_name.values(), key=str.lower)


def main() -> None:
    """Take what was measured by hand."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--command', required=True, help='that found it')
    parser.add_argument('--consumer', action='append', default=[], metavar='"NAME VERSION"',
                        help='that was run and used what we publish')
    parser.add_argument('--no-glue', action='store_true',
                        help='a user writes no code for these consumers')
    parser.add_argument('--fact', action='append', default=[], metavar='KEY=JSON',
                        help='one of ' + ', '.join(FACTS))
    given = parser.parse_args()
    facts = {}
    for fact in given.fact:
        key, _, value = fact.partition('=')
        facts[key] = json.loads(value)
    try:
        record(given.command, consumers=given.consumer,
               without_glue=given.consumer if given.no_glue else (), facts=facts)
    except ValueError as error:
        parser.error(str(error))
    print(RESULTS)


if __name__ == '__main__':
    main()
