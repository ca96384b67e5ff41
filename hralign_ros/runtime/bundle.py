# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The bundle: a directory that says everything about itself, verified before anything is run.

bundle.yaml lists every other file with its size and SHA-256. A file is read once; the bytes that
were hashed are the bytes that are used. The SHA-256 of bundle.yaml itself therefore names the
whole bundle, and is what messages carry; a signature over it (bundle.sig) covers all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
import os
from pathlib import Path
from reprlib import Repr
from typing import Any

from hralign_ros.runtime import signature
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.errors import BundleError, SignatureError
from hralign_ros.runtime.files import load_yaml, MAX_YAML_BYTES, NotPlainError, read_bounded
from hralign_ros.runtime.signature import SIGNATURE

# 2: success.onnx also says how likely the attempt has failed; calibrations by set of views.
SCHEMA_VERSION = 2
MANIFEST = 'bundle.yaml'
GRAPHS = ('preprocess.onnx', 'visual.onnx', 'embed.onnx', 'success.onnx', 'text.onnx')
# The visual graph of each precision; a bundle need not have more than the first.
VISUALS = {'fp32': 'visual.onnx', 'fp16': 'visual.fp16.onnx', 'int8': 'visual.int8.onnx'}
TOKENIZER = 'tokenizer.json'
TASKS = 'tasks.yaml'
TASK_TENSORS = 'tasks.safetensors'
CARD = 'card.md'
REQUIRED_FILES = (*GRAPHS, TOKENIZER, TASKS, TASK_TENSORS, CARD)

# Larger files are refused before anything of them is read. No ONNX file can exceed 2 GiB; the
# others are orders of magnitude above what the shipped bundle has.
MAX_FILE_BYTES = 2 << 30
MAX_BUNDLE_BYTES = 8 << 30
_MAX_BYTES = {TASKS: MAX_YAML_BYTES, TOKENIZER: 64 << 20, TASK_TENSORS: 256 << 20}


@dataclass(frozen=True)
class ClipSpec:
    """
    How clips are sampled from an episode's memory.

    :param length: T, frames in a clip.
    :param period_s: time between the frames of the embedding's clip.
    :param capacity: most frame sets kept over an episode.
    :param stride_s: initial spacing of those.
    """

    length: int
    period_s: float
    capacity: int
    stride_s: float


@dataclass(frozen=True)
class Manifest:
    """
    What bundle.yaml says.

    :param views: names of the camera views in the order of the graphs' first axis.
    :param token_grid: rows and columns of a token map; their product is N.
    :param channels: C, length of a token and of an embedding.
    :param image_size: S, side of the image that the backbone takes.
    :param text_dim: D, length of a text feature.
    :param max_tokens: most text tokens the text encoder takes, special ones included.
    :param modes: K, failure prompts per task.
    :param prompt_length: L, vectors per failure prompt.
    :param success_dwell_s: how long the probability had to stay above thresholds when these were
        calibrated; a shorter time breaks their guarantee.
    :param success_trained: false: the success head's weights are random.
    :param ood_threshold: results with a higher OOD score are out of distribution; None: unknown.
    :param licenses: part -> licence, SPDX where there is one.
    :param document: the whole of bundle.yaml, for what only people read.
    """

    name: str
    views: tuple[str, ...]
    reference_view: str
    clip: ClipSpec
    token_grid: tuple[int, int]
    channels: int
    image_size: int
    text_dim: int
    max_tokens: int
    modes: int
    prompt_length: int
    success_dwell_s: float
    success_trained: bool
    ood_threshold: float | None
    backbone: str
    adapter: str
    text_encoder: str
    licenses: Mapping[str, str]
    document: Mapping[str, Any]

    @property
    def tokens(self) -> int:
        """N, tokens in one frame of one view."""
        return self.token_grid[0] * self.token_grid[1]

    @property
    def robots(self) -> tuple[str, ...]:
        """Arms in the attempts that the success head was trained on; empty: it does not say."""
        training = self.document['success'].get('training')
        names = training.get('embodiments') if isinstance(training, dict) else None
        return tuple(filter(_is_text, names)) if isinstance(names, list) else ()


