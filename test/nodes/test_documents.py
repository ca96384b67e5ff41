# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is written about the node is what the node does."""

import importlib.util
import json
import re
from typing import Any

from hralign_msgs.msg import SuccessProbability
from hralign_ros.nodes import parameters
from hralign_ros.runtime import bundle, files, graphs, images, tasks
from hralign_ros.runtime.images import RAW_ENCODINGS
from hralign_ros.runtime.pairing import Verdict
import pytest
from rcl_interfaces.srv import DescribeParameters, ListParameters
from support.harness import Harness, ROOT, VIEWS
import yaml

# What the encoder node offers is told on three pages.
PAGE = ''.join((ROOT / 'docs' / name).read_text('utf-8') for name in (
    'reference/node.md', 'how_to/mirrors.md', 'how_to/wait_for_success.md'))


def _writer() -> Any:
    spec = importlib.util.spec_from_file_location(
        'write_parameters', ROOT / 'tools/write_parameters.py')
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_yaml_and_page_follow_from_the_parameter_table() -> None:
    """A parameter changed in the code and not in the documents would mislead every user."""
    writer = _writer()
    for node in writer.NODES:
        assert node.yaml.read_text('utf-8') == writer.make_yaml(node)
    assert writer.PAGE.read_text('utf-8') == writer.make_page(), 'run tools/write_parameters.py'


@pytest.mark.parametrize('name', ['encoder', 'franka', 'ur'])
def test_configurations_are_accepted(name: str) -> None:
    """Each shipped file is keyed for any node name and holds values that fit together."""
    document = yaml.safe_load((ROOT / f'config/{name}.yaml').read_text('utf-8'))
    assert list(document) == ['/**']
    given: dict[str, object] = {}
    for key, value in document['/**']['ros__parameters'].items():
        given |= {f'{key}.{k}': v for k, v in value.items()} if isinstance(value, dict) \
            else {key: value}
    rows = parameters.table()
    assert set(given) <= set(rows), f'unknown: {set(given) - set(rows)}'
    values = {key: row.default for key, row in rows.items()} | given
    for key, value in given.items():
        assert type(value) is type(rows[key].default), key
    parameters.Settings.read(values)


@pytest.mark.parametrize('name', ['encoder', 'franka', 'ur'])
def test_node_starts_with_each_configuration(harness: Harness, name: str) -> None:
    """The node takes the file itself, whatever it is called."""
    process = harness.start(arguments=(
        '--params-file', str(ROOT / f'config/{name}.yaml'), '-p', 'autostart:=true'))
    harness.wait(lambda: harness.infos, 'EncoderInfo', process)


def test_page_lists_what_the_node_offers(harness: Harness) -> None:
    """Topics, services and parameters on the page are those of the running node."""
    process = harness.start_active(**{
        name.replace('.', '__'): 'true' for name, row in parameters.table().items()
        if name.startswith('mirrors.') and row.default is False})
    documented = set(re.findall(r'`(~/[a-z_/<>]+)`', PAGE)) - {'~/'}

    def real() -> set[str]:
        return {re.sub('/_action/.*', '', re.sub(
            'attention/.*', 'attention/<view>', name.replace('/encoder/', '~/')))
            for name in harness.offered('encoder', 'publisher', 'service', 'subscriber')}

    # Discovery brings one endpoint after the other.
    harness.wait(lambda: documented <= real(), f'{documented} in the graph', process)
    harness.wait(lambda: len(harness.offered('encoder', 'subscriber')) >= len(VIEWS) + 1,
                 'the cameras in the graph', process)
    published, services, subscribed = (
        harness.offered('encoder', kind) for kind in ('publisher', 'service', 'subscriber'))
    ours = {topic: kind.replace('/msg/', '/') for topic, kind in published.items()
            if topic not in ('/rosout', '/parameter_events', '/encoder/transition_event')
            and '/_action/' not in topic}
    for topic, kind in ours.items():
        short = topic.replace('/encoder/', '~/').replace('attention/wrist', 'attention/<view>') \
            .replace('attention/third_person', 'attention/<view>')
        assert f'| `{short}` | {kind} |' in PAGE
    for view in VIEWS:
        assert f'/{view}/image_raw' in subscribed
        assert f'| `{view}/image_raw` | sensor_msgs/Image | best effort, depth 1 |' in PAGE
    for service, kind in services.items():
        if '/_action/send_goal' in service:
            action = service.replace('/encoder/', '~/').removesuffix('/_action/send_goal')
            assert f'| `{action}` | ' \
                   f'{kind.replace("/action/", "/").removesuffix("_SendGoal")} |' in PAGE
        elif ('hralign' in kind and '/_action/' not in service) or service == '/encoder/reset':
            assert f'| `{service.replace("/encoder/", "~/")}` | ' \
                   f'{kind.replace("/srv/", "/")} |' in PAGE

    listed = harness.call(ListParameters, '/encoder/list_parameters', ListParameters.Request())
    rows = parameters.table()
    standard = {'use_sim_time', 'start_type_description_service'}
    names = {n for n in listed.result.names if n not in standard and 'qos' not in n}
    assert names == set(rows)
    described = harness.call(
        DescribeParameters, '/encoder/describe_parameters',
        DescribeParameters.Request(names=sorted(names)))
    for descriptor in described.descriptors:
        row = rows[descriptor.name]
        assert descriptor.description == row.text
        assert descriptor.read_only is not row.dynamic
        assert not row.choices or str(row.choices[0]) in descriptor.additional_constraints


