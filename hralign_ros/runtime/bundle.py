# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The bundle: a directory that says everything about itself, verified before anything is run.

bundle.yaml lists every other file with its size and SHA-256. A file is read once; the bytes that
were hashed are the bytes that are used. The SHA-256 of bundle.yaml itself therefore names the
whole bundle, and is what messages carry; a signature over it (bundle.sig) covers all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
import os
from pathlib import Path
from typing import Annotated, Any

from hralign_ros.runtime import signature
from hralign_ros.runtime.errors import BundleError, SignatureError
from hralign_ros.runtime.files import load_yaml, MAX_YAML_BYTES, NotPlainError, read_bounded
from hralign_ros.runtime.schema import in_brief, Limits, parse, Text
from hralign_ros.runtime.signature import SIGNATURE

# 3: every key is declared below or in tasks.py; what is not declared is refused.
SCHEMA_VERSION = 3
MANIFEST = 'bundle.yaml'
GRAPHS = ('preprocess.onnx', 'visual.onnx', 'embed.onnx', 'success.onnx', 'text.onnx')
# The visual graph of each precision; a bundle need not have more than the first.
VISUALS = {'fp32': 'visual.onnx', 'fp16': 'visual.fp16.onnx', 'int8': 'visual.int8.onnx'}
# Makes the parts `spatial` and `keypoints` of an embedding. Optional, and known by its name alone,
# so that it needs no new schema version: an older runtime reads a bundle with it, and leaves it
# aside; this one reads older bundles, and offers the other parts.
SPATIAL = 'spatial.onnx'
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

    length: Annotated[int, Limits(1, 64)]
    period_s: Annotated[float, Limits(1e-3, 60.0)]
    capacity: Annotated[int, Limits(2, 4096)]
    stride_s: Annotated[float, Limits(1e-3, 60.0)]

    def __post_init__(self) -> None:
        if self.capacity < 2 * self.length:
            raise ValueError(f'capacity is {self.capacity}; needed is twice the length or more')


@dataclass(frozen=True)
class TokenSpec:
    """
    What the visual graph makes of an image.

    :param rows: of a token map; rows x columns is N, the tokens in one frame of one view.
    :param channels: C, length of a token and of an embedding.
    """

    rows: Annotated[int, Limits(1, 64)]
    columns: Annotated[int, Limits(1, 64)]
    channels: Annotated[int, Limits(1, 8192)]

    @property
    def count(self) -> int:
        """N, tokens in one frame of one view."""
        return self.rows * self.columns

    @property
    def shape(self) -> tuple[int, int]:
        """N and C: one frame of one view."""
        return self.count, self.channels

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns


@dataclass(frozen=True)
class TextSpec:
    """
    The text encoder.

    :param dim: D, length of a text feature.
    :param max_tokens: most text tokens it takes, special ones included.
    :param weights: how they are stored.
    """

    encoder: Text
    dim: Annotated[int, Limits(1, 8192)]
    max_tokens: Annotated[int, Limits(1, 8192)]
    weights: str = ''


@dataclass(frozen=True)
class SuccessTraining:
    """
    What a success head was trained on, and how.

    :param embodiments: the arms in its attempts.
    :param all_robots: arms that are otherwise held out for tests are among them.
    :param leave_out: the arm that was held out; empty: none.
    """

    episodes: int
    successes: int
    human_recordings: int
    scenes: int
    embodiments: tuple[Text, ...]
    sources: tuple[Text, ...]
    licenses: tuple[str, ...]
    tasks: int
    seed: int
    command: str
    head_sha256: str
    all_robots: bool
    leave_out: str = ''


@dataclass(frozen=True)
class SuccessSpec:
    """
    The success head.

    :param modes: K, failure prompts per task.
    :param prompt_length: L, vectors per failure prompt.
    :param trained: false: its weights are random.
    :param grounded: success.onnx also takes fine tokens, in which it looks for what the
        instruction names.
    :param dwell_s: how long the probability had to stay above thresholds when these were
        calibrated; a shorter time breaks their guarantee.
    :param command: that calibrated it.
    :param metrics: what was measured, for people: rows by the metric's name.
    """

    modes: Annotated[int, Limits(1, 16)]
    prompt_length: Annotated[int, Limits(1, 64)]
    trained: bool
    dwell_s: Annotated[float, Limits(0.0, 60.0)]
    grounded: bool = False
    training: SuccessTraining | None = None
    command: str = ''
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadSpec:
    """
    A head beside the success head, which scores its own tasks: those that name its file.

    :param grounded: it takes fine tokens, in which it looks for what the instruction names.
    :param command: that calibrated it.
    :param metrics: what was measured, for people: rows by the metric's name.
    """

    training: SuccessTraining
    grounded: bool = False
    command: str = ''
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OodSpec:
    """
    The out-of-distribution score.

    :param threshold: results with a higher score are out of distribution.
    :param score: what the score is.
    """

    threshold: Annotated[float, Limits(-1e9, 1e9)]
    score: str = ''


@dataclass(frozen=True)
class BackboneSpec:
    """Name, origin and licence of the backbone."""

    name: Text
    source: str = ''
    license: str = ''  # noqa: A003


@dataclass(frozen=True)
class AdapterSpec:
    """Name of the adapters and the layers of the first."""

    name: Text
    geometry: str = ''


@dataclass(frozen=True)
class FileEntry:
    """Size and SHA-256 of a file, 64 hexadecimal digits."""

    bytes: Annotated[int, Limits(0, MAX_FILE_BYTES)]  # noqa: A003
    sha256: Annotated[str, Limits(64, 64)]


