# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Figures of a report on success heads, each as PNG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hralign_ros.evaluation.bootstrap import Floats
from hralign_ros.evaluation.figures import (
    DPI,
    draw_grid,
    GREY,
    PALETTE,
    require,
    RIGHT,
    TEXT,
    to_png,
    WRONG,
)
from hralign_ros.evaluation.metrics.calibration import equal_mass
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray


def reliability_diagram(
    splits: Mapping[str, tuple[Floats, NDArray[np.bool_]]], *, bins: int = 15,
) -> bytes:
    """
    Draw how often the task is accomplished against how probable that was predicted to be.

    :param splits: probabilities [n] and labels [n] by split.
    :returns: PNG.
    """
    require(splits, 'splits')
    figure = Figure(figsize=(4.2 * len(splits), 4.4), dpi=DPI, layout='constrained')
    axes = np.atleast_1d(figure.subplots(1, len(splits), sharey=True))
    for axis, (name, (probability, done)) in zip(axes, splits.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for members in equal_mass(probability, bins):
            mean, fraction = float(probability[members].mean()), float(done[members].mean())
            spread = 1.96 * (max(fraction * (1 - fraction), 1e-4) / len(members)) ** 0.5
            axis.vlines(mean, max(fraction - spread, 0), min(fraction + spread, 1), color=GREY)
            axis.plot(mean, fraction, 'o', color=RIGHT, markersize=5)
        axis.hist(probability, bins=20, range=(0, 1), color='#e6e8eb', zorder=0,
                  weights=np.full(len(probability), 1 / len(probability)))
        axis.set_title(f'{name}\n{len(done)} ticks, {done.mean():.0%} accomplished', fontsize=10)
        axis.set_xlabel('predicted probability')
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        draw_grid(axis, grid='both')
    axes[0].set_ylabel('fraction accomplished')
    return to_png(figure)


@dataclass(frozen=True)
class ProbabilityTrace:
    """
    A probability over time.

    :param done_s: when the task was accomplished; None: never.
    :param success_s: when SUCCESS was decided; None: never.
    """

    title: str
    time_s: Floats
    probability: Floats
    threshold: float
    done_s: float | None
    success_s: float | None


def probability_traces(traces: Sequence[ProbabilityTrace], columns: int = 4) -> bytes:
    """
    Draw probabilities over time, with what is true and what was decided.

    :returns: PNG.
    """
    require(traces, 'traces')
    lines = -(-len(traces) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.3 * lines), dpi=DPI, layout='constrained')
    axes = np.atleast_2d(figure.subplots(lines, columns, sharey=True, squeeze=False))
    for axis in axes.ravel()[len(traces):]:
        axis.set_axis_off()
    for axis, trace in zip(axes.ravel(), traces, strict=False):
        if trace.done_s is not None:
            axis.axvspan(trace.done_s, float(trace.time_s[-1]), color='#e2f3ec', zorder=0)
        axis.plot(trace.time_s, trace.probability, color=PALETTE[2], linewidth=1.8)
        axis.axhline(trace.threshold, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        if trace.success_s is not None:
            right = trace.done_s is not None and trace.success_s >= trace.done_s
            axis.axvline(trace.success_s, color=RIGHT if right else WRONG, linewidth=1.8)
            axis.text(trace.success_s, 0.04, ' SUCCESS' if right else ' SUCCESS, wrong',
                      fontsize=8, color=TEXT)
        axis.set_title(trace.title, fontsize=9)
        axis.set_ylim(0, 1)
        draw_grid(axis, grid='both')
    for axis in axes[-1]:
        axis.set_xlabel('seconds', fontsize=9)
    return to_png(figure)


def heat_map(
    table: Floats, rows: Sequence[str], columns: Sequence[str], *, title: str,
    across: str, down: str,
) -> bytes:
    """
    Draw fractions as a table of shades.

    :param table: [rows, columns], 0 to 1.
    :returns: PNG.
    """
    require(rows, 'rows')
    size = 0.26 if len(columns) > 12 else 0.6
    figure = Figure(figsize=(2.8 + size * len(columns), 1.8 + max(size * 0.8, 0.24) * len(rows)),
                    dpi=DPI, layout='constrained')
    axis = figure.subplots()
    axis.imshow(table, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    axis.set_xticks(range(len(columns)), columns, rotation=90 if len(columns) > 6 else 0,
                    fontsize=7 if len(columns) > 12 else 9)
    axis.set_yticks(range(len(rows)), rows, fontsize=7 if len(rows) > 12 else 9)
    if len(columns) <= 12:
        for i, line in enumerate(table):
            for j, value in enumerate(line):
                axis.text(j, i, f'{value:.2f}', ha='center', va='center', fontsize=9,
                          color='white' if value > 0.6 else TEXT)
    axis.set_title(title, fontsize=11, weight='bold')
    axis.set_xlabel(across)
    axis.set_ylabel(down)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.tick_params(length=0)
    return to_png(figure)
