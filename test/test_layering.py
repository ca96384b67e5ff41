# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Imports point one way, so that the robot needs neither torch nor transformers."""

import ast
from pathlib import Path
import re
import subprocess
import sys

import hralign_ros
import pytest

PACKAGE = Path(hralign_ros.__file__).parent
# From the robot up to the command line: a layer may import itself and those before it.
LAYERS = ('runtime', 'data', 'models', 'training', 'export', 'calibration', 'evaluation')
ALLOWED = {layer: set(LAYERS[:place + 1]) for place, layer in enumerate(LAYERS)} | {
    'nodes': {'nodes', 'runtime'},
    'doctor': {'doctor', 'nodes', 'runtime'},
    'simulation': {'simulation', 'data', 'runtime'},
    'review': {'review', 'data', 'runtime'},
    # Over all of them; each is imported only when its command runs.
    'cli': {*LAYERS, 'cli', 'doctor', 'review', 'simulation'},
}
ROS = {'ament_index_python', 'builtin_interfaces', 'diagnostic_msgs', 'geometry_msgs',
       'hralign_msgs', 'launch', 'launch_ros', 'lifecycle_msgs', 'rcl_interfaces', 'rclpy',
       'rosgraph_msgs', 'sensor_msgs', 'std_msgs', 'std_srvs'}
OFFLINE = {'onnx', 'onnxscript', 'torch', 'torchvision', 'transformers', 'timm'}
ROBOT = {'cv2', 'numpy', 'onnxruntime', 'safetensors', 'tokenizers', 'yaml'}
# Of doctor, the module that listens; all others examine a computer without ROS, too.
LISTENING = PACKAGE / 'doctor/listening.py'
# Of the nodes, the one that is a simulation.
ARM_SIM = PACKAGE / 'nodes/arm_sim.py'
RCLPY_COMPATIBILITY = PACKAGE / 'nodes/rclpy_compatibility.py'
RCLPY_PRIVATE = ('rclpy.impl', 'rclpy._rclpy')
# Imported only where it is used, and named in one sentence where it is missing.
OPTIONAL = {'av', 'cryptography', 'mcap'}


def imports(path):
    """Yield every module that a file imports, functions included, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}:{node.lineno}: a relative import'
            yield node.module, node.lineno
            yield from ((f'{node.module}.{alias.name}', node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', getattr(
                node.func, 'attr', '')) in (
                    'import_module', 'import_package', '_cryptography', '__import__'):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield argument.value, node.lineno


def sources():
    return sorted(PACKAGE.rglob('*.py'))


def layer_of(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ''


def test_every_layer_is_known():
    """Guards this test: a new folder has to be given its place here."""
    assert {layer_of(path) for path in sources()} - {''} <= set(ALLOWED)


@pytest.mark.parametrize('path', sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    """Guards the robot against the offline half, and the offline half against ROS."""
    layer = layer_of(path)
    for module, line in imports(path):
        top, *rest = module.split('.')
        where = f'{path.name}:{line} imports {module}'
        if top == 'hralign_ros' and rest and (PACKAGE / rest[0]).is_dir() and layer:
            assert rest[0] in ALLOWED[layer] or (
                path == ARM_SIM and rest[0] == 'simulation'), where
        if top in ROS or module.startswith('hralign_ros.nodes'):
            assert layer == 'nodes' or path == LISTENING, where
        if module.startswith(RCLPY_PRIVATE):
            assert path == RCLPY_COMPATIBILITY, where
        if top in OFFLINE:
            assert layer in ('models', 'training', 'export', 'calibration', 'evaluation'), where
            # Metrics are plain arrays, so that anybody can use them.
            assert path.parent.name != 'metrics', where


def test_no_private_of_rclpy_is_used_elsewhere():
    """Guards against a release of rclpy: what it does not publish, one module reads."""
    private = ('_LifecycleNodeMixin', '_state_machine', '_parameter_overrides', '_Node__')
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            name = getattr(node, 'attr', None) or getattr(node, 'name', None) or ''
            assert path == RCLPY_COMPATIBILITY or not str(name).startswith(private), \
                f'{path.name}:{node.lineno} uses {name}'


def module_of(path):
    """Name the module of a file; a package is named without its __init__."""
    return '.'.join(('hralign_ros', *path.relative_to(PACKAGE).with_suffix('').parts)) \
        .removesuffix('.__init__')


def circle(graph):
    """Find modules that import each other in a circle; [] where there are none."""
    done = set()

    def search(module, way):
        if module in way:
            return [*way[way.index(module):], module]
        if module in done:
            return []
        found = next((found for other in sorted(graph[module])
                      if (found := search(other, [*way, module]))), [])
        done.add(module)
        return found
    return next((found for module in sorted(graph) if (found := search(module, []))), [])


def test_no_modules_import_each_other():
    """Guards readers: there is a first module to read. For type checkers alone counts, too."""
    modules = {module_of(path): path for path in sources()}
    graph = {module: {one for one, _ in imports(path) if one in modules and one != module}
             for module, path in modules.items()}
    # `from package import module` names the package as well, which is no import of its contents.
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.ImportFrom) and all(
                    f'{node.module}.{alias.name}' in modules for alias in node.names):
                graph[module].discard(node.module)
    assert circle({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}) == ['b', 'c', 'b']
    assert not circle(graph), ' -> '.join(circle(graph))


def test_the_runtime_needs_what_the_robot_has():
    """Guards the list of packages that a robot needs: nothing slips in."""
    for path in sources():
        if layer_of(path) != 'runtime':
            continue
        for module, line in imports(path):
            top = module.split('.')[0]
            assert top in ROBOT | OPTIONAL | {'hralign_ros'} \
                or top in sys.stdlib_module_names, f'{path.name}:{line} imports {module}'


def test_a_tick_without_torch_or_ros():
    """Guards the same at run time: a whole tick in a fresh process imports none of them."""
    program = """
import sys
import numpy as np
from hralign_ros.runtime import default_bundle, Encoder
episode = Encoder.load(default_bundle(), provider='cpu').start_episode('open the drawer')
image = np.zeros((48, 64, 3), np.uint8)
tick = episode.step({'wrist': image, 'third_person': image}, stamp=1)
assert tick.part('task').shape == (2, 1280)
heavy = {'torch', 'transformers', 'torchvision', 'onnx', 'rclpy', 'hralign_msgs', 'matplotlib',
         'cryptography', 'av', 'mcap'}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, '[]'), done.stderr


def test_the_files_that_contributing_names_are_there():
    """Guards a newcomer against a map of files that have moved."""
    root = Path(__file__).resolve().parents[1]
    text = (root / 'CONTRIBUTING.md').read_text('utf-8')
    named = re.findall(r'`([\w-]+/[\w./-]+\.(?:py|md|yaml))`', text)
    assert len(named) > 15
    assert [name for name in named if not (root / name).is_file()] == []