@dataclass(frozen=True)
class Bundle:
    """
    A verified bundle.

    :param path: its directory, as it was named.
    :param sha256: hexadecimal hash of bundle.yaml, which holds the hashes of all other files.
    :param home: the directory in which bundle.yaml really lies, links followed.
    :param signed_by: id of the trusted key that signed it; empty: no signature was checked.
    """

    path: Path
    manifest: Manifest
    sha256: str
    home: Path
    signed_by: str = ''

    def read(self, name: str) -> bytes:
        """
        Read one file of the bundle and verify it.

        :raises BundleError: not listed, missing, or changed since the bundle was written.
        """
        entry = self.manifest.document['files'].get(name)
        if entry is None:
            raise BundleError(f'{self.path}: {MANIFEST} does not list {name}')
        path = self.home / name
        data = _read(path, entry['bytes'])
        if len(data) != entry['bytes']:
            came = f'{len(data)} bytes' if len(data) < entry['bytes'] else 'more bytes than that'
            raise BundleError(
                f'{path}: {MANIFEST} says {entry["bytes"]} bytes, and there are {came}; the file '
                'was cut or replaced. Copy or export the bundle again')
        digest = sha256(data).hexdigest()
        if digest != entry['sha256']:
            raise BundleError(
                f'{path}: SHA-256 is {digest[:12]}..., but {MANIFEST} says '
                f'{entry["sha256"][:12]}...; the file was damaged or replaced. Copy or export '
                'the bundle again')
        return data

    def has(self, name: str) -> bool:
        """Whether the bundle lists a file, for the optional ones."""
        return name in self.manifest.document['files']

    @property
    def size(self) -> int:
        """How many bytes the files that it lists have together."""
        return sum(entry['bytes'] for entry in self.manifest.document['files'].values())


def load_bundle(
    path: str | os.PathLike[str],
    *,
    trusted_keys: Sequence[str | os.PathLike[str]] = (),
    require_signature: bool = False,
) -> Bundle:
    """
    Read and check bundle.yaml; the files it lists are verified as they are read.

    :param path: the bundle's directory.
    :param trusted_keys: PEM files of public keys; a signature is checked where there are any.
    :param require_signature: refuse a bundle without one.
    :raises BundleError: no bundle there, another schema version, missing or senseless fields.
    :raises SignatureError: a signature that is missing or wrong, or a key that cannot be used.
    """
    try:
        folder = Path(path).expanduser()
    except RuntimeError as error:
        raise BundleError(f'{path}: {error} A whole path is needed') from error
    if not folder.is_dir():
        raise BundleError(
            f'{folder}: no such directory; a bundle is the directory with {MANIFEST} in it')
    source = folder / MANIFEST
    # colcon --symlink-install makes a link of every file. So links are followed once and for
    # all, here: the other files have to lie where bundle.yaml really does.
    try:
        real = source.resolve()
    except (OSError, RuntimeError) as error:
        raise BundleError(f'{source}: a link that leads nowhere; copy the bundle again') from error
    data = _read(real, MAX_YAML_BYTES)
    if len(data) > MAX_YAML_BYTES:
        raise BundleError(f'{source}: larger than {MAX_YAML_BYTES} bytes; no bundle is')
    # Before anything is made of the bytes that are signed.
    signed_by = _signer(data, real.parent, trusted_keys, require_signature)
    try:
        document = load_yaml(data)
    except Exception as error:  # PyYAML's constructors raise whatever they run into
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise BundleError(f'{source}: not YAML as a bundle has it ({reason})') from error
    return Bundle(
        folder, _parse(document, source), sha256(data).hexdigest(), real.parent, signed_by)


