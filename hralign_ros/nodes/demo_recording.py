# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the demo's monitor has seen, and ticks.csv, which says it in numbers."""

from collections import Counter
import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hralign_ros.nodes.interfaces import EncoderInfo
import numpy as np


@dataclass
class Recording:
    """
    What the monitor has seen.

    :param rows: one for each tick, by column of ticks.csv: time, latency, processing and skew in
        seconds; drift_VIEW, 1 - cosine between this embedding of the view and the first one;
        probability, threshold, failure, progress, NaN where there is none; decision, status.
    :param overlays: by view, seconds from the first tick and the attention image, uint8 [H, W, 3]
        RGB.
    :param images: the same of the camera images beside them.
    :param drops: dropped frames by view and cause.
    """

    view_names: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    overlays: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)
    images: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)
    info: EncoderInfo | None = None
    task: str = ''
    drops: Counter[str] = field(default_factory=Counter)


def write_ticks(recording: Recording, path: Path) -> None:
    """Write one line for each tick; there is at least one."""
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, recording.rows[0])
        writer.writeheader()
        writer.writerows({
            name: f'{value:.5f}' if isinstance(value, float) else value
            for name, value in row.items()} for row in recording.rows)
