# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The truth about the hardware: what was asked for, what was got, and what to do about it."""

from importlib import metadata
import sys
from types import SimpleNamespace

from hralign_ros.runtime import Encoder, HralignError, ProviderError, providers
from hralign_ros.runtime.providers import Binding, SessionFactory
import numpy as np
import pytest

CPU, CUDA = 'CPUExecutionProvider', 'CUDAExecutionProvider'


class FakeOnnxruntime:
    """
    An onnxruntime that offers and obtains what a test wants.

    :param offered: what get_available_providers says.
    :param obtained: the provider of every session; None: the first one asked for.
    """

    __version__ = '9.9.9'

    def __init__(self, offered, obtained=None):
        self.offered, self.obtained = offered, obtained
        self.sessions = []
        self.preloaded = 0

    def get_available_providers(self):
        return list(self.offered)

    def preload_dlls(self):
        self.preloaded += 1

    class SessionOptions:

        def __init__(self):
            self.entries = {}

        def add_session_config_entry(self, key, value):
            self.entries[key] = value

    def InferenceSession(self, model, options, providers):  # noqa: N802
        self.sessions.append(SimpleNamespace(
            options=options, asked=providers,
            get_providers=lambda: [self.obtained or (
                providers[0] if isinstance(providers[0], str) else providers[0][0])]))
        return self.sessions[-1]


@pytest.fixture
def fake(monkeypatch):
    """Put a fake onnxruntime in place of the real one."""
    def install(*args):
        ort = FakeOnnxruntime(*args)
        monkeypatch.setattr(providers, 'import_onnxruntime', lambda: ort)
        return ort
    return install


def offers_cuda():
    """Whether the real onnxruntime here offers CUDA."""
    return CUDA in providers.import_onnxruntime().get_available_providers()


@pytest.mark.parametrize('name', ['tpu', 'CUDA', '', 'CPUExecutionProvider'])
def test_unknown_provider(name):
    """Guards against a mistyped provider quietly meaning the CPU."""
    with pytest.raises(ProviderError, match='allowed: auto, cpu, cuda') as caught:
        SessionFactory(name)
    assert f"'{name}'" in str(caught.value)


def test_cpu_and_gpu_at_once():
    """Guards against a contradiction being decided by chance."""
    with pytest.raises(ProviderError, match='require_gpu'):
        SessionFactory('cpu', require_gpu=True)


@pytest.mark.parametrize('threads', [0, -1])
def test_no_threads(threads):
    """Guards against 0, which means "all cores" to onnxruntime."""
    with pytest.raises(ProviderError, match='threads'):
        SessionFactory('cpu', threads=threads)


@pytest.mark.parametrize(('provider', 'required'), [
    ('auto', True), ('cuda', True), ('cuda', False)])
def test_a_gpu_that_is_not_there(tiny, provider, required):
    """Guards against silently running on the CPU on this very machine, where it has no GPU."""
    if offers_cuda():
        pytest.skip('this onnxruntime offers CUDA')
    with pytest.raises(ProviderError, match='onnxruntime-gpu') as caught:
        Encoder.load(tiny, provider=provider, require_gpu=required)
    assert CPU in str(caught.value)


@pytest.mark.parametrize(('provider', 'required'), [('auto', True), ('cuda', False)])
def test_cuda_is_not_offered(fake, provider, required):
    """Guards the message of an onnxruntime that was built without CUDA."""
    fake([CPU])
    with pytest.raises(ProviderError, match='pip|Install') as caught:
        SessionFactory(provider, require_gpu=required)
    assert CPU in str(caught.value)


def test_auto_without_cuda_is_the_cpu(fake):
    """Guards the default: on a plain machine it runs, and says so without a warning."""
    fake([CPU])
    factory = SessionFactory('auto')
    assert factory.hardware.provider == 'none'
    factory.create(b'', name='x.onnx')
    assert (factory.hardware.requested, factory.hardware.provider) == ('auto', CPU)
    assert 'wanted' not in factory.hardware.remark
    assert factory.version == '9.9.9'


@pytest.mark.parametrize('provider', ['auto', 'cuda'])
def test_cuda_offered_but_not_obtained(fake, provider):
    """Guards against claiming CUDA when onnxruntime fell back: its library was not loadable."""
    fake([CUDA, CPU], CPU)
    factory = SessionFactory(provider)
    factory.create(b'', name='x.onnx')
    hardware = factory.hardware
    assert (hardware.requested, hardware.provider) == (provider, CPU)
    assert 'CUDA was wanted' in hardware.remark


def test_cuda_required_and_not_obtained(fake):
    """Guards require_gpu: configuring fails when the session fell back to the CPU."""
    fake([CUDA, CPU], CPU)
    with pytest.raises(ProviderError, match='require_gpu'):
        SessionFactory('auto', require_gpu=True).create(b'', name='x.onnx')


