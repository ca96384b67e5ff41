# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Files for other places to run and test it, as far as they can be checked without them."""

import json
from pathlib import Path
import re
import subprocess

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / 'docker/Dockerfile').read_text('utf-8')
COMPOSE = yaml.safe_load((ROOT / 'docker/compose.yaml').read_text('utf-8'))
WORKFLOW = yaml.safe_load((ROOT / '.github/workflows/test.yaml').read_text('utf-8'))
STAGES = re.findall(r'^FROM \S+ AS (\w+)$', DOCKERFILE, re.MULTILINE)
DISTRIBUTIONS = ['humble', 'jazzy', 'kilted', 'lyrical']


@pytest.mark.parametrize('name', ['cpu', 'cuda', 'thor'])
def test_each_service_builds_what_there_is(name):
    """Guards an argument that the Dockerfile does not have: docker ignores it with a warning."""
    build = COMPOSE['services'][name]['build']
    assert (ROOT / 'docker' / build['context'] / build['dockerfile']).samefile(
        ROOT / 'docker/Dockerfile')
    assert {*build['args']} <= {*re.findall(r'^ARG (\w+)=', DOCKERFILE, re.MULTILINE)}
    on_gpu = 'onnxruntime-gpu' in build['args'].get('ONNXRUNTIME', '')
    assert on_gpu == (name != 'cpu') == ('require_gpu:=true' in COMPOSE['services'][name].get(
        'command', ''))


def test_an_image_gets_all_that_is_installed():
    """
    Guards a folder that setup.py installs and that .dockerignore leaves out of the image.

    Nothing fails then: the build installs what it finds.
    """
    ignored = (ROOT / 'docker/Dockerfile.dockerignore').read_text('utf-8')
    shipped = re.findall(r'shared_files\((.*)\)', (ROOT / 'setup.py').read_text('utf-8'))[-1]
    folders = [name.split('/')[0] for name in re.findall(r"'([^']+)'", shipped)]
    wanted = [*folders, 'hralign_ros', 'resource', 'scripts', 'package.xml', 'setup.py',
              'setup.cfg', 'requirements.lock', 'docker/entrypoint.sh']
    kept = {line.removeprefix('!') for line in ignored.splitlines() if line.startswith('!')}
    assert {*wanted} <= kept and all((ROOT / name).exists() for name in kept)


def test_the_start_of_an_image_is_a_program():
    """Guards `docker run`, which needs the executable bit, and a name that has moved."""
    (program,) = re.findall(r'^ENTRYPOINT \["/ws/src/hralign_ros/(.*)"\]', DOCKERFILE, re.M)
    assert (ROOT / program).stat().st_mode & 0o111
    subprocess.run(['bash', '-n', ROOT / program], check=True)


def test_the_workflow_covers_all_distributions_and_pythons():
    """Guards a distribution or Python that the documents name and nobody runs."""
    jobs = WORKFLOW['jobs']
    assert sorted(jobs['containers']['strategy']['matrix']['distribution']) == DISTRIBUTIONS
    assert jobs['wheels']['strategy']['matrix']['distribution'] == ['jazzy', 'kilted']
    assert jobs['pythons']['strategy']['matrix']['python'] == [f'3.{n}' for n in range(10, 15)]
    page = (ROOT / 'docs/how_to/distributions.md').read_text('utf-8')
    assert all(f'| {name.capitalize()} |' in page for name in DISTRIBUTIONS)
    folders = [name for step in jobs['pythons']['steps']
               for name in re.findall(r'test/\w+', step.get('run', ''))]
    assert folders and all((ROOT / name).is_dir() for name in folders)


def test_a_devcontainer_has_what_building_needs():
    """Guards the stage of the Dockerfile that it names."""
    found = json.loads((ROOT / '.devcontainer/devcontainer.json').read_text('utf-8'))
    build = found['build']
    assert build['target'] == 'dependencies' == STAGES[0]
    assert (ROOT / '.devcontainer' / build['dockerfile']).is_file()


def test_pixi_has_what_the_package_needs():
    """Guards an environment of conda packages in which the node does not start."""
    tomllib = pytest.importorskip('tomllib', reason='tomllib comes with Python 3.11')
    found = tomllib.loads((ROOT / 'pixi.toml').read_text('utf-8'))
    have = {*found['dependencies'], *found['pypi-dependencies']}
    assert {'onnxruntime', 'py-opencv', 'pyyaml', 'safetensors', 'tokenizers', 'mcap'} <= have
    for features in found['environments'].values():
        for feature in features:
            assert f'ros-{feature}-ros-base' in found['feature'][feature]['dependencies']
