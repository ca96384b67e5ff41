# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Fuzz what comes from outside, guided by coverage; go on, or look again, with the same command.

    make fuzz ARGS="--target images --cases 1000000"

Each target runs in a process of its own, which is watched from outside: a case that ends the
process or takes too long is a finding, and a new process goes on behind it. Ctrl-C stops, and
writes what was found so far.
"""

import argparse
from datetime import datetime, timezone
from importlib import import_module, metadata
import json
import mmap
import os
from pathlib import Path
import platform
import signal
import struct
import subprocess
import sys
import time
import traceback
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'results' / 'fuzz.json'
WORK = ROOT / 'build' / 'fuzz'
NAMES = ('images', 'parameters', 'decisions', 'tasks', 'bundle')
PACKAGES = ('atheris', 'numpy', 'onnxruntime', 'opencv-python-headless', 'safetensors',
            'tokenizers', 'PyYAML')

# What the fuzzing process shows: cases begun, those whose input was taken, size and bytes of the
# newest. It stays readable when that process is gone, and may be read half written.
_HEADER = struct.Struct('<QQI')
_SHOWN_BYTES = 1 << 16
_POLL = 0.25
_PATIENCE = 120.0  # for the imports before the first case [s]


def main() -> None:
    """Run targets one after another and write the results of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--target', nargs='+', choices=NAMES, default=list(NAMES))
    parser.add_argument('--cases', type=int, default=1_000_000, help='of each (%(default)s)')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='of each at most')
    parser.add_argument('--limit', type=float, default=5.0,
                        help='a case that takes longer is a finding [s] (%(default)s)')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--work', type=Path, default=WORK,
                        help='corpus, progress and findings; remove it to begin anew')
    parser.add_argument('--output', type=Path, default=RESULTS)
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        fuzz(options.target[0], options.work, options.cases, options.seed)
    from fuzz.tables import draw

    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    for name in options.target:
        run = Watched(name, options)
        try:
            run.until_done()
        finally:
            write(options.output, name, run.results())
        if run.stopped:
            break
    if options.output == RESULTS:
        draw()


# In the process that fuzzes.

def fuzz(name: str, work: Path, cases: int, seed: int) -> None:
    """Run cases until there are enough of them; does not return."""
    import atheris

    with atheris.instrument_imports(include=['hralign_ros']):
        target = import_module('fuzz.targets').TARGETS[name]()
    shown = mmap.mmap(os.open(work / 'case', os.O_RDWR), _HEADER.size + _SHOWN_BYTES)
    known = {json.loads(line)['key'] for line in _lines(work / 'findings.jsonl')}
    seeds = work / 'seeds'
    seeds.mkdir(exist_ok=True)
    for index, data in enumerate(target.seeds()):
        (seeds / f'{index:03}').write_bytes(data)
    count, taken, parent = 0, 0, os.getppid()

    def one(data: bytes) -> None:
        nonlocal count, taken
        if count == cases or os.getppid() != parent:
            # Atheris ends the process on its own way out without a word; so it is ended here.
            os._exit(0)
        count += 1
        part = data[:_SHOWN_BYTES]
        _HEADER.pack_into(shown, 0, count, taken, len(part))
        shown[_HEADER.size:_HEADER.size + len(part)] = part
        try:
            taken += target(data)
        except BaseException as error:  # panics of Rust are no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            key = _key(error)
            if key not in known:
                known.add(key)
                _note(work, key, ''.join(traceback.format_exception(error))[-4000:], data)

    corpus = work / 'corpus'
    corpus.mkdir(exist_ok=True)
    # Signals are left to end the process: the one outside tells what happened.
    unhandled = [f'-handle_{kind}=0' for kind in ('segv', 'bus', 'abrt', 'ill', 'fpe', 'int')]
    atheris.Setup([
        sys.argv[0], f'-max_len={target.longest}', f'-seed={seed}', '-rss_limit_mb=0',
        '-timeout=100000', '-close_fd_mask=3', *unhandled, str(corpus), str(seeds)], one)
    atheris.Fuzz()


