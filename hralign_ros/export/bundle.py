# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Export a whole bundle: graphs, text encoder, tasks, card; every graph compared with torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
import json
from pathlib import Path
from typing import Any

from hralign_ros import __version__
from hralign_ros.export.adaptation import Adaptation
from hralign_ros.export.card import trained_license
from hralign_ros.export.compress import halve, quantise_static, quantise_weights
from hralign_ros.export.parity import (
    check_parity,
    masked_graph,
    run_graph,
    sample_images,
    SAMPLE_TASKS,
    success_inputs,
)
from hralign_ros.export.query import fit_query, scaled
from hralign_ros.export.writer import is_trained, require_replaceable, write_bundle
from hralign_ros.models.adapters import AdaptedBackbone, adapters_of, load_adapters
from hralign_ros.models.backbones import Backbone, load_backbone, RANDOM, require_weights
from hralign_ros.models.hr_align import TaskAttention
from hralign_ros.models.onnx_export import OPSET, preprocessing_graph, torch_graph
from hralign_ros.models.published import resolve_weights
from hralign_ros.models.success import OUTPUTS, SuccessHead
from hralign_ros.models.text import load_minilm, minilm_folder, PromptedTextEncoder
from hralign_ros.models.weight_files import read_checkpoint
from hralign_ros.runtime.bundle import (
    AdapterSpec,
    BackboneSpec,
    ClipSpec,
    Manifest,
    SuccessSpec,
    TextSpec,
    TOKENIZER,
    TokenSpec,
    VISUALS,
)
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.errors import BundleError
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.tasks import FALLBACK, Task, TaskTable
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

Floats = NDArray[np.float32]

# K and L, failure prompts per task and vectors in each, of a head that is not trained.
MODES, PROMPT_LENGTH = 3, 4
# Least mean cosine with float32 at which a smaller visual encoder is written.
LEAST_COSINE = {'int8': 0.99, 'fp16': 0.9999}


@dataclass(frozen=True)
class ExportOptions:
    """
    What to export.

    :param weights: of the backbone, as for `load_backbone`.
    :param non_commercial: no commercial use is made of weights whose terms forbid it.
    :param views: camera views in the order of the graphs' first axis; the last is the reference.
    :param length: T, frames in a clip.
    :param int8: also write visual.int8.onnx, calibrated on the sample images.
    :param fp16: also write visual.fp16.onnx, for GPUs.
    :param seed: of every random weight.
    """

    backbone: str = 'efficientnet_lite0'
    weights: str | None = None
    non_commercial: bool = False
    views: tuple[str, ...] = ('wrist', 'third_person')
    length: int = 5
    int8: bool = False
    fp16: bool = False
    seed: int = 0
    name: str = 'default'


