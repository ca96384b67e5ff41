# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Figures of a report, each as PNG.

Colours are ones that colour-blind people can tell apart (Okabe and Ito's; Paul Tol's muted ones
for tasks). Human is orange and robot blue in all figures, and nothing else is; right has a tick
and wrong a cross beside their colours.
"""

from collections.abc import Mapping, Sequence
import csv
from dataclasses import dataclass
import io
from itertools import cycle
import math
from pathlib import Path
import textwrap
from typing import Any

from hralign_ros.evaluation.bootstrap import EvaluationError, Floats, Labels
from hralign_ros.evaluation.metrics.calibration import equal_mass
from hralign_ros.evaluation.metrics.names import METRICS
from hralign_ros.runtime.overlay import attention_overlay
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

HUMAN, ROBOT = '#E69F00', '#0072B2'
RIGHT, WRONG = '#009E73', '#D55E00'
GREY, TEXT = '#9aa0a6', '#202124'
# Of variants and curves.
PALETTE = ('#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#000000', '#F0E442')
_TASKS = ('#332288', '#DDCC77', '#44AA99', '#CC6677', '#88CCEE', '#117733', '#882255', '#999933')
# Of negative controls.
_HATCHES = ('////', '....', 'xxxx', '----')
DPI = 120

Figures = NDArray[np.uint8]


@dataclass(frozen=True)
class Answer:
    """
    One clip that a query found.

    :param frame: uint8 [H, W, 3] RGB.
    :param label: short text below it, for example its task and similarity.
    :param right: whether it is a right one.
    """

    frame: Figures
    label: str
    right: bool


@dataclass(frozen=True)
class Example:
    """
    A query and what it found, best first.

    :param frames: of the query, uint8 [T, H, W, 3] RGB.
    :param title: what the query shows.
    """

    frames: Figures
    title: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Attention:
    """
    Where frozen and adapted features attend.

    :param frame: uint8 [H, W, 3] RGB, as it went into preprocessing.
    :param frozen: attention weights of its tokens, float32 [rows * columns].
    :param adapted: the same after adaptation.
    :param grid: rows and columns of the token map.
    :param title: the instruction.
    """

    frame: Figures
    frozen: NDArray[np.float32]
    adapted: NDArray[np.float32]
    grid: tuple[int, int]
    title: str


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


def retrieval_examples(examples: Sequence[Example]) -> bytes:
    """
    Draw human queries and the robot clips that they found, one row each.

    Right and wrong differ by border and sign.

    :returns: PNG.
    :raises EvaluationError: there is no example, or a frame is not an RGB figure.
    """
    _require(examples, 'examples')
    shown = [_strip(example.frames) for example in examples]
    across = max(len(example.answers) for example in examples)
    ratio = max(strip.shape[1] / strip.shape[0] for strip in shown)
    figure = Figure(figsize=(1.7 * (ratio + across) + 0.6, 2.2 * len(examples) + 0.4),
                    dpi=DPI, layout='constrained')
    axes = figure.subplots(len(examples), 1 + across, squeeze=False,
                           width_ratios=[ratio] + [1.0] * across)
    for line, (example, strip) in enumerate(zip(examples, shown, strict=True)):
        _figure(axes[line, 0], strip, HUMAN, 3)
        axes[line, 0].set_xlabel(_wrap(example.title, int(19 * ratio)), fontsize=9)
        for place in range(across):
            axis = axes[line, 1 + place]
            if place >= len(example.answers):
                axis.set_axis_off()
                continue
            answer = example.answers[place]
            _figure(axis, _frame(answer.frame), RIGHT if answer.right else WRONG, 4)
            axis.text(0.95, 0.05, '✓' if answer.right else '✗', transform=axis.transAxes,
                      ha='right', va='bottom', fontsize=13, color='white', weight='bold',
                      bbox={'boxstyle': 'round,pad=0.15', 'lw': 0,
                            'fc': RIGHT if answer.right else WRONG})
            axis.set_xlabel(_wrap(answer.label, 20), fontsize=8.5)
    axes[0, 0].set_title('human query', fontsize=11, color=TEXT, weight='bold')
    for place in range(across):
        axes[0, 1 + place].set_title(f'robot #{place + 1}', fontsize=11, color=TEXT)
    return _to_png(figure)


def embeddings(
    before: ArrayLike, after: ArrayLike, *, tasks: Labels, domains: Labels,
) -> bytes:
    """
    Draw embeddings before and after adaptation: by domain above, by task below.

    PCA to at most 50 dimensions, then t-SNE with a fixed seed, of unit features. Distances between
    clusters and the two columns' axes mean nothing; whether human and robot mix does.

    :param before: [n, C].
    :param after: [n, D], the same clips.
    :param tasks: [n]; the most frequent ones are coloured, the others are grey.
    :param domains: human or robot, [n].
    :returns: PNG.
    :raises EvaluationError: fewer than 5 clips, or arrays that do not match.
    """
    names, kinds = np.asarray(tasks), np.asarray(domains)
    spaces = [_project(before), _project(after)]
    if any(len(space) != len(names) for space in spaces) or kinds.shape != names.shape:
        raise EvaluationError('embeddings before and after, tasks and domains differ in length')
    if not set(kinds.tolist()) <= {'human', 'robot'}:
        raise EvaluationError(f'domains are human and robot, not {sorted(set(kinds.tolist()))}')
    listed, counts = np.unique(names, return_counts=True)
    listed = listed[np.argsort(-counts, kind='stable')][:len(_TASKS)]
    colours = dict(zip(listed.tolist(), _TASKS, strict=False))
    figure = Figure(figsize=(10.5, 8.4), dpi=DPI, layout='constrained')
    axes = figure.subplots(2, 2)
    # One random order for all, so that no domain and no task lies on top.
    order = np.random.default_rng(0).permutation(len(names))
    for column, (space, title) in enumerate(
            zip(spaces, ('frozen', 'adapted'), strict=True)):
        axes[0, column].set_title(title, fontsize=13, weight='bold')
        for axis, fills in (
                (axes[0, column], [HUMAN if k == 'human' else ROBOT for k in kinds]),
                (axes[1, column], [colours.get(str(n), '#d4d7db') for n in names])):
            shades = np.array(fills)
            for kind, marker, size in (('human', 'o', 26), ('robot', '^', 30)):
                chosen = order[kinds[order] == kind]
                axis.scatter(*space[chosen].T, s=size, c=shades[chosen], marker=marker,
                             linewidths=0.4, edgecolors='white', alpha=0.85)
            _bare(axis, '#d4d7db', 0.8)
    axes[0, 0].set_ylabel('coloured by domain', fontsize=11)
    axes[1, 0].set_ylabel('coloured by task', fontsize=11)
    axes[0, 1].legend(
        handles=[Line2D([], [], marker=marker, color=colour, linestyle='none', markersize=7,
                        label=label)
                 for label, colour, marker in (('human', HUMAN, 'o'), ('robot', ROBOT, '^'))],
        loc='upper left', bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=10)
    handles = [Patch(color=colour, label=_label(name, 24)) for name, colour in colours.items()]
    if len(np.unique(names)) > len(colours):
        handles.append(Patch(color='#d4d7db', label='other tasks'))
    axes[1, 1].legend(handles=handles, loc='upper left', bbox_to_anchor=(1.02, 1.0),
                      frameon=False, fontsize=10)
    return _to_png(figure)


def attention_figure(items: Sequence[Attention]) -> bytes:
    """
    Draw frames with frozen and adapted attention beside them.

    Colours span each figure's own range: they compare places within a figure.

    :returns: PNG.
    :raises EvaluationError: there is no item, or weights that do not fill the grid.
    """
    _require(items, 'attention maps')
    figure = Figure(figsize=(7.4, 2.3 * len(items) + 0.4), dpi=DPI, layout='constrained')
    axes = figure.subplots(len(items), 3, squeeze=False)
    for line, item in enumerate(items):
        if {item.frozen.size, item.adapted.size} != {item.grid[0] * item.grid[1]}:
            raise EvaluationError(
                f'{item.frozen.size} and {item.adapted.size} weights for a grid of {item.grid}')
        even = np.ones(item.grid, np.float32)
        for axis, weights in zip(axes[line], (even, item.frozen, item.adapted), strict=True):
            overlay = attention_overlay(item.frame, weights, item.grid, size=224)
            _figure(axis, overlay, GREY, 0.8)
        axes[line, 0].set_ylabel(_wrap(item.title, 26), fontsize=10)
    for axis, title in zip(axes[0], ('frame', 'frozen', 'adapted'), strict=True):
        axis.set_title(title, fontsize=11, weight='bold')
    return _to_png(figure)


def bar_chart(rows: Sequence[Mapping[str, Any]], *, title: str) -> bytes:
    """
    Draw one metric as bars with their intervals: a group per split, a bar per variant.

    Negative controls are hatched grey.

    :param rows: of a report (see `hralign_ros.evaluation.report.Measured.add`), all of one metric.
    :returns: PNG.
    :raises EvaluationError: no row, rows of several metrics, or two of one variant and split.
    """
    _require(rows, 'rows')
    metrics = {item['metric'] for item in rows}
    cells = {(item['split'], item['variant']): item for item in rows}
    if len(metrics) != 1 or len(cells) != len(rows):
        raise EvaluationError('a bar chart shows one metric, and each variant once per split')
    splits = list(dict.fromkeys(item['split'] for item in rows))
    controls = {item['variant'] for item in rows if item['control']}
    variants = sorted(dict.fromkeys(item['variant'] for item in rows),
                      key=lambda name: name in controls)
    mains = [name for name in variants if name not in controls]
    looks: dict[str, dict[str, Any]] = {
        name: {'facecolor': colour, 'edgecolor': colour}
        for name, colour in zip(mains, cycle(PALETTE), strict=False)}
    looks |= {name: {'facecolor': '#dcdfe3', 'edgecolor': GREY, 'hatch': hatch}
              for name, hatch in zip(variants[len(mains):], cycle(_HATCHES), strict=False)}
    width = 0.84 / len(variants)
    figure = Figure(figsize=(max(6.0, 1.6 + len(splits) * max(1.3, 0.62 * len(variants))), 4.0),
                    dpi=DPI, layout='constrained')
    axis = figure.subplots()
    for place, variant in enumerate(variants):
        for number, split in enumerate(splits):
            item = cells.get((split, variant))
            if item is None or item['value'] is None:
                continue
            x = number + (place - (len(variants) - 1) / 2) * width
            axis.bar(x, item['value'], width * 0.9, linewidth=0.6, **looks[variant])
            top = item['value']
            if item['low'] is not None and item['high'] is not None:
                axis.vlines(x, item['low'], item['high'], color=TEXT, linewidth=1.2)
                top = max(top, item['high'])
            axis.annotate(_short_number(item['value']), (x, max(top, 0.0)), (0, 3),
                          textcoords='offset points', ha='center', va='bottom',
                          fontsize=8 if len(variants) * len(splits) <= 14 else 6.5, color=TEXT)
            if item['chance'] is not None:
                axis.hlines(item['chance'], x - width / 2, x + width / 2, color=TEXT,
                            linewidth=1.2, linestyle=(0, (2, 1.5)))
    handles: list[Any] = [Patch(label=_label(name), **looks[name]) for name in variants]
    if any(item['chance'] is not None for item in rows):
        handles.append(Line2D([], [], color=TEXT, linestyle=(0, (2, 1.5)), label='chance'))
    axis.legend(handles=handles, loc='upper left', bbox_to_anchor=(1.01, 1.0), frameon=False,
                fontsize=9)
    better = METRICS[metrics.pop()].better
    axis.set_title(f'{title}\n', fontsize=12, weight='bold', loc='left')
    axis.text(0.0, 1.02, f'95 % intervals{f"; {better} is better" if better else ""}',
              transform=axis.transAxes, fontsize=9, color='#5a6472')
    axis.set_xticks(range(len(splits)), [_wrap(split, 16) for split in splits], fontsize=10)
    axis.margins(y=0.12)
    if not any(item['value'] is not None and item['value'] < 0 for item in rows):
        axis.set_ylim(bottom=0.0)
    _draw_grid(axis, grid='y')
    # The line is at zero, the labels are below bars that point down.
    axis.spines['bottom'].set_visible(False)
    axis.axhline(0.0, color=TEXT, linewidth=0.8)
    return _to_png(figure)


def training_curve(file: Path, *, best: str = '') -> bytes:
    """
    Draw a training log: losses on the left, everything else on the right.

    Columns whose name contains `loss` are losses. Cells may be empty, as validation is not
    measured at every step; columns that hold anything but numbers are left out.

    :param file: CSV with a header; `step` is the horizontal axis.
    :param best: column whose highest value is marked; '' for none.
    :returns: PNG.
    :raises EvaluationError: the file cannot be read, or lacks the columns.
    """
    curves = _read_curves(Path(file))
    if best and best not in curves:
        raise EvaluationError(f"{file}: no column '{best}' with numbers; it has: "
                              f'{", ".join(curves) or "none"}')
    if not curves:
        raise EvaluationError(f"{file}: no column with numbers besides 'step'")
    sides = [[name for name in curves if ('loss' in name.lower()) == losses]
             for losses in (True, False)]
    sides = [side for side in sides if side]
    figure = Figure(figsize=(5.6 * len(sides), 3.8), dpi=DPI, layout='constrained')
    axes = figure.subplots(1, len(sides), squeeze=False)[0]
    for axis, side in zip(axes, sides, strict=True):
        for place, name in enumerate(side):
            x, y = curves[name]
            axis.plot(x, y, color=PALETTE[place % len(PALETTE)], linewidth=1.6, label=name,
                      marker='o' if len(x) <= 30 else None, markersize=3.5)
        if best in side:
            x, y = curves[best]
            at = int(y.argmax())
            axis.axvline(x[at], color=GREY, linewidth=1.0, linestyle=(0, (3, 2)), zorder=0)
            axis.plot(x[at], y[at], marker='*', markersize=13, color=TEXT, linestyle='none',
                      label=f'best {best}: {_short_number(y[at])} at {x[at]:g}')
        axis.set_xlabel('step', fontsize=10)
        axis.set_title('loss' if side == sides[0] and 'loss' in side[0].lower() else 'metrics',
                       fontsize=12, weight='bold', loc='left')
        axis.legend(frameon=False, fontsize=9)
        _draw_grid(axis, grid='both')
    return _to_png(figure)


def reliability_diagram(splits: Mapping[str, tuple[Floats, NDArray[np.bool_]]]) -> bytes:
    """
    Draw how often the task is accomplished against how probable that was predicted to be.

    :param splits: probabilities [n] and labels [n] by split.
    :returns: PNG.
    """
    _require(splits, 'splits')
    figure = Figure(figsize=(4.2 * len(splits), 4.4), dpi=DPI, layout='constrained')
    axes = np.atleast_1d(figure.subplots(1, len(splits), sharey=True))
    for axis, (name, (probability, done)) in zip(axes, splits.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for members in equal_mass(probability):
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
        _draw_grid(axis, grid='both')
    axes[0].set_ylabel('fraction accomplished')
    return _to_png(figure)


def probability_traces(traces: Sequence[ProbabilityTrace]) -> bytes:
    """
    Draw probabilities over time, with what is true and what was decided.

    :returns: PNG.
    """
    _require(traces, 'traces')
    columns = 4
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
        _draw_grid(axis, grid='both')
    for axis in axes[-1]:
        axis.set_xlabel('seconds', fontsize=9)
    return _to_png(figure)


def heat_map(
    table: Floats, rows: Sequence[str], columns: Sequence[str], *, title: str,
    across: str, down: str,
) -> bytes:
    """
    Draw fractions as a table of shades.

    :param table: [rows, columns], 0 to 1.
    :returns: PNG.
    """
    _require(rows, 'rows')
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
    return _to_png(figure)


def _read_curves(file: Path) -> dict[str, tuple[Floats, Floats]]:
    try:
        with file.open(encoding='utf-8', newline='') as stream:
            records = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f'{file}: {error}') from error
    if not records or 'step' not in records[0]:
        raise EvaluationError(f"{file}: no rows with a column 'step'")
    curves = {}
    for name in records[0]:
        pairs = [(record['step'], record[name]) for record in records if record[name]]
        try:
            values = np.array([(float(x), float(y)) for x, y in pairs], np.float64)
        except (TypeError, ValueError):
            continue
        if name != 'step' and len(values):
            values = values[np.isfinite(values).all(1)]
            if len(values):
                curves[name] = (values[:, 0], values[:, 1])
    return curves


def _project(features: ArrayLike) -> Floats:
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < 5 or not np.isfinite(x).all():
        raise EvaluationError(f'{x.shape}: needed are at least 5 finite features [n, C]')
    x = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    size = min(50, x.shape[0] - 1, x.shape[1])
    x = PCA(size, svd_solver='full').fit_transform(x)
    # t-SNE starts from the first two components over the first one's deviation.
    if x.shape[1] < 2 or x[:, 0].std() < 1e-9:
        raise EvaluationError('features that do not vary cannot be drawn')
    perplexity = min(30.0, (len(x) - 1) / 3)
    # Its threads wait for each other in a loop: on busy cores one thread is ten times faster.
    with threadpool_limits(1):
        return np.asarray(TSNE(2, perplexity=perplexity, init='pca', random_state=0)
                          .fit_transform(x), np.float64)


def _strip(frames: Figures) -> Figures:
    """Return up to four frames of a clip side by side, first and last included."""
    if frames.ndim != 4 or not len(frames):
        raise EvaluationError(f'{frames.shape}: needed are frames [T, H, W, 3]')
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(4, len(frames))).round().astype(int))
    parts = [_frame(frames[i]) for i in chosen]
    gap = np.full((parts[0].shape[0], max(1, parts[0].shape[1] // 60), 3), 255, np.uint8)
    return np.concatenate([p for part in parts for p in (part, gap)][:-1], 1)


def _frame(frame: Figures) -> Figures:
    """Return the frame cut to its middle square."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise EvaluationError(f'{frame.dtype} {frame.shape}: needed is uint8 [H, W, 3]')
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top:top + side, left:left + side]