def _key(error: BaseException) -> str:
    """Name a finding by what was raised and where, our own code's innermost line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(ROOT / 'hralign_ros')]
    frame = (own or frames)[-1]
    return f'{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}'


def _note(work: Path, key: str, text: str, data: bytes) -> None:
    """Append a finding to the list of this target."""
    with open(work / 'findings.jsonl', 'a', encoding='utf-8') as file:
        file.write(json.dumps({'key': key, 'text': text, 'input': data.hex()}) + '\n')


def _lines(path: Path) -> list[str]:
    return path.read_text('utf-8').splitlines() if path.exists() else []


# In the process that watches.

class Watched:
    """One target: start its process, watch it, start it again behind a crash."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self.stopped = False
        self._options = options
        self._work = options.work / name
        self._work.mkdir(parents=True, exist_ok=True)
        self._progress = self._work / 'progress.json'
        self._done: dict[str, Any] = {
            'cases': 0, 'taken': 0, 'seconds': 0.0, 'starts': 0, 'slope': None}
        if self._progress.exists():
            self._done = json.loads(self._progress.read_text('utf-8'))
        case = self._work / 'case'
        case.write_bytes(bytes(_HEADER.size + _SHOWN_BYTES))
        with open(case, 'r+b') as file:
            self._shown = mmap.mmap(file.fileno(), 0)

    def until_done(self) -> None:
        """Run until all cases are done, the time is up, or somebody stops it."""
        try:
            while not self._finished():
                self._run_once()
        except KeyboardInterrupt:
            self.stopped = True
            print(f'{self.name}: stopped; the same command goes on', flush=True)

    def _finished(self) -> bool:
        return self._done['cases'] >= self._options.cases \
            or self._done['seconds'] >= self._options.seconds

    def _run_once(self) -> None:
        """Run one process to its end, and note why it ended."""
        before = dict(self._done)
        self._done['starts'] += 1
        _HEADER.pack_into(self._shown, 0, 0, 0, 0)
        command = [
            sys.executable, '-m', 'fuzz', '--child', '--target', self.name,
            '--work', str(self._work), '--cases', str(self._options.cases - before['cases']),
            '--seed', str(self._options.seed + self._done['starts'])]
        begun = moved = time.monotonic()
        told, newest = 0.0, 0
        memory: list[tuple[int, int]] = []
        with open(self._work / 'log', 'ab') as log:
            # Of its own session: Ctrl-C is for this process alone.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, 'OPENCV_LOG_LEVEL': 'SILENT'})
        try:
            while process.poll() is None:
                time.sleep(_POLL)
                now = time.monotonic()
                count, *_ = _HEADER.unpack_from(self._shown)
                if count != newest:
                    moved, newest = now, count
                self._done['cases'] = before['cases'] + count
                self._done['seconds'] = before['seconds'] + now - begun
                held = _resident(process.pid)
                if count and held:
                    memory.append((count, held))
                if now - moved > (self._options.limit if count else _PATIENCE):
                    process.kill()
                    process.wait()
                    self._note(f'no end within {self._options.limit:g} s')
                    return
                if now - told > 10.0:
                    told = now
                    self._tell(memory)
                if self._done['seconds'] >= self._options.seconds:
                    return
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            count, taken, _ = _HEADER.unpack_from(self._shown)
            self._done['cases'] = before['cases'] + count
            self._done['taken'] = before['taken'] + taken
            self._done['slope'] = slope(memory, self._done['slope'])
            self._progress.write_text(json.dumps(self._done), 'utf-8')
            self._tell(memory)
        if process.returncode:
            code = process.returncode
            self._note(f'the process ended with '
                       f'{signal.Signals(-code).name if code < 0 else f"code {code}"}')
        if not _HEADER.unpack_from(self._shown)[0]:
            raise SystemExit(f'{self.name}: not one case ran; see {self._work / "log"}')

    def _note(self, what: str) -> None:
        """Note a finding that the process could not note itself, with its case."""
        *_, length = _HEADER.unpack_from(self._shown)
        data = bytes(self._shown[_HEADER.size:_HEADER.size + length])
        _note(self._work, what, what, data)
        print(f'{self.name}: {what}', flush=True)

    def _tell(self, memory: list[tuple[int, int]]) -> None:
        """Say how far it is."""
        done, rate = self._done, self._done['cases'] / max(self._done['seconds'], 1e-9)
        left = (self._options.cases - done['cases']) / max(rate, 1.0)
        held = f'{memory[-1][1] / 1e6:.0f} MB' if memory else 'starting'
        print(f'{self.name}: {done["cases"]} of {self._options.cases}, {rate:.0f}/s, {held}, '
              f'{len(_lines(self._work / "findings.jsonl"))} findings, '
              f'{left / 60:.0f} min left', flush=True)

    def results(self) -> dict[str, Any]:
        """Give what is written into the results."""
        found: dict[str, dict[str, Any]] = {}
        for line in _lines(self._work / 'findings.jsonl'):
            entry = json.loads(line)
            one = found.setdefault(entry['key'], {
                'what': entry['key'], 'times': 0, 'input': entry['input'][:400]})
            one['times'] += 1
        done = self._done
        return {
            'cases': done['cases'], 'taken': done['taken'], 'seconds': round(done['seconds'], 1),
            'processes': done['starts'], 'case_limit_s': self._options.limit,
            'findings': list(found.values()), 'rss_bytes_per_case': done['slope'],
            'load_average': [round(value, 2) for value in os.getloadavg()],
            'finished': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'command': f'make fuzz ARGS="--target {self.name} --cases {self._options.cases}'
                       + (f' --seconds {self._options.seconds:g}'
                          if self._options.seconds < float('inf') else '') + '"'}


def slope(memory: list[tuple[int, int]], otherwise: float | None) -> float | None:
    """
    Tell by how much memory grows with each case, over the second half of a process.

    :param memory: (cases, resident bytes) as seen from outside.
    """
    half = memory[len(memory) // 2:]
    if len(half) < 20:
        return otherwise
    mean_x = sum(count for count, _ in half) / len(half)
    mean_y = sum(held for _, held in half) / len(half)
    spread = sum((count - mean_x) ** 2 for count, _ in half)
    if not spread:
        return otherwise
    return round(sum((c - mean_x) * (h - mean_y) for c, h in half) / spread, 2)


def _resident(pid: int) -> int:
    """Tell the resident memory of a process [bytes]; 0 once it is gone."""
    try:
        pages = int(Path(f'/proc/{pid}/statm').read_text('utf-8').split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf('SC_PAGE_SIZE')


def write(path: Path, name: str, results: dict[str, Any]) -> None:
    """Put the results of one target into the file of all."""
    document = json.loads(path.read_text('utf-8')) if path.exists() else {'targets': {}}
    document['versions'] = {'python': platform.python_version(), **{
        package: metadata.version(package) for package in PACKAGES}}
    document['targets'][name] = results
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + '\n', 'utf-8')
    print(f'{name}: {results["cases"]} cases, {len(results["findings"])} findings, in {path}')


if __name__ == '__main__':
    main()
