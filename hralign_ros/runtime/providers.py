# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Onnxruntime sessions that tell the truth about where they run.

Without a working CUDA, onnxruntime-gpu still lists the CUDA provider and silently builds a CPU
session; so what was asked for and what was obtained are compared, and both are reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from hralign_ros.runtime.errors import BundleError, first_line, import_package, ProviderError
import numpy as np
from numpy.typing import NDArray

PROVIDERS = ('auto', 'cpu', 'cuda')
# As onnxruntime calls them.
_CPU, CUDA_PROVIDER = 'CPUExecutionProvider', 'CUDAExecutionProvider'
_DISTRIBUTIONS = ('onnxruntime', 'onnxruntime-gpu')
INSTALL_LINE = 'pip install onnxruntime (CPU) or pip install onnxruntime-gpu[cuda,cudnn] (CUDA)'


def import_onnxruntime() -> Any:
    """
    Import onnxruntime.

    :raises ProviderError: it is not installed; the message has the line that installs it.
    """
    return import_package('onnxruntime', ProviderError, f'install one: {INSTALL_LINE}')


def installed_distributions() -> list[str]:
    """Name the onnxruntime distributions installed, with versions; two are one too many."""
    found = []
    for name in _DISTRIBUTIONS:
        try:
            found.append(f'{name} {metadata.version(name)}')
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Tensor:
    """
    One input or output of a graph.

    :param dtype: numpy's name of the element type.
    :param shape: sizes; None where any size has to be taken.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Binding:
    """
    A session whose inputs and outputs stay in one place on a device: no allocation in a tick.

    A recorded CUDA graph needs that, as it knows its tensors by their addresses.

    :param device: onnxruntime's name of it: cuda or cpu.
    :raises ProviderError: there is not enough memory on the device.
    """

    def __init__(
        self, ort: Any, session: Any, inputs: Sequence[Tensor],
        outputs: Sequence[Tensor], device: str,
    ) -> None:
        self._session, self._binding = session, session.io_binding()
        self._inputs, self._outputs = {}, []
        self._places = {tensor.name: tensor for tensor in inputs}
        try:
            for tensor in inputs:
                self._inputs[tensor.name] = ort.OrtValue.ortvalue_from_numpy(
                    np.zeros([size or 0 for size in tensor.shape], tensor.dtype), device, 0)
                self._binding.bind_ortvalue_input(tensor.name, self._inputs[tensor.name])
            for tensor in outputs:
                self._outputs.append(ort.OrtValue.ortvalue_from_shape_and_type(
                    list(tensor.shape), np.dtype(tensor.dtype).type, device, 0))
                self._binding.bind_ortvalue_output(tensor.name, self._outputs[-1])
        except Exception as error:  # onnxruntime raises a dozen types without a common base
            raise ProviderError(
                f'{device}: no place for the tensors of a graph ({first_line(error)}); set '
                'cuda_graph to false, or end what else uses the device') from error

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Copy the inputs in, run, and copy the outputs out, in their order."""
        for name, value in self._inputs.items():
            array = np.ascontiguousarray(feed[name])
            needed = self._places[name]
            # onnxruntime would copy the bytes of any array with as many elements.
            if array.shape != needed.shape or array.dtype != needed.dtype:
                raise ValueError(f'input {name} is {array.dtype} {list(array.shape)}, needed is '
                                 f'{needed.dtype} {list(needed.shape)}')
            value.update_inplace(array)
        self._session.run_with_iobinding(self._binding)
        return [np.array(value.numpy()) for value in self._outputs]


@dataclass(frozen=True)
class Hardware:
    """
    Where sessions run.

    :param requested: what was asked for, one of PROVIDERS.
    :param provider: onnxruntime's name of the execution provider that was really obtained.
    :param remark: why the two differ, or what else a person should know; may be empty.
    """

    requested: str
    provider: str
    remark: str = ''