class _Visual(AdaptedBackbone):
    """Backbone with its adapters in place, and tokens as rows."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().forward(pixels).flatten(2).transpose(1, 2)


def export_bundle(
    output: Path, options: ExportOptions, *, command: str, adaptation: Adaptation | None = None,
    replace_trained: bool = False, report: Report = print,
) -> Manifest:
    """
    Write a bundle with an untrained success head.

    :param output: the bundle's directory; replaced only once everything has been checked.
    :param adaptation: trained adapters and query, which must fit the backbone of `options`; None:
        identity adapters.
    :param command: how a person repeats this, for the manifest and the card.
    :param replace_trained: also a bundle whose success head is trained.
    :returns: the manifest as written.
    :raises ValueError: unknown backbone, views that no bundle can have, weights that do not fit.
    :raises BundleError: `output` is a folder of something else, or a bundle whose success head is
        trained.
    :raises FileNotFoundError: the demo episode, on which graphs are compared, is not there.
    :raises RuntimeError: a graph differs from its torch module, see check_parity.
    """
    _check(output, options, replace_trained)
    images = sample_images()
    torch.manual_seed(options.seed)
    options = replace(options, weights=resolve_weights(
        options.backbone, options.weights, non_commercial=options.non_commercial))
    backbone = load_backbone(
        options.backbone, options.weights, seed=options.seed,
        non_commercial=options.non_commercial)
    spec = backbone.preprocessing
    adaptation = adaptation or _released(options.weights, backbone, report)
    text = load_minilm()
    views = len(options.views)

    report('text encoder')
    float_text, files = _text_graph(text), {}
    files['text.onnx'] = quantise_weights(float_text)
    encode, exact = _TextGraph(files['text.onnx']), _TextGraph(float_text)
    sentences = np.stack([encode(task) for task in SAMPLE_TASKS])
    metrics: dict[str, Any] = {'text_int8_cosine': _cosine_summary(
        sentences, np.stack([exact(task) for task in SAMPLE_TASKS]))}

    report('visual encoder')
    files['preprocess.onnx'] = preprocessing_graph(spec)
    adaptation = adaptation or Adaptation(
        adapters_of(backbone.channels, backbone.kind), None, 'late',
        'late x3, exact identity (not trained)', None, {'adapters, query': trained_license([])})
    visual = _Visual(backbone, adaptation.position, adaptation.adapters)
    pixels = _pixels(files['preprocess.onnx'], images)
    batches = [pixels[i:i + views] for i in range(0, len(pixels) - views + 1, views)]
    files['visual.onnx'] = torch_graph(
        visual, [torch.from_numpy(batches[0])], inputs=['pixels'], outputs=['tokens'])
    parity = {'visual.onnx': check_parity(
        files['visual.onnx'], visual, {'pixels': batches[0]}, report)}
    with torch.no_grad():
        plain = backbone.module(torch.from_numpy(batches[0])).flatten(2).transpose(1, 2)
        metrics['adapter_is_identity'] = torch.equal(
            plain, visual(torch.from_numpy(batches[0])))
    tokens = np.concatenate([run_graph(files['visual.onnx'], {'pixels': b})[0] for b in batches])
    for precision, made in (
            ('int8', lambda model: quantise_static(model, batches)), ('fp16', halve)):
        if not getattr(options, precision):
            continue
        name, low = VISUALS[precision], made(files['visual.onnx'])
        if low is None:
            report(f'  {name} is left out: this backbone has nothing that would be quantised')
            continue
        found = np.concatenate([run_graph(low, {'pixels': b})[0] for b in batches])
        cosine = _cosine_summary(tokens.mean(1), found.mean(1))
        metrics[f'visual_{precision}_cosine'] = cosine
        if cosine['mean'] >= LEAST_COSINE[precision]:
            files[name] = low
        else:
            report(f'  {name} is left out: its mean cosine with float32 is {cosine["mean"]}, '
                   f'needed is {LEAST_COSINE[precision]}')

    report('heads')
    if adaptation.attention:
        attention = adaptation.attention
        metrics['query'] = {'source': 'trained on the pairs below'}
    else:
        attention = TaskAttention(text.dim, backbone.channels)
        metrics['query'] = _set_query(attention, backbone, encode, tokens, sentences, options.seed)
    head = SuccessHead(
        views, backbone.channels, backbone.grid[0] * backbone.grid[1], text.dim)
    feed = success_inputs(head, views, options.length, MODES, text.dim)
    for name, module, inputs, outputs in (
            ('embed.onnx', attention, {'tokens': feed['tokens'], 'mask': feed['mask'],
                                       'task': feed['text'][0]}, ['embedding', 'attention']),
            ('success.onnx', head, feed, OUTPUTS)):
        files[name], parity[name] = masked_graph(module, inputs, outputs, report)
    metrics['parity_max_abs_diff'] = parity

    files[TOKENIZER] = _tokenizer()
    prompts = np.zeros((MODES, PROMPT_LENGTH, text.dim), np.float32)
    return write_bundle(
        output, _manifest(options, backbone, text, metrics, command, adaptation), files,
        TaskTable((), Task(FALLBACK, FALLBACK, prompts=prompts)))


def _check(output: Path, options: ExportOptions, replace_trained: bool) -> None:
    """Refuse at once what would fail, or do harm, after a minute of work."""
    views = options.views
    if not 1 <= len(views) <= 8 or len(set(views)) != len(views) or not all(views):
        raise ValueError(f'views are {", ".join(views)!r}; needed are 1 to 8 different names')
    if not 1 <= options.length <= 64:
        raise ValueError(f'clips have {options.length} frames; a bundle has 1 to 64')
    require_replaceable(output)
    require_weights(options.backbone, options.weights)
    if not replace_trained and is_trained(output):
        raise BundleError(
            f'{output}: its success head is trained, and that of the new bundle would not be. '
            'Name another folder, or give --replace')


def _released(weights: str | None, backbone: Backbone, report: Report) -> Adaptation | None:
    """Take the adapters that a file of weights has beside the backbone; None: it has none."""
    if weights in (None, RANDOM):
        return None
    checkpoint = read_checkpoint(weights)
    if not checkpoint.adapters_state:
        return None
    positions = sorted({name.partition('_')[0] for name in checkpoint.adapters_state})
    if len(positions) > 1:
        raise BundleError(
            f'{weights}: it has adapters at several places ({", ".join(positions)}), and a bundle '
            'has them at one')
    position = positions[0]
    adapters = load_adapters(checkpoint, backbone, position).eval().requires_grad_(False)
    report(f'  the {position} adapters of {Path(weights).name} are used; its query is not: it '
           'belongs to another text encoder than the one of bundles')
    return Adaptation(
        adapters, None, position, f'{position} x{len(adapters)}, from the file of weights',
        {'simulated': False, 'adapters': f'as they came in {Path(weights).name}',
         'query': 'not trained: theirs belongs to another text encoder'},
        {'adapters': backbone.license_id, 'query': 'Apache-2.0'})


def _text_graph(text: PromptedTextEncoder) -> bytes:
    """Export the text encoder with free numbers of tokens and prompts."""
    ids = torch.randint(1000, 2000, (1, 9))
    prompts = torch.zeros(MODES, PROMPT_LENGTH, text.dim)
    example = [ids, torch.ones_like(ids), prompts,
               torch.ones(prompts.shape[:2], dtype=torch.int64)]
    return torch_graph(
        text, example, inputs=['input_ids', 'attention_mask', 'prompts', 'prompt_mask'],
        outputs=['features'],
        free={'input_ids': {1: 'tokens'}, 'attention_mask': {1: 'tokens'},
              'prompts': {0: 'modes', 1: 'prompt_length'},
              'prompt_mask': {0: 'modes', 1: 'prompt_length'}})


class _TextGraph:
    """A text graph with its tokenizer, without prompts: text -> float32 [D]."""

    def __init__(self, model: bytes) -> None:
        from tokenizers import Tokenizer

        self._session = SessionFactory('cpu').create(model, name='text.onnx')
        self._tokenizer = Tokenizer.from_str(_tokenizer().decode())
        self._dim = self._session.get_outputs()[0].shape[-1]

    def __call__(self, text: str) -> Floats:
        ids = np.array([self._tokenizer.encode(text).ids], np.int64)
        features = self._session.run(None, {
            'input_ids': ids, 'attention_mask': np.ones_like(ids),
            'prompts': np.zeros((1, 1, self._dim), np.float32),
            'prompt_mask': np.zeros((1, 1), np.int64)})[0]
        return np.asarray(features[0], np.float32)


def _tokenizer() -> bytes:
    """Read MiniLM's tokenizer, without the padding that it would put behind every text."""
    tokenizer = json.loads((minilm_folder() / 'tokenizer.json').read_text('utf-8'))
    tokenizer['padding'] = None
    tokenizer['truncation'] = None
    return json.dumps(tokenizer, ensure_ascii=False, separators=(',', ':')).encode()


