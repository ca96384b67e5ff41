# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The labels of a data set while a person changes them.

A label is in a journal on the disk before the page says so. A thread brings it into the manifest
as soon as nobody has labelled for a moment, because writing the manifest of thousands of episodes
takes seconds. What a review that was killed has left in its journal is brought in by the next one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
import fcntl
from functools import partial
import json
import os
from pathlib import Path
from threading import Condition, Thread
import time
from typing import Any

from hralign_ros.data.manifest import (
    change_manifest,
    DataError,
    DataSet,
    Episode,
    read_manifest,
    require_writable,
)
from hralign_ros.review.label_table import place_of, write_label
from hralign_ros.review.labels import Label, label_of, labelled
from hralign_ros.runtime.labels import MODEL, write_whole
from hralign_ros.runtime.report import Report

JOURNAL, _LOCK = '.review.jsonl', '.review.lock'
# Nobody has labelled for so long [s] before the manifest is written, and for so many times as long
# as it took last: pages answer slowly while it is.
_PAUSE_S, _PAUSES = 1.0, 3.0


@dataclass(frozen=True)
class Entry:
    """
    A line of the journal.

    :param frames_s: of an episode without times: those of its frames.
    """

    episode: str
    label: Label
    frames_s: tuple[float, ...] = ()

    def line(self) -> str:
        """Write it."""
        return json.dumps(asdict(self)) + '\n'


class LabelStore:
    """
    The episodes of a data set and their labels; one process at a time has it.

    :param root: folder of the manifest.
    :param report: told what happens to labels outside of the page.
    :ivar data: episodes without what there is for every frame; those without a label first, then
        those that a model has labelled.
    :ivar failure: why the manifest could not be written last; '': it could.
    :raises DataError: there is no manifest, it cannot be written, or another review has it.
    """

    def __init__(self, root: Path, report: Report = print) -> None:
        self._report = report
        self.failure = ''
        root = read_manifest(root, series=False).folder
        self._root = require_writable(root)
        # Held until the process ends, however it does.
        self._lock = open(root / _LOCK, 'w', encoding='utf-8')  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DataError(f'{root}: another review has this data set open; end it first '
                            '(Ctrl-C)') from error
        self._changed = Condition()
        self._pending = _read_journal(root / JOURNAL)
        if self._pending:
            report(f'{len(self._pending)} labels of a review that was stopped are brought into '
                   'the manifest')
            self._write()
        self._labels, self.data = self._read()
        self._newest = 0.0
        self._open = True
        self._took = 0.0
        self._thread = Thread(target=self._keep_writing, name='manifest', daemon=True)
        self._thread.start()

    def _read(self) -> tuple[dict[str, Label], DataSet]:
        """Read what is listed, in the order in which it is."""
        data = read_manifest(self._root, series=('time_s', 'success_flags'))
        labels = {e.episode_id: label_of(e) for e in data.episodes if e.robot_videos}
        return labels, data.only(sorted(
            (replace(e, time_s=(), success_flags=()) for e in data.episodes if e.robot_videos),
            key=lambda e: (_rank(labels[e.episode_id]), e.episode_id)))

    def label(self, episode: Episode) -> Label:
        """Return the label of an episode."""
        return self._labels[episode.episode_id]

    @property
    def unwritten(self) -> int:
        """Count the labels that are in the journal, and not yet in the manifest."""
        return len(self._pending)

    def give(self, episode: Episode, label: Label, frames_s: Sequence[float] = ()) -> str:
        """
        Label an episode: when this returns, the label survives the process.

        :param frames_s: [F] of its frames, on the clock of its time_s.
        :returns: what a person should know; '': nothing.
        :raises DataError: the label is none.
        :raises OSError: the journal cannot be written.
        """
        if not label.outcome:
            label = Label()
        labelled(episode, label, frames_s)  # raises where it cannot be
        with self._changed:
            entry = Entry(episode.episode_id, label, tuple(frames_s))
            with open(self._root / JOURNAL, 'a', encoding='utf-8') as journal:
                journal.write(entry.line())
                journal.flush()
                os.fsync(journal.fileno())
            self._pending.append(entry)
            self._labels[episode.episode_id] = label
            self._newest = time.monotonic()
            self._changed.notify_all()
        try:
            if place := place_of(self._root, episode):
                write_label(place, label)
        except (DataError, OSError, ValueError, KeyError) as error:
            return f'the label is in the manifest alone, and a later import will lose it: {error}'
        return ''

    def close(self) -> None:
        """
        Write what is not yet in the manifest, and let others have the data set.

        :raises DataError: the manifest cannot be written; the journal keeps the labels.
        """
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._thread.join()
        try:
            if self._pending:
                self._write()
        finally:
            self._lock.close()

    def _keep_writing(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or not self._open)
                pause = max(_PAUSE_S, _PAUSES * self._took)
                while self._open and (left := self._newest + pause - time.monotonic()) > 0:
                    self._changed.wait(left)
                if not self._open:
                    return
            began = time.monotonic()
            try:
                self._write()
                self.failure = ''
            except (DataError, OSError) as error:
                self.failure = f'the manifest cannot be written, labels are kept: {error}'
                with self._changed:
                    self._newest = time.monotonic() + 10.0
            self._took = time.monotonic() - began

    def _write(self) -> None:
        """Bring the journal into the manifest, whatever an import has made of it meanwhile."""
        with self._changed:
            entries = list(self._pending)
        gone = change_manifest(self._root, {
            entry.episode: partial(labelled, label=entry.label, frames_s=entry.frames_s)
            for entry in entries})
        if gone:
            self._report(f'{len(gone)} labelled episodes are in the manifest no more: '
                         f'{", ".join(sorted(gone)[:3])}')
        with self._changed:
            self._pending = self._pending[len(entries):]
            if self._pending:
                write_whole(self._root / JOURNAL, ''.join(
                    entry.line() for entry in self._pending).encode())
            else:
                (self._root / JOURNAL).unlink(missing_ok=True)


def _rank(label: Label) -> int:
    """Order by how much a label is needed."""
    return 2 if label.outcome and label.by != MODEL else 1 if label.outcome else 0


def _read_journal(path: Path) -> list[Entry]:
    """Read what a review that was killed has left; its last line may be torn."""
    try:
        lines = path.read_text('utf-8', errors='replace').split('\n')
    except FileNotFoundError:
        return []
    entries = []
    for line in lines[:-1]:
        try:
            values: dict[str, Any] = json.loads(line)
            entries.append(Entry(values['episode'], Label(**values['label']),
                                 tuple(values['frames_s'])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f'{path}: this is no journal of labels ({error}); move it away') \
                from error
    return entries
