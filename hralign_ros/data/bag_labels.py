# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What labels.csv, in the folder of bags or between it and a bag, says of each bag."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
import unicodedata

from hralign_ros.data.bag_files import Bag, PARTIAL
from hralign_ros.data.labels import Label, LABELS, read_labels


@dataclass(frozen=True)
class BagLabels:
    """
    What labels.csv says of a bag.

    :param whole: of the bag as one episode.
    :param parts: of those that it says begin and end somewhere, by name.
    :param others: of episodes that something else cuts out of it, by name.
    """

    whole: Label = Label()
    parts: Mapping[str, Label] = field(default_factory=dict)
    others: Mapping[str, Label] = field(default_factory=dict)

    def for_episode(self, name: str) -> Label:
        """Return the label of an episode; '': of the whole bag."""
        if not name:
            return self.whole
        return self.parts.get(name) or self.others.get(name) or Label()


class LabelTables:
    """
    The files of labels from the source down to each bag; the nearest counts.

    A row names a bag by its path from the file's folder, without suffixes, such as day1/first.

    :param source: folder with bags in it, or a bag; absolute.
    :param bags: what was found there.
    """

    def __init__(self, source: Path, bags: Sequence[Bag]) -> None:
        self.top = source.parent if any(bag.path == source for bag in bags) else source
        self._tables: dict[Path, dict[str, Label]] = {}
        self._used: set[tuple[Path, str]] = set()

    def of(self, bag: Bag) -> BagLabels:
        """
        Find what is said of a bag.

        :raises DataError: the nearest file cannot be read, or is no table of labels.
        """
        for folder in bag.path.parents:
            if folder not in self._tables:
                self._tables[folder] = read_labels(folder / LABELS)
            table = self._tables[folder]
            if table:
                return self._choose(folder, table, bag)
            if folder == self.top:
                break
        return BagLabels()

    def _choose(self, folder: Path, table: Mapping[str, Label], bag: Bag) -> BagLabels:
        name = bag.path.relative_to(folder).as_posix()
        name = name.removesuffix(PARTIAL) if bag.path.is_dir() \
            else (bag.path.relative_to(folder).parent / bag.name.rpartition('/')[2]).as_posix()
        name = unicodedata.normalize('NFC', name)
        parts = {episode: label for episode, label in table.items()
                 if label.span_s and label.word('bag', episode) == name}
        others = {episode.removeprefix(f'{name}/'): label for episode, label in table.items()
                  if episode.startswith(f'{name}/')}
        self._used |= {(folder, one) for one in (
            name, *parts, *(f'{name}/{episode}' for episode in others))}
        return BagLabels(table.get(name, Label()), parts, others)

    def unused(self) -> list[tuple[str, str]]:
        """List what is said of bags that are not there."""
        return [(str(folder / LABELS), name) for folder, table in self._tables.items()
                for name in table if (folder, name) not in self._used]