class SessionFactory:
    """
    Make sessions on one provider with one set of options.

    :param provider: one of PROVIDERS; auto takes CUDA where onnxruntime offers it, else the CPU.
    :param require_gpu: refuse to run on a CPU.
    :param cuda_graph: on a GPU, record graphs whose shapes are fixed and replay them as one
        launch, with inputs and outputs that stay in one place there. No effect on a CPU.
    :param threads: threads of one operator on the CPU, at least 1.
    :raises ProviderError: unknown provider, GPU required but not offered, no onnxruntime.
    """

    def __init__(self, provider: str = 'auto', *, require_gpu: bool = False,
                 cuda_graph: bool = False, threads: int = 2) -> None:
        if provider not in PROVIDERS:
            raise ProviderError(
                f"provider is '{provider}'; allowed: {', '.join(PROVIDERS)}")
        if threads < 1:
            raise ProviderError(f'threads is {threads}; it must be at least 1')
        if require_gpu and provider == 'cpu':
            raise ProviderError(
                "require_gpu is set together with provider 'cpu'; ask for 'cuda' or 'auto'")
        self._ort = import_onnxruntime()
        self._requested = provider
        self._require_gpu = require_gpu
        self._cuda_graph = cuda_graph
        self._threads = threads
        self._obtained: str | None = None
        # Asked once: looking through all packages takes milliseconds.
        self._installed = installed_distributions()
        offered = self._ort.get_available_providers()
        self._wants_cuda = provider == 'cuda' or (
            provider == 'auto' and CUDA_PROVIDER in offered)
        if self._wants_cuda and CUDA_PROVIDER in offered and hasattr(self._ort, 'preload_dlls'):
            # Loads CUDA and cuDNN from their wheels.
            self._ort.preload_dlls()
        if CUDA_PROVIDER not in offered and (require_gpu or provider == 'cuda'):
            raise ProviderError(
                f"a GPU is asked for (provider '{provider}', require_gpu "
                f'{str(require_gpu).lower()}), but this onnxruntime offers '
                f'{", ".join(offered)}; installed: {", ".join(self._installed)}. '
                "Install onnxruntime-gpu[cuda,cudnn] in its place, or set provider 'cpu'")

    def create(
        self, model: bytes, *, name: str, on_cpu: bool = False, fixed: bool = False,
    ) -> Any:
        """
        Make a session from a serialised graph.

        :param model: the ONNX file's bytes.
        :param name: how errors name it, usually its file name.
        :param on_cpu: run it on the CPU whatever the others run on.
        :param fixed: all shapes are; only such a graph can be recorded.
        :raises BundleError: onnxruntime cannot load the graph.
        :raises ProviderError: a GPU was required and not obtained.
        """
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # A spinning worker takes a whole core from the robot's controller for nothing.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 3
        providers: list[Any] = [_CPU]
        if self._wants_cuda and not on_cpu:
            providers.insert(0, (CUDA_PROVIDER, {'enable_cuda_graph': '1'})
                             if self._cuda_graph and fixed else CUDA_PROVIDER)
        try:
            session = self._ort.InferenceSession(model, options, providers=providers)
        except Exception as error:  # onnxruntime raises a dozen types without a common base
            if not isinstance(providers[0], str):
                raise ProviderError(
                    f'{name}: cannot be loaded to be recorded ({first_line(error)}); set '
                    'cuda_graph to false') from error
            raise BundleError(
                f'{name}: onnxruntime cannot load it ({first_line(error)}); '
                'the file is damaged or made for another version') from error
        obtained = session.get_providers()[0]
        if self._require_gpu and not on_cpu and obtained != CUDA_PROVIDER:
            raise ProviderError(
                f'{name}: require_gpu is set, but the session runs on {obtained}: CUDA or cuDNN '
                'could not be loaded. Check the driver and the libraries that this '
                f'onnxruntime needs; installed: {", ".join(self._installed)}')
        if not on_cpu:
            self._obtained = obtained
        return session

    def binding(self, session: Any, inputs: Sequence[Tensor],
                outputs: Sequence[Tensor]) -> Binding | None:
        """
        Bind a session's tensors to the device, where that is asked for and it runs on one.

        :param inputs: each of a fixed shape; `outputs` likewise.
        :returns: None: run the session as it is.
        :raises ProviderError: there is not enough memory on the device.
        """
        if not self._cuda_graph or session.get_providers()[0] != CUDA_PROVIDER:
            return None
        return Binding(self._ort, session, inputs, outputs, 'cuda')

    @property
    def records(self) -> bool:
        """Whether graphs are recorded: by each thread that runs them, in its first run."""
        return self._cuda_graph and self._obtained == CUDA_PROVIDER

    @property
    def hardware(self) -> Hardware:
        """Tell what was asked for and what was got, as far as sessions exist."""
        obtained = self._obtained or 'none'
        remarks = []
        if self._wants_cuda and obtained != CUDA_PROVIDER:
            remarks.append(
                f'CUDA was wanted, but the session runs on {obtained}: '
                'check the driver, CUDA and cuDNN libraries')
        if self._cuda_graph and self._obtained == _CPU:
            remarks.append('cuda_graph is without effect on a CPU')
        if len(self._installed) > 1:
            remarks.append(
                f'both {" and ".join(self._installed)} are installed and overwrite each other: '
                'uninstall both, then install the one you need')
        return Hardware(self._requested, obtained, '; '.join(remarks))

    @property
    def version(self) -> str:
        """Version of onnxruntime."""
        return str(self._ort.__version__)