def _read(path: Path, limit: int) -> bytes:
    """
    Read a file of a bundle, one byte more than `limit` where it is larger.

    :raises BundleError: missing, unreadable, a link, a device.
    """
    try:
        return read_bounded(path, limit)
    except NotPlainError as error:
        raise BundleError(
            f'{path}: {error.strerror}; only files are allowed. Copy the bundle again with what '
            'its links lead to (cp -rL)') from error
    except OSError as error:
        hint = f'is {path.parent} a bundle?' if path.name == MANIFEST \
            else 'copy or export the bundle again'
        raise BundleError(f'{path}: cannot be read ({error.strerror}); {hint}') from error


def _signer(
    data: bytes, home: Path, trusted_keys: Sequence[str | os.PathLike[str]], required: bool,
) -> str:
    """
    Check the signature as far as it is asked for; return the id of the key it was made with.

    :param data: the bytes of bundle.yaml.
    """
    if required and not trusted_keys:
        raise SignatureError(
            'a signature is required, but no trusted keys are given; set trusted_keys to the PEM '
            'files of public keys, or require_signature to false')
    if not trusted_keys:
        return ''
    keys = signature.read_public_keys(trusted_keys)
    if not os.path.lexists(home / SIGNATURE):
        if not required:
            return ''
        raise SignatureError(
            f'{home}: it has no signature ({SIGNATURE}), and one is required; sign it with '
            '`hralign bundle sign`, or set require_signature to false')
    signed = _read(home / SIGNATURE, signature.MAX_SIGNATURE_BYTES)
    return signature.verify(data, signed, keys, folder=home).key_id


def sign_bundle(
    path: str | os.PathLike[str], private_key: str | os.PathLike[str],
) -> tuple[Path, str]:
    """
    Verify every file of a bundle, then sign bundle.yaml; an earlier signature is replaced.

    :param private_key: PEM file of an Ed25519 private key.
    :returns: the file of the signature, and the id of the key.
    :raises BundleError: the bundle is damaged: nobody should vouch for it.
    :raises SignatureError: the key cannot be used, or the signature cannot be written.
    """
    bundle = load_bundle(path)
    for name in bundle.manifest.document['files']:
        bundle.read(name)
    data = _read(bundle.home / MANIFEST, MAX_YAML_BYTES)
    if sha256(data).hexdigest() != bundle.sha256:
        raise BundleError(f'{bundle.home / MANIFEST}: it was changed just now; sign it again')
    line, key_id = signature.sign(data, private_key)
    target, fresh = bundle.home / SIGNATURE, bundle.home / f'{SIGNATURE}.new'
    try:
        fresh.write_bytes(line)
        fresh.replace(target)
    except OSError as error:
        raise SignatureError(
            f'{target}: cannot be written ({error.strerror}); sign a copy of the bundle that you '
            'may write to') from error
    return target, key_id


class _Brief(Repr):

    def repr_int(self, value: int, level: int) -> str:
        """Print a number that Python itself may refuse to print."""
        return repr(value) if value.bit_length() <= 128 else f'{value.bit_length()} bits long'


_BRIEF = _Brief()
_BRIEF.maxlevel = 2


def in_brief(value: Any) -> str:
    """Print a value of YAML: in full its aliases multiply, and its numbers have no end."""
    return _BRIEF.repr(value)


def _is_text(value: Any) -> bool:
    """Whether a message can carry a value as text; YAML can spell halves of characters."""
    return isinstance(value, str) and not any('\ud800' <= c <= '\udfff' for c in value)


