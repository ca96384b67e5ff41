# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Write requirements/constraints.txt: the version of every package that the layers bring in.

Needs one interpreter per supported Python, each with pip 22.2 or later, for example:

    python3 tools/lock_requirements.py python3.10 python3.11 python3.12

Run it after changing a pin. Nothing is installed; pip only resolves.
"""
from __future__ import annotations

from collections import defaultdict
import json
from pathlib import Path
import subprocess
import sys
import tempfile

REQUIREMENTS = Path(__file__).resolve().parents[1] / 'requirements'
FILES = ('ros', 'build', 'robot', 'demo', 'test', 'signature', 'adapt')
HEADER = """\
# The version of every package of the layers ros, build, robot, demo, test and adapt.
# Written by tools/lock_requirements.py; change the other files and run it again.
"""


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """Return the version of a Python and the packages that pip chooses for it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, 'report.json')
        files = [part for name in FILES for part in ('-r', str(REQUIREMENTS / f'{name}.txt'))]
        subprocess.run(
            [python, '-m', 'pip', 'install', '--quiet', '--dry-run', '--ignore-installed',
             '--report', str(report), *files], check=True, stderr=subprocess.DEVNULL)
        found = json.loads(report.read_text(encoding='utf-8'))
    packages = [entry['metadata'] for entry in found['install']]
    versions = {package['name'].lower().replace('_', '-'): package['version']
                for package in packages}
    return found['environment']['python_version'], versions


def lines_of(name: str, versions: dict[str, str], pythons: list[str]) -> list[str]:
    """Return the constraints of one package: one line, or one for each Python."""
    if len(versions) == len(pythons) and len(set(versions.values())) == 1:
        return [f'{name}=={versions[pythons[0]]}']
    return [f"{name}=={version}; python_version == '{python}'"
            for python, version in versions.items()]


def main() -> int:
    """Resolve for the interpreters named on the command line and write the file."""
    table: dict[str, dict[str, str]] = defaultdict(dict)
    pythons = []
    for interpreter in sys.argv[1:]:
        python, versions = resolve(interpreter)
        pythons.append(python)
        for name, version in versions.items():
            table[name][python] = version
    lines = [line for name in sorted(table) for line in lines_of(name, table[name], pythons)]
    (REQUIREMENTS / 'constraints.txt').write_text(
        HEADER + ''.join(f'{line}\n' for line in lines), encoding='utf-8')
    print(f'{len(table)} packages for Python {", ".join(pythons)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