def test_cuda_obtained(fake):
    """Guards the order of providers, and that CUDA's libraries are loaded first."""
    ort = fake([CUDA, CPU])
    factory = SessionFactory('cuda', require_gpu=True)
    assert ort.preloaded == 1
    factory.create(b'', name='x.onnx')
    assert ort.sessions[0].asked == [CUDA, CPU]
    assert factory.hardware.provider == CUDA
    assert 'wanted' not in factory.hardware.remark


def test_the_text_encoder_on_the_cpu_tells_nothing(fake):
    """Guards against the one graph that always runs on the CPU hiding where the others run."""
    ort = fake([CUDA, CPU])
    factory = SessionFactory('auto', require_gpu=True)
    factory.create(b'', name='x.onnx')
    factory.create(b'', name='text.onnx', on_cpu=True)
    assert ort.sessions[1].asked == [CPU]
    assert factory.hardware.provider == CUDA


def test_only_fixed_shapes_are_recorded(fake):
    """Guards cuda_graph: a recorded graph of images of any size would replay the first size."""
    ort = fake([CUDA, CPU])
    factory = SessionFactory('cuda', cuda_graph=True)
    factory.create(b'', name='preprocess.onnx')
    factory.create(b'', name='visual.onnx', fixed=True)
    factory.create(b'', name='text.onnx', fixed=True, on_cpu=True)
    assert [s.asked for s in ort.sessions] == [
        [CUDA, CPU], [(CUDA, {'enable_cuda_graph': '1'}), CPU], [CPU]]
    assert factory.binding(ort.sessions[2], [], []) is None, 'it is on the CPU'


def test_recording_is_said_to_be_without_effect_on_a_cpu(tiny):
    """Guards an option that does nothing: it is told, and results are the same."""
    encoder = Encoder.load(tiny, provider='cpu', cuda_graph=True)
    assert 'cuda_graph is without effect' in encoder.hardware.remark
    assert encoder.warm_up() > 0


def test_bound_tensors_give_the_same_results(tiny, monkeypatch):
    """
    Guards results that stay in one place on a device: each run's are its own, and right.

    The binding is that of a GPU, put on the CPU: there the numbers can be compared.
    """
    plain = Encoder.load(tiny, provider='cpu')
    images = np.random.default_rng(0).integers(
        0, 256, (len(plain.manifest.views), 4, 60, 80, 3), np.uint8)
    monkeypatch.setattr(SessionFactory, 'binding', lambda self, session, inputs, outputs: Binding(
        providers.import_onnxruntime(), session, inputs, outputs, 'cpu'))
    bound = Encoder.load(tiny, provider='cpu')
    episodes = [encoder.start_episode('lift the cube') for encoder in (plain, bound)]
    ticks = [[episode.step(dict(zip(plain.manifest.views, images[:, i], strict=True)), 1 + i)
              for i in range(4)] for episode in episodes]
    for one, other in zip(*ticks, strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)
        np.testing.assert_array_equal(one.success.video, other.success.video)
    assert not np.array_equal(ticks[1][0].embedding, ticks[1][3].embedding)


def test_sessions_leave_the_cores_alone(fake):
    """Guards the robot's controller: no spinning threads, and no more of them than asked for."""
    ort = fake([CPU])
    SessionFactory('cpu', threads=3).create(b'', name='x.onnx')
    options = ort.sessions[0].options
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.entries['session.intra_op.allow_spinning'] == '0'


def test_onnxruntime_is_not_installed(monkeypatch, tiny):
    """Guards the first thing that a new user meets: the message holds the line that fixes it."""
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ProviderError, match='pip install onnxruntime'):
        Encoder.load(tiny)


@pytest.mark.parametrize('module', ['tokenizers', 'safetensors.numpy'])
def test_another_package_is_not_installed(monkeypatch, tiny, module):
    """Guards the same for what reads tokenizer.json and the prompts: a sentence, no traceback."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(HralignError, match=f'pip install {module.partition(".")[0]}'):
        Encoder.load(tiny, provider='cpu')


def test_both_distributions_are_installed(fake, monkeypatch):
    """Guards against the commonest way to lose a GPU: the CPU build overwrites the other."""
    monkeypatch.setattr(providers.metadata, 'version', lambda name: '1.2.3')
    fake([CPU])
    factory = SessionFactory('auto')
    remark = factory.hardware.remark
    assert 'onnxruntime 1.2.3' in remark and 'onnxruntime-gpu 1.2.3' in remark
    assert 'uninstall' in remark


def test_what_is_installed_here():
    """Guards the names under which the distributions are looked for."""
    found = providers.installed_distributions()
    assert found, 'neither distribution is known by the names that are looked for'
    assert all(metadata.version(line.split()[0]) == line.split()[1] for line in found)


def test_the_real_session_says_where_it_runs(tiny):
    """Guards the report against the real onnxruntime, not only against a fake one."""
    encoder = Encoder.load(tiny, provider='cpu')
    assert encoder.hardware.requested == 'cpu'
    assert encoder.hardware.provider == CPU
    assert encoder.onnxruntime_version == metadata.version(
        providers.installed_distributions()[0].split()[0])
