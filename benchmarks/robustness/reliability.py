# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Gather what proves that the node is fit for a robot, and write docs/faults/reliability.md anew.

    python -m benchmarks.robustness.reliability --faults 2   # run the fault suite, too
    python -m benchmarks.robustness.reliability --faults 20 --load 4   # beside busy processes
    python -m benchmarks.robustness.reliability              # gather earlier runs

It gathers results/faults.json (written here), results/soak.json (make soak),
results/fuzz.json (make fuzz) and results/latency.json (make bench).
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import shlex
import subprocess
import sys
import tempfile
import time
from typing import Any
from xml.etree import ElementTree

from benchmarks.pages import filled, ROOT, table

RESULTS = ROOT / 'results'
FAULTS = RESULTS / 'faults.json'
PAGE = ROOT / 'docs/faults/reliability.md'
# Ends with whoever started it, however that ends.
_BUSY = 'import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass'


def run_faults(times: int, load: int, kept: Callable[[dict[str, Any]], None]) -> None:
    """
    Run the fault suite so many times in a row.

    :param load: busy processes beside it.
    :param kept: takes what there is after each run.
    """
    runs: list[dict[str, Any]] = []
    command = ['python', '-m', 'pytest', '-q', 'test/faults']
    words = ['python', '-m', 'benchmarks.robustness.reliability', '--faults', str(times),
             *(['--load', str(load)] if load else [])]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for _ in range(load):
            neighbour = subprocess.Popen([sys.executable, '-c', _BUSY])
            stack.callback(neighbour.wait)
            stack.callback(neighbour.kill)
        found, junit = Path(folder) / 'rows.json', Path(folder) / 'junit.xml'
        for number in range(times):
            print(f'fault suite, run {number + 1} of {times}', flush=True)
            before, began = os.getloadavg()[0], time.monotonic()
            junit.unlink(missing_ok=True)
            found.write_text('[]')
            done = subprocess.run(
                [sys.executable, *command[1:], f'--junit-xml={junit}'], cwd=ROOT,
                env={**os.environ, 'HRALIGN_FAULTS': str(found)})
            suite = next(ElementTree.parse(junit).iter('testsuite')) if junit.exists() \
                else ElementTree.Element('testsuite')
            bad = [case.get('name') for case in suite
                   if case.find('failure') is not None or case.find('error') is not None]
            rows = json.loads(found.read_text())
            runs.append({
                # A run that crashed is not green, whatever its tests were.
                'green': done.returncode == 0, 'tests': int(suite.get('tests', 0)),
                'failed': len(bad), 'names': bad, 'rows': len(rows),
                'slowest_recovery_s': max(
                    (r['recovery_s'] or 0.0 for r in rows if not r['busy']), default=None),
                'busy_rows': sum(r['busy'] for r in rows),
                'seconds': round(time.monotonic() - began, 1),
                'load_average': [round(before, 2), round(os.getloadavg()[0], 2)]})
            print(runs[-1], flush=True)
            kept({'runs': runs, 'rows': rows, 'busy_processes': load,
                  'command': shlex.join(words),
                  'date': datetime.now(timezone.utc).isoformat(timespec='seconds')})


def gather() -> dict[str, Any]:
    """Put the figures of all parts side by side; what has not been run is null."""
    faults, soak, fuzz, latency = (
        _read(RESULTS / f'{name}.json') for name in ('faults', 'soak', 'fuzz', 'latency'))
    ticks, hour = soak.get('ticks', {}), soak.get('hour', {})
    runs = faults.get('runs', [])
    loaded = faults.get('under_load', {})
    targets = fuzz.get('targets', {})
    main = latency.get('two_cameras_30hz', {})
    return {
        'faults': len(faults.get('rows', [])),
        'faults_green': min((r['rows'] for r in runs if not r['failed']), default=0)
        if runs and not any(r['failed'] for r in runs) else 0,
        'fault_runs': runs,
        'busy_processes': loaded.get('busy_processes'),
        'fault_runs_under_load': len(loaded.get('runs', [])),
        'fault_runs_green_under_load': sum(r['green'] for r in loaded.get('runs', [])),
        'ticks': ticks.get('ticks'), 'rss_slope_mb_per_100k': ticks.get('rss_slope_mb_per_100k'),
        'fd_growth': ticks['handles_last'] - ticks['handles_first'] if ticks else None,
        'real_time_seconds': hour.get('seconds'), 'real_time_ticks': hour.get('ticks'),
        'real_time_rss_slope_mb_per_100k': hour.get('rss_slope_mb_per_100k'),
        'fuzz_cases': {name: found['cases'] for name, found in targets.items()},
        'fuzz_open_findings': sum(len(found['findings']) for found in targets.values())
        if targets else None,
        'p50_ratio': main.get('ratio_p50'), 'p99_ms': main.get('p99_ms'),
        'cpu_cores': main.get('cpu_cores'), 'load_average': main.get('load_average'),
        'commands': [part['command'] for part in (
            faults, loaded, ticks, hour, *targets.values(), latency) if part.get('command')]}


