# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The card: what a person should know before trusting a bundle."""

from collections.abc import Mapping
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
- The success head is **not trained**: its probability means nothing, every result carries
  UNCALIBRATED, and the decision is always ABSTAIN.
- It knows no task: every instruction is UNKNOWN_TASK. No out-of-distribution score is given.

{training}## Measured when it was made

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

Adapters: **{adapter}**. The attention's query was trained too; the backbone stayed as it was.
Figures are of clips of whole episodes, {length} frames spread over each; the node embeds the
newest {length} frames, {period} s apart.

| what | |
|---|---|
{rows}

"""
_NOT_ALIGNED = ('- The adapters are **{adapter}**: nothing has been aligned on human and robot '
                'video.')
_SIMULATED = """\
- It is not adapted on RH20T or any other real video: its pairs are simulated.
"""
_TRAINED = """\
- What its pairs taught it of your robot, your cameras and your objects has not been measured.
- It is not a policy, and its figures below are of retrieval between clips, not of robots' success.
- Human video does not pass the adapters: to compare it with robot video, put it through the plain
  backbone and then through this bundle's `embed.onnx`."""


def _training(manifest: Mapping[str, Any]) -> str:
    """Write the section on the training data; nothing where nothing was trained."""
    training = manifest.get('training')
    if not training:
        return ''
    return _TRAINING.format(
        adapter=manifest['adapter']['name'], length=manifest['clip']['length'],
        period=manifest['clip']['period_s'],
        rows='\n'.join(f'| {what} | {value} |' for what, value in training.items()
                       if what != 'simulated'))


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
    if 'visual_int8_cosine' in metrics:
        low = metrics['visual_int8_cosine']
        rows.append((
            'visual.int8.onnx against float32, mean-pooled: cosine mean (least)',
            f'{low["mean"]} ({low["min"]}), n = {low["n"]} pictures of the calibration set'))
    tokens = manifest['tokens']
    return _TEMPLATE.format(
        name=manifest['name'], views=len(manifest['views']),
        view_names=', '.join(manifest['views']), command=manifest['provenance']['command'],
        channels=tokens['channels'], grid=f'{tokens["rows"]} x {tokens["columns"]}',
        backbone=manifest['backbone']['name'], source=manifest['backbone']['source'],
        length=manifest['clip']['length'], period=manifest['clip']['period_s'],
        query=query['source'] + '.', training=_training(manifest),
        caveats=_caveats(manifest),
        rows='\n'.join(f'| {what} | {value} |' for what, value in rows),
        licenses='\n'.join(f'| {k} | {v} |' for k, v in manifest['licenses'].items()))
