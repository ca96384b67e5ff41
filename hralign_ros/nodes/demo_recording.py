# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the demo's monitor has seen, and ticks.csv, which says it in numbers."""

from collections import Counter
import csv
from dataclasses import dataclass, field
import math
from pathlib import Path

from hralign_ros.nodes.interfaces import EncoderInfo
import numpy as np


@dataclass
class Row:
    """
    One tick, as ticks.csv has it; times in seconds.

    :param drift: by view, 1 - cosine between this embedding and the first one.
    """

    time: float
    latency: float
    processing: float
    skew: float
    drift: list[float]
    probability: float
    threshold: float = math.nan
    failure: float = math.nan
    progress: float = math.nan
    decision: str = ''
    status: str = ''


@dataclass
class Recording:
    """
    What the monitor has seen.

    :param overlays: by view, seconds from the first tick and the attention image, uint8 [H, W, 3]
        RGB.
    :param images: the same of the camera images beside them.
    :param drops: dropped frames by view and cause.
    """

    view_names: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    overlays: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)
    images: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)
    info: EncoderInfo | None = None
    task: str = ''
    drops: Counter[str] = field(default_factory=Counter)


def write_ticks(recording: Recording, path: Path) -> None:
    """Write one line for each tick."""
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow([
            'time_s', 'latency_s', 'processing_s', 'skew_s',
            *(f'drift_{view}' for view in recording.view_names),
            'probability', 'threshold', 'failure', 'progress', 'decision', 'status'])
        for row in recording.rows:
            writer.writerow([
                f'{row.time:.4f}', f'{row.latency:.5f}', f'{row.processing:.5f}',
                f'{row.skew:.5f}', *(f'{d:.5f}' for d in row.drift),
                f'{row.probability:.5f}', f'{row.threshold:.5f}', f'{row.failure:.5f}',
                f'{row.progress:.5f}', row.decision, row.status])
