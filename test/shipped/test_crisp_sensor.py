# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The sensor of crisp_py that ships: what it names is what the shipped bundle's node has."""

from pathlib import Path

from hralign_ros.runtime import default_bundle
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.runtime.parts import choose_parts
import yaml

SENSOR = Path(__file__).resolve().parents[2] / 'config/crisp/sensors/hralign.yaml'


def test_its_shape_and_topics() -> None:
    """Guards a gym whose observation space would not be what arrives."""
    sensor = yaml.safe_load(SENSOR.read_text('utf-8'))
    bundle = load_bundle(default_bundle())
    part, = choose_parts(['keypoints'], bundle, 'attention')
    assert sensor['shape'] == [len(bundle.manifest.views) * part.size]
    assert (sensor['data_topic'], sensor['reset_service']) == (
        '/encoder/embedding/array', '/encoder/reset')