class _Fields:
    """Typed access to a YAML mapping; every complaint names the file and the key."""

    def __init__(self, document: Any, source: Path, prefix: str = '') -> None:
        if not isinstance(document, dict):
            where = prefix.rstrip('.') or 'the document'
            raise BundleError(f'{source}: {where} is not a mapping')
        self._document = document
        self._source = source
        self._prefix = prefix

    def section(self, key: str) -> '_Fields':
        return _Fields(self._document.get(key), self._source, f'{self._prefix}{key}.')

    def fail(self, key: str, need: str) -> BundleError:
        came = f'is {in_brief(self._document[key])}' if key in self._document else 'is missing'
        return BundleError(f'{self._source}: {self._prefix}{key} {came}; needed is {need}')

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._document.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f'a whole number from {low} to {high}')
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self._document.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) \
                or not low <= value <= high:
            raise self.fail(key, f'a number from {low} to {high}')
        return float(value)

    def text(self, key: str) -> str:
        value = self._document.get(key)
        if not _is_text(value) or not value:
            raise self.fail(key, 'a text')
        return str(value)

    def flag(self, key: str) -> bool:
        value = self._document.get(key)
        if not isinstance(value, bool):
            raise self.fail(key, 'true or false')
        return value

    def names(self, key: str, most: int) -> tuple[str, ...]:
        value = self._document.get(key)
        if not isinstance(value, list) or not 1 <= len(value) <= most \
                or not all(_is_text(v) and v for v in value) \
                or len(set(value)) != len(value):
            raise self.fail(key, f'a list of 1 to {most} different names')
        return tuple(value)

    def texts(self, key: str) -> dict[str, str]:
        value = self._document.get(key)
        if not isinstance(value, dict) or not all(
                _is_text(k) and _is_text(v) for k, v in value.items()):
            raise self.fail(key, 'a mapping of texts')
        return value


def _parse(document: Any, source: Path) -> Manifest:
    """Check every field that the runtime depends on."""
    top = _Fields(document, source)
    version = document.get('schema_version')
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f'{source}: schema_version is {in_brief(version)}; this version of hralign_ros reads '
            f'{SCHEMA_VERSION}. Update hralign_ros, or export the bundle again')
    views = top.names('views', 8)
    reference = top.text('reference_view')
    if reference not in views:
        raise top.fail('reference_view', f'one of {", ".join(views)}')
    clip = top.section('clip')
    tokens = top.section('tokens')
    text = top.section('text')
    success = top.section('success')
    length = clip.integer('length', 1, 64)
    files = top.section('files')
    total = 0
    for name in document['files']:
        if not _is_text(name) or Path(name).name != name or '\0' in name \
                or name in ('', '..', MANIFEST, SIGNATURE):
            raise BundleError(
                f'{source}: files lists {in_brief(name)}; only plain file names are allowed')
        entry = files.section(name)
        total += entry.integer('bytes', 0, _MAX_BYTES.get(name, MAX_FILE_BYTES))
        if len(entry.text('sha256')) != 64:
            raise entry.fail('sha256', '64 hexadecimal digits')
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(
            f'{source}: its files have {total} bytes together; allowed are {MAX_BUNDLE_BYTES}')
    missing = [name for name in REQUIRED_FILES if name not in document['files']]
    if missing:
        raise BundleError(f'{source}: files lacks {", ".join(missing)}; export the bundle again')
    prompt_length = success.integer('prompt_length', 1, 64)
    max_tokens = text.integer('max_tokens', prompt_length + 8, 8192)
    ood = document.get('ood')
    return Manifest(
        name=top.text('name'),
        views=views,
        reference_view=reference,
        clip=ClipSpec(
            length=length,
            period_s=clip.number('period_s', 1e-3, 60.0),
            capacity=clip.integer('capacity', 2 * length, 4096),
            stride_s=clip.number('stride_s', 1e-3, 60.0)),
        token_grid=(tokens.integer('rows', 1, 64), tokens.integer('columns', 1, 64)),
        channels=tokens.integer('channels', 1, 8192),
        image_size=top.integer('image_size', 16, 1024),
        text_dim=text.integer('dim', 1, 8192),
        max_tokens=max_tokens,
        modes=success.integer('modes', 1, 16),
        prompt_length=prompt_length,
        # Bundles that do not say it were calibrated with the default of the decision.
        success_dwell_s=success.number('dwell_s', 0.0, 60.0) if 'dwell_s' in document['success']
        else DecisionRules().dwell * 1e-9,
        success_trained=success.flag('trained'),
        ood_threshold=None if ood is None else top.section('ood').number(
            'threshold', -1e9, 1e9),
        backbone=top.section('backbone').text('name'),
        adapter=top.section('adapter').text('name'),
        text_encoder=text.text('encoder'),
        licenses=top.texts('licenses'),
        document=document)
