# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The layouts for Foxglove and PlotJuggler name topics and fields that there are."""

import json
import re
from xml.etree import ElementTree

from diagnostic_msgs.msg import DiagnosticArray
from hralign_ros.nodes import mirrors, parameters
from hralign_ros.nodes.interfaces import SuccessProbability
from sensor_msgs.msg import CompressedImage, Image
from support.harness import ROOT, VIEWS

LAYOUTS = ROOT / 'config/layouts'
FOXGLOVE = json.loads((LAYOUTS / 'foxglove.json').read_text('utf-8'))
PLOTJUGGLER = ElementTree.fromstring((LAYOUTS / 'plotjuggler.xml').read_bytes())
NODE = '/encoder'
# A path into messages in Foxglove: a topic, perhaps a condition, and fields.
PATH = re.compile(r'(?P<topic>[\w/]+)(\{(?P<flag>\w+)==true\})?\.(?P<field>\w+)')


def topics():
    """Give the type of each topic of a node and a recorder with their default names."""
    defaults = {name: row.default for name, row in parameters.table(VIEWS).items()}
    there = {f'{NODE}/success': SuccessProbability, '/diagnostics': DiagnosticArray}
    there |= {topic.replace('~', NODE): kind for kind, topic in mirrors._TOPICS.values()}
    for view in VIEWS:
        topic = '/' + defaults[f'{view}.topic']
        there |= {topic: Image, f'{topic}/compressed': CompressedImage,
                  f'{NODE}/attention/{view}': Image}
    return there


def panels():
    """Give the kind of each panel, its settings, and the panels that a place in it names."""
    for name, settings in FOXGLOVE['configById'].items():
        yield name.partition('!')[0], settings


def placed(node):
    """List the panels in a part of the layout."""
    if isinstance(node, str):
        inner = [one for tab in FOXGLOVE['configById'][node].get('tabs', ())
                 for one in placed(tab['layout'])]
        return [node, *inner]
    return placed(node['first']) + placed(node['second'])


def test_foxglove_names_what_there_is():
    """A field that is renamed would leave an empty curve, which nobody misses at once."""
    there, seen = topics(), set()
    for kind, settings in panels():
        image = settings.get('imageMode', {}).get('imageTopic')
        if image is not None:
            assert there[image] in (Image, CompressedImage)
        if kind == 'DiagnosticSummary':
            assert there[settings['topicToRender']] is DiagnosticArray
        for path in [*(one['value'] for one in settings.get('paths', ())),
                     *filter(None, (settings.get('path'), settings.get('topicPath')))]:
            match = PATH.fullmatch(path)
            assert match, path
            fields = there[match['topic']].get_fields_and_field_types()
            assert match['field'] in fields, path
            assert match['flag'] is None or fields[match['flag']] == 'boolean', path
            seen.add((match['topic'], match['field']))
    assert {(f'{NODE}/success', field) for field in (
        'probability', 'progress', 'decision', 'ood_score', 'processing_duration', 'status')
        } <= seen
    assert {topic for topic, _ in seen} >= {
        topic.replace('~', NODE) for name, (_, topic) in mirrors._TOPICS.items()
        if name != 'embedding_array'}


def test_foxglove_names_decisions_as_the_message_does():
    rules = FOXGLOVE['configById']['Indicator!decision']['rules']
    assert {rule['label']: int(rule['rawValue']) for rule in rules} == {
        name.removeprefix('DECISION_'): getattr(SuccessProbability, name)
        for name in dir(SuccessProbability) if name.startswith('DECISION_')}


def test_foxglove_shows_every_panel_once():
    """A panel that is in no place is lost when Foxglove saves the layout."""
    names = placed(FOXGLOVE['layout'])
    assert sorted(names) == sorted(FOXGLOVE['configById'])
    for tab in (settings for kind, settings in panels() if kind == 'Tab'):
        assert len(tab['tabs']) == 3  # live, recorded, attention


def test_plotjuggler_names_what_there_is():
    """
    Guards curves and equations against a field that is renamed.

    Mirrors are in no plot: PlotJuggler asks what to do about curves that are not there, and
    without their parameters these are not.
    """
    fields = SuccessProbability.get_fields_and_field_types()
    series = {f'{NODE}/success/{name}' for name in fields}
    series |= {f'{NODE}/success/processing_duration/{name}' for name in ('sec', 'nanosec')}
    made = {snippet.get('name'): [
        *(one.text for one in snippet.iter('linked_source')),
        *(one.text for one in snippet.find('additional_sources'))]
        for snippet in PLOTJUGGLER.iter('snippet')}
    for name, sources in made.items():
        assert set(sources) <= series, name
    curves = {curve.get('name') for curve in PLOTJUGGLER.iter('curve')}
    assert curves <= series | set(made) and set(made) <= curves
    assert {source.rpartition('/')[2] for sources in made.values() for source in sources} >= {
        'probability', 'decision_threshold', 'progress', 'failure_probability', 'ood_score'}


def test_plotjuggler_says_what_decisions_mean():
    title, = (area.get('name') for area in PLOTJUGGLER.iter('DockArea')
              if area.get('name').startswith('Decision'))
    assert title == 'Decision: ' + ', '.join(
        f'{value} {name.removeprefix("DECISION_")}' for value, name in sorted(
            (getattr(SuccessProbability, name), name) for name in dir(SuccessProbability)
            if name.startswith('DECISION_')))
