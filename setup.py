# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Build file of the ament_python package hralign_ros.

colcon may run this file through a symbolic link in the build folder, so files are looked for
beside the real one; the names handed to setuptools stay relative.
"""
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'hralign_ros'
ROOT = Path(__file__).resolve().parent


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


def requirements(*names):
    """Return the requirement lines of requirements/<name>.txt, less the wheels that are ROS."""
    lines = []
    for name in names:
        path = ROOT / 'requirements' / f'{name}.txt'
        text = path.read_text(encoding='utf-8') if path.exists() else ''
        lines += [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(('#', '-', 'ros-'))]


setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        ('bin', ['scripts/hralign']),
        *shared_files('launch', 'config', 'models/default', 'demo'),
    ],
    # onnxruntime is left out on purpose: installed beside onnxruntime-gpu, it hides the GPU.
    install_requires=['setuptools'],
    extras_require={
        'robot': requirements('robot', 'demo'),
        'signature': requirements('signature'),
        'adapt': requirements('adapt'),
        'sim': requirements('sim'),
        'test': requirements('test'),
        'fuzz': requirements('fuzz'),
    },
    zip_safe=True,
    maintainer='hralign_ros maintainers',
    maintainer_email='maintainers@hralign.example',
    description='Task-aware visual embeddings and calibrated success probabilities for ROS 2',
    license='Apache-2.0',
    python_requires='>=3.10',
    entry_points={
        'console_scripts': [
            'encoder_node = hralign_ros.nodes.encoder_node:main',
            'policy_example = hralign_ros.nodes.policy_example:main',
            'video_publisher = hralign_ros.nodes.video_publisher:main',
            'demo_monitor = hralign_ros.nodes.demo_monitor:main',
            'hralign = hralign_ros.cli.main:main',
        ],
    },
)
