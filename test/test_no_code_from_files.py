# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Nothing in the package runs code out of a file: no pickle, no eval, no unsafe reader."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for name in ('hralign_ros', 'launch', 'tools', 'benchmarks')
                 for path in (ROOT / name).rglob('*.py'))
# The one file that reads pickles, of an old data set, and knows a handful of harmless functions;
# test/data/test_npy.py shows that it refuses all others. No bundle goes through it.
READS_PICKLES = {'hralign_ros/data/npy.py'}

MODULES = {'pickle', 'cPickle', '_pickle', 'cloudpickle', 'dill', 'joblib', 'marshal', 'shelve',
           'jsonpickle'}
BUILTINS = {'eval', 'exec', 'compile', '__import__'}
# However they are reached, by their last name.
CALLS = {'register_custom_ops_library', 'unsafe_load', 'full_load', 'unsafe_load_all',
         'full_load_all', 'load_all', 'read_pickle', 'UnsafeLoader', 'FullLoader'}


def faults(tree, *, pickles=False):
    """Yield line and name of whatever could run code out of a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [
                alias.name for alias in node.names]
            yield from ((node.lineno, f'import {name}') for name in names
                        if (name or '').split('.')[0] in MODULES and not pickles)
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in CALLS)
            if isinstance(node, ast.ImportFrom) and node.module in ('torch', 'yaml', 'numpy'):
                yield from ((node.lineno, f'{node.module}.load without its module')
                            for alias in node.names if alias.name == 'load')
        elif isinstance(node, ast.Attribute) and node.attr in CALLS:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in BUILTINS or called in {f'builtins.{name}' for name in BUILTINS}:
                yield node.lineno, called
            if called.rpartition('.')[2] == 'load' and called.split('.')[0] == 'torch' \
                    and words.get('weights_only') != 'True':
                yield node.lineno, 'torch.load without weights_only=True'
            if called == 'yaml.load' and words.get('Loader') not in (
                    'yaml.SafeLoader', 'yaml.CSafeLoader'):
                yield node.lineno, 'yaml.load without a safe loader'
            if words.get('allow_pickle', 'False') != 'False':
                yield node.lineno, 'allow_pickle'
            if called.endswith('import_module') and node.args and isinstance(
                    node.args[0], ast.Constant) and node.args[0].value in MODULES and not pickles:
                yield node.lineno, f'import {node.args[0].value}'


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_from_files(path):
    """Guards everybody who loads a bundle, a checkpoint or a data set of somebody else."""
    name = path.relative_to(ROOT).as_posix()
    found = list(faults(ast.parse(path.read_text('utf-8')), pickles=name in READS_PICKLES))
    assert not found, f'{name}: {found}'


@pytest.mark.parametrize('code', [
    'import pickle', 'from pickle import loads', 'import torch\ntorch.load(p)',
    'torch.load(p, weights_only=False)', 'torch.load(p, None, pickle)', 'from torch import load',
    'yaml.load(t)', 'yaml.load(t, Loader=yaml.Loader)', 'yaml.unsafe_load(t)', 'eval("1")',
    'exec(t)', 'builtins.exec(t)', 'options.register_custom_ops_library("x.so")', '__import__(n)',
    'np.load(p, allow_pickle=True)', 'importlib.import_module("pickle")', 'import joblib.numpy'])
def test_the_search_finds_them(code):
    """Guards this test: each of these is a fault."""
    assert list(faults(ast.parse(code)))


@pytest.mark.parametrize('code', [
    'model.eval()', 'torch.load(p, weights_only=True)', 'yaml.safe_load(t)', 'json.load(f)',
    'np.load(p, allow_pickle=False)', 're.compile("x")', 'yaml.load(t, Loader=yaml.SafeLoader)'])
def test_the_search_finds_nothing_else(code):
    """Guards this test: none of these is."""
    assert not list(faults(ast.parse(code)))