def test_page_names_every_drop_and_encoding() -> None:
    """Each key under which a frame may be counted is explained."""
    accepted = (Verdict.ACCEPTED, Verdict.TIME_RESET)
    keys = {verdict.value for verdict in Verdict if verdict not in accepted}
    source = (ROOT / 'hralign_ros/runtime/images.py').read_text('utf-8')
    keys |= set(re.findall(r"FrameError\(\s*'(\w+)'", source)) - {'bad_array'}
    assert 'corrupt_image' in keys
    for key in keys | set(RAW_ENCODINGS):
        assert f'`{key}`' in PAGE, key


def test_perspective_names_what_there_is() -> None:
    """Where rqt finds no such topic or field, a panel stays empty without a word."""
    text = (ROOT / 'config/encoder.perspective').read_text('utf-8')
    assert json.loads(text)['groups']['pluginmanager']
    fields = SuccessProbability.get_fields_and_field_types()
    known = {f'success/{field}' for field in fields} | {f'attention/{view}' for view in VIEWS}
    named = set(re.findall(r"'/encoder/([\w/]+)'", text))
    assert {'success/probability', 'success/decision_threshold', 'attention/wrist'} <= named
    assert named <= known


def test_every_status_is_in_one_group(harness: Harness) -> None:
    """What no group of the aggregator's file takes would be shown under Other."""
    path = ROOT / 'config/diagnostic_aggregator.yaml'
    document = yaml.safe_load(path.read_text('utf-8'))
    groups = document['analyzers']['ros__parameters']['encoder']['analyzers'].values()
    prefixes = [prefix for group in groups
                for prefix in group.get('startswith') or group['find_and_remove_prefix']]
    process = harness.start_active()
    harness.wait(lambda: len(harness.statuses) == len(VIEWS) + 3, 'every status', process)
    for name in harness.statuses:
        assert sum(name.startswith(prefix) for prefix in prefixes) == 1, name


def test_every_measure_has_its_test() -> None:
    """A measure that names a test which is not there any more is a guarantee and nothing else."""
    page = (ROOT / 'SECURITY.md').read_text('utf-8')
    named = re.findall(r'`(test/[\w/]+\.py)(?:::(\w+))?`', page)
    assert len(named) > 20
    for file, test in named:
        source = (ROOT / file).read_text('utf-8')
        assert not test or f'def {test}(' in source, f'{file}::{test}'


def test_the_page_of_limits_says_what_the_code_has() -> None:
    """Limits change in the code first."""
    page = (ROOT / 'docs/how_to/security.md').read_text('utf-8')
    assert (files.MAX_YAML_BYTES, tasks.MAX_HEADER_BYTES) == (1 << 20, 1 << 20)
    assert (bundle.MAX_FILE_BYTES, bundle.MAX_BUNDLE_BYTES) == (2 << 30, 8 << 30)
    assert f'opset {graphs.OPSETS.start} to {graphs.OPSETS.stop - 1}' in page
    assert f'{images.MAX_SIDE} a side, {images.MAX_PIXELS / 1e6:.1f} million pixels' in page
    assert f'{images.MAX_COMPRESSED_BYTES >> 20} MiB and {images.MAX_SCANS} scans' in page
    assert f'{tasks.MAX_TASK_CHARACTERS} characters' in page
    for text in ('1 MiB each', '256 MiB, 1 MiB', '2 GiB', '8 GiB'):
        assert text in page