@dataclass(frozen=True)
class Manifest:
    """
    What bundle.yaml says.

    :param views: names of the camera views in the order of the graphs' first axis.
    :param image_size: S, side of the image that the backbone takes.
    :param fine: of the reference view, which then is the last one, a finer map that the visual
        graph makes as well, of an earlier stage and with fewer channels: where small things are;
        None: it makes none.
    :param ood: None: no threshold is known.
    :param heads: that stand beside the success head, by their file.
    :param licenses: part -> licence, SPDX where there is one.
    :param preprocessing: for people, like `training`, `provenance` and `metrics`.
    :param training: what the adapters were trained on; None: they are not.
    :param files: all other files of the bundle, by name; the writer fills them in.
    """

    name: Text
    views: Annotated[tuple[Text, ...], Limits(1, 8)]
    reference_view: Text
    image_size: Annotated[int, Limits(16, 1024)]
    clip: ClipSpec
    tokens: TokenSpec
    text: TextSpec
    success: SuccessSpec
    backbone: BackboneSpec
    adapter: AdapterSpec
    licenses: Mapping[str, str]
    fine: TokenSpec | None = None
    ood: OodSpec | None = None
    heads: Mapping[str, HeadSpec] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.views)) != len(self.views):
            raise ValueError(f'views are {", ".join(self.views)}; needed are different names')
        if self.reference_view not in self.views:
            raise ValueError(f'reference_view is {in_brief(self.reference_view)}; needed is one '
                             f'of {", ".join(self.views)}')
        if self.fine and self.views[-1] != self.reference_view:
            raise ValueError(f'views are {", ".join(self.views)}; needed is '
                             f'{self.reference_view} as the last, as fine tokens are of that one')
        if self.success.grounded and self.fine is None:
            raise ValueError('success.grounded is true, and fine is missing; needed are '
                             'fine tokens to look at')
        if self.text.max_tokens < self.success.prompt_length + 8:
            raise ValueError(
                f'text.max_tokens is {self.text.max_tokens}; needed are '
                f'{self.success.prompt_length + 8} or more, to have room for a task beside its '
                'prompts')

    @property
    def robots(self) -> tuple[str, ...]:
        """Arms in the attempts that its heads were trained on; empty: it does not say."""
        return tuple(dict.fromkeys(arm for one in self.trained for arm in one.embodiments))

    @property
    def trained(self) -> tuple[SuccessTraining, ...]:
        """Give what its heads were trained on: first of the success head, where it says."""
        own = (self.success.training,) if self.success.training else ()
        return (*own, *(head.training for head in self.heads.values()))

    @property
    def ood_threshold(self) -> float | None:
        """OOD score above which results are out of distribution; None: unknown."""
        return self.ood.threshold if self.ood else None


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
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f'{self.path}: {MANIFEST} does not list {name}')
        path = self.home / name
        data = _read(path, entry.bytes)
        if len(data) != entry.bytes:
            came = f'{len(data)} bytes' if len(data) < entry.bytes else 'more bytes than that'
            raise BundleError(
                f'{path}: {MANIFEST} says {entry.bytes} bytes, and there are {came}; the file '
                'was cut or replaced. Copy or export the bundle again')
        digest = sha256(data).hexdigest()
        if digest != entry.sha256:
            raise BundleError(
                f'{path}: SHA-256 is {digest[:12]}..., but {MANIFEST} says '
                f'{entry.sha256[:12]}...; the file was damaged or replaced. Copy or export '
                'the bundle again')
        return data

    def has(self, name: str) -> bool:
        """Whether the bundle lists a file, for the optional ones."""
        return name in self.manifest.files

    @property
    def size(self) -> int:
        """How many bytes the files that it lists have together."""
        return sum(entry.bytes for entry in self.manifest.files.values())


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
    try:
        manifest = _parse(document)
    except ValueError as error:
        raise BundleError(f'{source}: {error}') from error
    return Bundle(folder, manifest, sha256(data).hexdigest(), real.parent, signed_by)


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
    return signature.verify(data, signed, keys, folder=home)


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
    for name in bundle.manifest.files:
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


def _parse(document: Any) -> Manifest:
    """
    Check every field that the runtime depends on.

    :raises ValueError: another schema version, or a field that is missing or senseless.
    """
    version = document.pop('schema_version', None) if isinstance(document, dict) else 0
    if isinstance(document, dict) and (type(version) is not int or version != SCHEMA_VERSION):
        raise ValueError(
            f'schema_version is {in_brief(version)}; this version of hralign_ros reads '
            f'{SCHEMA_VERSION}. Update hralign_ros, or export the bundle again')
    manifest = parse(Manifest, document)
    for name, entry in manifest.files.items():
        if Path(name).name != name or '\0' in name or name in ('', '..', MANIFEST, SIGNATURE):
            raise ValueError(
                f'files lists {in_brief(name)}; only plain file names are allowed')
        if entry.bytes > _MAX_BYTES.get(name, MAX_FILE_BYTES):
            raise ValueError(
                f'files.{name}.bytes is {entry.bytes}; allowed are {_MAX_BYTES[name]}')
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > MAX_BUNDLE_BYTES:
        raise ValueError(
            f'its files have {total} bytes together; allowed are {MAX_BUNDLE_BYTES}')
    missing = [name for name in REQUIRED_FILES if name not in manifest.files]
    if missing:
        raise ValueError(f'files lacks {", ".join(missing)}; export the bundle again')
    return manifest
