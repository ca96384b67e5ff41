# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The card: what a person should know before trusting a bundle."""

from collections.abc import Mapping, Sequence
from typing import Any

_TEMPLATE = """\
# Bundle `{name}`

Task-aware embeddings from {views} cameras ({view_names}); made by

    {command}

## What it is good for

- Embeddings of {channels} values per view from **{backbone}** ({source}), {grid} tokens a frame,
  clips of {length} frames {period} s apart.
- Attention to the instruction: {query}

## What it is not

{caveats}
{success_caveats}

{training}{success}## Measured when it was made

| what | figure |
|---|---|
{rows}

## Licences

| part | licence |
|---|---|
{licenses}
"""


_TRAINING = """\
## What it was trained on

Adapters: **{adapter}**. The backbone stayed as it was. Figures are of clips of whole episodes,
{length} frames spread over each; the node embeds the newest {length} frames, {period} s apart.

| what | |
|---|---|
{rows}

{figures}"""
_METRICS = 'Measured on test splits (`docs/evaluation.md` says what each metric is):\n'
_UNTRAINED_HEAD = """\
- The success head is **not trained**: its probability means nothing, every result carries
  UNCALIBRATED, and the decision is always ABSTAIN.
- It knows no task: every instruction is UNKNOWN_TASK. No out-of-distribution score is given."""
_TRAINED_HEAD = """\
- Its probabilities and thresholds are calibrated for episodes like those of its calibration. For
  your robot, cameras and objects they guarantee nothing: collect episodes and calibrate again.
- Instructions other than its tasks' are UNKNOWN_TASK; what it says of them rests on tasks that
  training never saw, and is less certain."""
_SUCCESS = """\
## What its success head was trained on

Failure prompts after Adapt2Reward; made by

    {commands}

| what | |
|---|---|
{rows}

{figures}"""
_NOT_ALIGNED = ('- The adapters are **{adapter}**: nothing has been aligned on human and robot '
                'video.')
_SIMULATED = """\
- It is not adapted on RH20T or any other real video: its pairs are simulated.
"""
_TRAINED = """\
- What its pairs taught it of your robot, your cameras and your objects has not been measured.
- It is not a policy, and its figures below are of retrieval between clips, not of robots' success.
- Human video is compared with robot video the way it was trained, see below: where it never passed
  the adapters, put it through the plain backbone and then through this bundle's `embed.onnx`."""


def _training(manifest: Mapping[str, Any]) -> str:
    """Write the section on the training data; nothing where nothing was trained."""
    training = manifest.get('training')
    if not training:
        return ''
    return _TRAINING.format(
        adapter=manifest['adapter']['name'], length=manifest['clip']['length'],
        period=manifest['clip']['period_s'],
        rows='\n'.join(f'| {what} | {value} |' for what, value in training.items()
                       if what not in ('simulated', 'metrics')),
        figures=_figures(training.get('metrics', {})))


def _success(manifest: Mapping[str, Any]) -> str:
    """Write the section on the success head; nothing where it is not trained."""
    success = manifest['success']
    if not success.get('trained'):
        return ''
    training = success.get('training', {})
    rows = {key.replace('_', ' '): value for key, value in training.items() if key != 'command'}
    return _SUCCESS.format(
        commands='\n    '.join(filter(None, (training.get('command'), success.get('command')))),
        rows='\n'.join(
            f'| {what} | {", ".join(map(str, value)) if isinstance(value, list) else value} |'
            for what, value in rows.items()), figures=_figures(success.get('metrics', {})))


def _figures(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Draw what was measured: a line per value, metrics by their names; nothing without any."""
    lines = []
    for metric, rows in metrics.items():
        for row in rows:
            conditions = ', '.join(f'{key} {value}' for key, value in row.items() if key not in (
                'split', 'value', 'interval', 'n', 'seeds', 'chance', 'baseline'))
            interval = '' if row['interval'] is None else ' [{:.3f}, {:.3f}]'.format(
                *row['interval'])
            lines.append([
                f'`{metric}`', conditions, row['split'], f'{row["value"]:.3f}{interval}',
                *(f'{row[key]:.3f}' if key in row else '' for key in ('chance', 'baseline')),
                row['n'], ', '.join(map(str, row['seeds']))])
    if not lines:
        return ''
    titles = ['metric', 'measured under', 'split', 'value [95 % interval]', 'chance',
              'frozen backbone, mean of all tokens', 'n', 'seeds']
    if not any(line[5] for line in lines):
        titles.pop(5)
        lines = [line[:5] + line[6:] for line in lines]
    return '\n'.join([_METRICS, *(f'| {" | ".join(map(str, line))} |' for line in (
        titles, ['---'] * len(titles), *lines))]) + '\n\n'


def _caveats(manifest: Mapping[str, Any]) -> str:
    training = manifest.get('training')
    if not training:
        return _NOT_ALIGNED.format(adapter=manifest['adapter']['name'])
    return (_SIMULATED if training.get('simulated') else '') + _TRAINED


def write_card(manifest: Mapping[str, Any]) -> str:
    """Write the card of a bundle in Markdown."""
    metrics = manifest['metrics']
    query = metrics['query']
    text = metrics['text_int8_cosine']
    rows = [
        *([] if manifest.get('training') else [(
            'adapters leave the backbone unchanged, bit by bit',
            metrics['adapter_is_identity'])]),
        ('text encoder, int8 weights against float32: cosine mean (least)',
         f'{text["mean"]} ({text["min"]}), n = {text["n"]} sentences'),
        *((f'{name}: onnxruntime against torch, largest difference', value)
          for name, value in metrics['parity_max_abs_diff'].items()),
    ]
    if 'held_out_median_rank' in query:
        rows.append((
            'query: median rank of the right class for class names left out',
            f'{query["held_out_median_rank"]:g} of {query["classes"]} '
            f'(n = {query["held_out_classes"]}; chance is {query["classes"] / 2:g})'))
    for precision in ('int8', 'fp16'):
        if low := metrics.get(f'visual_{precision}_cosine'):
            rows.append((
                f'visual.{precision}.onnx against float32, mean-pooled: cosine mean (least)',
                f'{low["mean"]} ({low["min"]}), n = {low["n"]} sample images'))
    tokens = manifest['tokens']
    return _TEMPLATE.format(
        name=manifest['name'], views=len(manifest['views']),
        view_names=', '.join(manifest['views']), command=manifest['provenance']['command'],
        channels=tokens['channels'], grid=f'{tokens["rows"]} x {tokens["columns"]}',
        backbone=manifest['backbone']['name'], source=manifest['backbone']['source'],
        length=manifest['clip']['length'], period=manifest['clip']['period_s'],
        query=query['source'] + '.', training=_training(manifest),
        success=_success(manifest), success_caveats=(
            _TRAINED_HEAD if manifest['success'].get('trained') else _UNTRAINED_HEAD),
        caveats=_caveats(manifest),
        rows='\n'.join(f'| {what} | {value} |' for what, value in rows),
        licenses='\n'.join(f'| {k} | {v} |' for k, v in manifest['licenses'].items()))
