# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From an instruction to text features, each computed once."""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock

from hralign_ros.runtime.bundle import Bundle, TOKENIZER
from hralign_ros.runtime.errors import BundleError, import_package, InferenceError, TaskError
from hralign_ros.runtime.graphs import Graph
from hralign_ros.runtime.providers import SessionFactory, Tensor
from hralign_ros.runtime.tasks import check_task, Task, TaskTable
import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]

# Instructions kept; one entry is a few kilobytes.
_CACHE_SIZE = 256


@dataclass(frozen=True)
class TaskFeatures:
    """
    An instruction as the graphs take it.

    :param text: the instruction as it was set; empty: none. One that names a task of the bundle is
        encoded by that task's own name, for which its prompts, calibrations and thresholds are.
    :param task: the task of the bundle that it names, or a fallback task.
    :param known: whether `task` is one of the bundle's own.
    :param features: float32 [1 + K, D], each of norm 1: the instruction itself, then one row per
        failure prompt appended to it.
    :param instruction_sha256: of what the text encoder was given, which the parts `task` and
        `clip` of an embedding depend on: two spellings that are the same to the tokenizer have the
        same. 64 hexadecimal digits; empty: no instruction.
    """

    text: str
    task: Task
    known: bool
    features: Features
    instruction_sha256: str = ''


class TextEncoder:
    """
    The frozen text encoder with its tokenizer. Safe to use from several threads.

    :raises BundleError: the graph or the tokenizer does not fit the bundle.
    """

    def __init__(self, bundle: Bundle, tasks: TaskTable, factory: SessionFactory) -> None:
        tokenizers = import_package('tokenizers', BundleError)
        manifest = bundle.manifest
        dim = manifest.text.dim
        self._tasks = tasks
        self._max_tokens = manifest.text.max_tokens - manifest.success.prompt_length
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(bundle.read(TOKENIZER).decode())
        except BundleError:
            raise
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(f'{bundle.path / TOKENIZER}: {str(error)[:300]}') from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # On the CPU always: it runs once per instruction, and its memory is better used elsewhere.
        self._graph = Graph(
            bundle.read('text.onnx'), name='text.onnx', factory=factory, on_cpu=True,
            inputs=[
                Tensor('input_ids', 'int64', (1, None)),
                Tensor('attention_mask', 'int64', (1, None)),
                Tensor('prompts', 'float32', (None, None, dim)),
                Tensor('prompt_mask', 'int64', (None, None)),
            ],
            outputs=[Tensor('features', 'float32', (None, dim))])
        self._names: Features | None = None
        self._cache: OrderedDict[str, TaskFeatures] = OrderedDict()
        self._lock = Lock()

    def encode(self, text: str) -> TaskFeatures:
        """
        Turn an instruction into features; of an empty one they are zeros.

        :raises TaskError: too long, control characters, or more tokens than the encoder takes.
        :raises InferenceError: the bundle's tokenizer or graph failed.
        """
        text = check_task(text)
        with self._lock:
            if text in self._cache:
                self._cache.move_to_end(text)
                return self._cache[text]
        known = self._tasks.match(text) if text else None
        task = known or self._tasks.fallback
        digest = ''
        if text:
            words = known.name if known else text
            features, digest = self._run(words, task.prompts), self.words_sha256(words)
            if not known and self._tasks.others:
                task = self._tasks.spare(self._nearest(features[0], 1)[0][0])
        else:
            features = np.zeros(
                (1 + task.prompts.shape[0], task.prompts.shape[2]), np.float32)
        result = TaskFeatures(text, task, known is not None, features, digest)
        with self._lock:
            self._cache[text] = result
            while len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        return result

    def words_sha256(self, words: str) -> str:
        """Identify words as the text encoder is given them, see TaskFeatures."""
        return sha256(np.array(self._ids(words), '<i8').tobytes()).hexdigest()

    def encode_names(self) -> Features:
        """
        Encode the names of all tasks, once: float32 [tasks, D].

        It takes milliseconds for each, so it is part of warming up, and not of an instruction.
        """
        if self._names is None:
            prompts = self._tasks.fallback.prompts[:1]
            rows = [self._run(task.name, prompts)[0] for task in self._tasks.tasks]
            self._names = np.stack(rows) if rows else np.zeros((0, prompts.shape[2]), np.float32)
        return self._names

    def nearest(self, features: TaskFeatures, most: int = 5) -> list[tuple[Task, float]]:
        """Name the tasks of the bundle that are closest in meaning, with cosines, best first."""
        if not features.text or not self._tasks.tasks:
            return []
        return self._nearest(features.features[0], most)

    def _nearest(self, text: Features, most: int) -> list[tuple[Task, float]]:
        cosines = self.encode_names() @ text
        return [(self._tasks.tasks[i], float(cosines[i]))
                for i in np.argsort(-cosines, kind='stable')[:most]]

    def encode_with(self, text: str, prompts: Features) -> Features:
        """
        Encode an instruction with prompts that are no task's of the bundle (yet).

        :param prompts: float32 [K, L, D].
        :returns: float32 [1 + K, D], see TaskFeatures.
        :raises TaskError: as `encode`.
        """
        return self._run(check_task(text), prompts)

    def _ids(self, text: str) -> list[int]:
        """Cut a text into tokens."""
        try:
            return list(self._tokenizer.encode(text).ids)
        except Exception as error:  # tokenizers raises plain Exception
            raise InferenceError(f'{TOKENIZER} failed: {str(error)[:300]}') from error

    def _run(self, text: str, prompts: Features) -> Features:
        ids = self._ids(text)
        if len(ids) > self._max_tokens:
            raise TaskError(
                f'the task has {len(ids)} tokens; the text encoder takes {self._max_tokens}. '
                'It is not cut: say it shorter')
        tokens = np.array([ids], np.int64)
        modes, length = prompts.shape[:2]
        features = self._graph.run({
            'input_ids': tokens,
            'attention_mask': np.ones_like(tokens),
            'prompts': prompts,
            'prompt_mask': np.ones((modes, length), np.int64),
        })[0]
        if len(features) != 1 + modes or not np.isfinite(features).all():
            raise InferenceError(
                f'text.onnx returned {len(features)} features, or some that are not finite; '
                f'needed are {1 + modes}. Export the bundle again')
        return np.asarray(features, np.float32)