def _read(path: Path) -> dict[str, Any]:
    """Read a result; empty where it has not been run."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def tables(faults: Mapping[str, Any], soak: Mapping[str, Any]) -> dict[str, str]:
    """Draw the page's tables, by the name of their mark."""
    rows = [[str(i + 1), r['fault'], r['response'], _short(r['diagnostic']),
             '' if r['recovery_s'] is None else f'{r["recovery_s"]:.2f}'
             + (' *' if r['busy'] else ''),
             '' if r['lost'] is None else str(r['lost'])]
            for i, r in enumerate(faults.get('rows', []))]
    runs = [[str(i + 1), str(part.get('busy_processes', 0)), str(r['tests']), str(r['failed']),
             f'{r["seconds"]:.0f}', '' if r['slowest_recovery_s'] is None
             else f'{r["slowest_recovery_s"]:.2f}', f'{r["load_average"][1]:.1f}']
            for part in (faults, faults.get('under_load', {}))
            for i, r in enumerate(part.get('runs', []))]
    made = {
        'FAULTS': table(['', 'fault', 'response of the node', 'diagnostic or log', 'recovery [s]',
                         'sets lost'], rows),
        'RUNS': table(['run', 'busy processes beside it', 'tests', 'failed', 'seconds',
                       'slowest recovery [s]', 'load'], runs)}
    names = {'ticks': 'accelerated, tiny bundle', 'hour': 'real time, 2 x 30 Hz, default bundle'}
    made['SOAK'] = table(
        ['', 'ticks', 'seconds', 'RSS first, last [MB]', 'slope [MB / 100,000 ticks]',
         'handles first, last', 'load'],
        [[names[key], f'{found["ticks"]:,}', f'{found["seconds"]:.0f}',
          f'{found["rss_first_mb"]:.1f}, {found["rss_last_mb"]:.1f}',
          f'{found["rss_slope_mb_per_100k"]:.2f}',
          f'{found["handles_first"]}, {found["handles_last"]}', f'{found["load_average"][0]:.1f}']
         for key, found in soak.items()])
    return made


def _short(text: str) -> str:
    """Cut a diagnosis to its first sentence or clause, as a table has room for."""
    text = text.replace('|', '/').replace('\n', ' ')
    return text if len(text) <= 160 else f'{text[:157]}...'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, gather and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--faults', type=int, default=0, help='run the fault suite so many times')
    parser.add_argument('--load', type=int, default=0, help='busy processes beside it')
    options = parser.parse_args(arguments)

    def keep(found: dict[str, Any]) -> None:
        document = _read(FAULTS)
        if options.load:
            # How long a fault lasts is told by a quiet machine.
            del found['rows']
            document['under_load'] = found
        else:
            document |= found
        FAULTS.write_text(json.dumps(document, indent=1) + '\n', 'utf-8')

    if options.faults:
        run_faults(options.faults, options.load, keep)
    found = gather()
    (RESULTS / 'reliability.json').write_text(json.dumps(found, indent=1) + '\n', 'utf-8')
    PAGE.write_text(filled(PAGE.read_text('utf-8'), tables(
        _read(FAULTS), _read(RESULTS / 'soak.json'))), 'utf-8')
    print(json.dumps(found, indent=1))
    return 0 if found['faults_green'] == found['faults'] and \
        found['fault_runs_green_under_load'] == found['fault_runs_under_load'] else 1


if __name__ == '__main__':
    sys.exit(main())