def _set_query(
    attention: TaskAttention, backbone: Backbone, encode: Callable[[str], Floats],
    tokens: Floats, sentences: Floats, seed: int,
) -> dict[str, Any]:
    """Set the query's weights; say in one mapping where they come from."""
    classifier = getattr(getattr(backbone.module, 'net', None), '_fc', None)
    layer = attention.query
    with torch.no_grad():
        if classifier is None:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            return {'source': 'none: attention is even until the query is trained'}
        from torchvision.models import ResNet50_Weights

        names = ResNet50_Weights.IMAGENET1K_V1.meta['categories']
        query = fit_query(classifier.weight.detach().numpy(), names, encode, seed=seed)
        query = scaled(query, tokens, sentences)
        layer.weight.copy_(torch.from_numpy(query.weight))
        layer.bias.copy_(torch.from_numpy(query.bias))
    return {
        'source': 'ridge regression from class names to ImageNet classifier weights',
        'held_out_classes': len(names) // 10,
        'held_out_median_rank': query.held_out_median_rank,
        'classes': len(names)}


def _manifest(
    options: ExportOptions, backbone: Backbone, text: PromptedTextEncoder,
    metrics: Mapping[str, Any], command: str, adaptation: Adaptation,
) -> Manifest:
    """Say everything about the bundle but its files."""
    spec = backbone.preprocessing
    packages = ('torch', 'onnx', 'onnxscript', 'onnxruntime', 'transformers', 'numpy')
    return Manifest(
        name=options.name, views=options.views, reference_view=options.views[-1],
        image_size=spec.size,
        preprocessing={
            'fit': spec.fit, 'interpolation': 'linear, antialiased',
            'mean': [round(float(v), 6) for v in spec.mean],
            'std': [round(float(v), 6) for v in spec.std]},
        clip=ClipSpec(options.length, period_s=0.2, capacity=max(32, 2 * options.length),
                      stride_s=0.1),
        tokens=TokenSpec(*backbone.grid, backbone.channels),
        text=TextSpec('all-MiniLM-L6-v2', text.dim, text.max_tokens,
                      'int8 per channel, computed in float32'),
        success=SuccessSpec(MODES, PROMPT_LENGTH, trained=False,
                            dwell_s=round(DecisionRules().dwell * 1e-9, 6)),
        backbone=BackboneSpec(backbone.name, backbone.source, backbone.license_id),
        adapter=AdapterSpec(adaptation.name, _geometry(adaptation.adapters)),
        training=adaptation.training,
        licenses={
            f'backbone {backbone.name}': backbone.license_id,
            'text encoder all-MiniLM-L6-v2': 'Apache-2.0',
            **adaptation.licenses, 'success head': 'Apache-2.0'},
        provenance={
            'command': command, 'seed': options.seed, 'opset': OPSET,
            'hralign_ros': __version__,
            'packages': {p: metadata.version(p).partition('+')[0] for p in packages}},
        metrics=metrics)


def _geometry(adapters: nn.Module) -> str:
    """Describe the first adapter's layers, from what they are."""
    layers = [m for m in adapters.modules() if isinstance(m, nn.Conv2d | nn.Linear)][:3]
    if not layers:
        return 'none'
    words = [f'{m.kernel_size[0]}x{m.kernel_size[1]} {m.in_channels} to {m.out_channels}, '
             f'groups {m.groups}' if isinstance(m, nn.Conv2d)
             else f'linear {m.in_features} to {m.out_features}' for m in layers]
    return '; '.join(words)


def _pixels(preprocess: bytes, images: Sequence[NDArray[np.uint8]]) -> Floats:
    """Preprocess images of any size to float32 [B, 3, S, S]."""
    session = SessionFactory('cpu').create(preprocess, name='preprocess.onnx')
    return np.concatenate([session.run(None, {'image': p[None]})[0] for p in images])


def _cosine_summary(one: Floats, other: Floats) -> dict[str, float]:
    """Mean and least cosine between the rows of two arrays."""
    cosine = (one * other).sum(1) / (
        np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return {'mean': round(float(cosine.mean()), 5), 'min': round(float(cosine.min()), 5),
            'n': len(cosine)}