def _figure(axis: Axes, image: Figures, colour: str, width: float) -> None:
    axis.imshow(image, interpolation='antialiased')
    _bare(axis, colour, width)


def _bare(axis: Axes, colour: str, width: float) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=width)


def _draw_grid(axis: Axes, grid: str) -> None:
    """Take frame and ticks away, and draw a quiet grid."""
    axis.spines[['top', 'right', 'left']].set_visible(False)
    axis.tick_params(length=0)
    axis.set_axisbelow(True)
    if grid == 'both':
        axis.grid(color='#e6e8eb', linewidth=0.8)
    else:
        axis.yaxis.grid(color='#e6e8eb', linewidth=0.8)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most - 1] + '…'


def _label(text: str, most: int = 34) -> str:
    """Return a legend's label; a $ is a sign here and not mathematics."""
    return _short(text, most).replace('$', r'\$')


def _wrap(text: str, width: int) -> str:
    """Break a text into at most two lines."""
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, width)] or ['']
    if len(lines) > 2:
        lines = [lines[0], _short(' '.join(lines[1:]), width)]
    return '\n'.join(lines).replace('$', r'\$')


def _short_number(value: float) -> str:
    digits = 2 if not value else max(0, min(3, 2 - math.floor(math.log10(abs(value)))))
    return f'{value:.{digits}f}'.replace('-', '−')


def _require(items: Sequence[Any] | Mapping[str, Any], what: str) -> None:
    """Refuse to draw nothing."""
    if not items:
        raise EvaluationError(f'there are no {what} to draw')


def _to_png(figure: Figure) -> bytes:
    """Render a figure."""
    stream = io.BytesIO()
    # No date and no version in the file: equal input gives equal bytes.
    FigureCanvasAgg(figure).print_png(stream, metadata={'Software': None})
    return stream.getvalue()
