# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The report: what goes in comes out, nothing in it is taken for markup, nothing is fetched."""

import csv
from html.parser import HTMLParser
import json

from hralign_ros.evaluation import report as reports
from hralign_ros.evaluation.bootstrap import Estimate, EvaluationError
import numpy as np
import pytest

PNG = b'\x89PNG\r\n\x1a\nrest'
NASTY = '<script>alert("x" & \'y\')</script>'


def estimate(value=0.5, low=0.4, high=0.6):
    return Estimate(value, low, high, 200, 40)


def row(*values, **options):
    found = reports.Measured()
    found.add(*values, **options)
    return found.rows[0]


def make(**changes):
    return {
        'title': 'Evaluation', 'data': {'clips': 440, 'splits': ['test_task']},
        'warnings': ['Simulated pairs are not RH20T.'],
        'rows': [row('retrieval_r1', 'adapted', 'test_task', estimate(), chance=0.02,
                     seeds=(0, 1), text='task'),
                 row('retrieval_r1', 'random', 'test_task', estimate(0.02, 0.01, 0.03),
                     control=True, text='task')],
        'figures': [{'name': 'bars', 'title': 'Bars', 'caption': 'By variant.'}],
        'commands': ['hralign encoder evaluate'], **changes}


class Page(HTMLParser):
    """Collects tags, addresses and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ('src', 'href', 'srcset', 'data')]

    def handle_data(self, data):
        self.text.append(data)


def page(report):
    parser = Page()
    parser.feed(reports.to_html(report, {'bars': PNG}))
    return parser


def test_round_trip(tmp_path):
    files = reports.write_report(tmp_path / 'new', make(), {'bars': PNG})
    assert set(files) == {'report.json', 'report.csv', 'report.html', 'bars.png'}
    assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == sorted(files)
    back = reports.read_report(files['report.json'])
    assert back.pop('schema_version') == 2
    assert back == json.loads(json.dumps(make()))
    # And it can be written again as it was read.
    again = reports.write_report(tmp_path, reports.read_report(files['report.json']),
                                 {'bars': PNG})
    assert again['report.json'].read_bytes() == files['report.json'].read_bytes()


def test_csv_has_a_line_per_value(tmp_path):
    files = reports.write_report(tmp_path, make(tables={'episodes': [
        {'episode': 'e0', 'hit': 1}, {'episode': 'e1', 'rank': 3}]}), {'bars': PNG})
    with files['report.csv'].open(newline='') as stream:
        lines = list(csv.DictReader(stream))
    assert [(r['control'], r['variant'], r['text'], r['value'], r['low'], r['n'], r['seeds'])
            for r in lines] == [('False', 'adapted', 'task', '0.5', '0.4', '200', '0 1'),
                                ('True', 'random', 'task', '0.02', '0.01', '200', '')]
    with files['episodes.csv'].open(newline='') as stream:
        assert list(csv.DictReader(stream)) == [
            {'episode': 'e0', 'hit': '1', 'rank': ''}, {'episode': 'e1', 'hit': '', 'rank': '3'}]


def test_everything_is_escaped():
    """Guards the page against names of tasks, files and people: text stays text."""
    report = make(
        title=NASTY, data={NASTY: NASTY}, warnings=[NASTY], commands=[NASTY],
        rows=[row('auroc', NASTY, NASTY, estimate(), note=NASTY, cameras=NASTY)],
        figures=[{'name': 'bars', 'title': NASTY + '" onload="x',
                  'caption': NASTY}])
    parser = page(report)
    assert 'script' not in parser.tags
    # Title twice, both of data, warning, split, variant, condition, note with the three before,
    # figure (and its caption), command.
    assert ''.join(parser.text).count(NASTY) == 15
    assert 'onload=' not in reports.to_html(report, {'bars': PNG}).replace('&#34; onload=', '')


def test_the_page_needs_nothing_else():
    """Guards reading it on a plane: every address is the image itself."""
    parser = page(make())
    assert len(parser.addresses) == 1
    assert parser.addresses[0].startswith('data:image/png;base64,')
    text = reports.to_html(make(), {'bars': PNG})
    assert 'http' not in text and '@import' not in text and 'url(' not in text


def test_controls_stand_in_the_same_table():
    parser = page(make())
    assert parser.tags.count('table') == 1 and parser.tags.count('tr') == 3
    text = ' '.join(parser.text)
    assert 'control' in text and '0.500' in text and '0.400 to 0.600' in text
    assert 'n 200, 2 seeds' in text and 'chance 0.020' in text and 'higher is better' in text
    assert 'Simulated pairs are not RH20T.' in text


def test_numbers_that_json_does_not_know():
    """Guards strict readers: NaN and infinity become null, and the page says what is meant."""
    nan = row('auroc', 'v', 's', Estimate(0.5, np.nan, np.nan, 3, 1))
    ratio = row('brier_score', 'v', 's', Estimate(3.0, 1.0, np.inf, 30, 10))
    assert nan['low'] is None and ratio['high'] is None
    text = ' '.join(page(make(rows=[nan, ratio])).text)
    assert 'no interval' in text and '1.000 to ∞' in text


@pytest.mark.parametrize(('value', 'text'), [
    (0.0, '0.000'), (-0.05, '−0.050'), (0.00123, '0.0012'), (12.345, '12.3'), (1234.5, '1234'),
    (None, '–')])
def test_numbers(value, text):
    assert reports._number(value) == text


@pytest.mark.parametrize(('changes', 'message'), [
    ({'title': 3}, 'title must be a str'),
    ({'rows': None}, 'rows must be a list'),
    ({'extra': 1}, 'unknown key extra'),
    ({'rows': [{'metric': 'x'}]}, 'a row lacks'),
    ({'rows': [{**row('auroc', 'b', 'c', estimate()), 'n': 0}]}, 'no n'),
    ({'rows': [{**row('auroc', 'b', 'c', estimate()), 'metric': 'roc'}]}, 'called .roc.; names'),
    ({'rows': 2 * make()['rows']}, 'two rows'),
    ({'figures': [{'name': 'lost', 'title': '', 'caption': ''}]}, "figure 'lost'"),
    ({'figures': [{'name': '../bars', 'title': '', 'caption': ''}]}, 'a figure has name'),
    ({'tables': {'../x': []}}, 'name of a table'),
    ({'data': {'x': float('nan')}}, 'cannot be written'),
    ({'data': {'x': {1, 2}}}, 'cannot be written'),
])
def test_what_is_refused(tmp_path, changes, message):
    with pytest.raises(EvaluationError, match=message):
        reports.write_report(tmp_path / 'out', make(**changes), {'bars': PNG})
    assert not (tmp_path / 'out').exists()


def test_reading_what_is_none(tmp_path):
    file = tmp_path / 'report.json'
    with pytest.raises(EvaluationError, match='report.json'):
        reports.read_report(file)
    file.write_text('{"schema_version": 99}')
    with pytest.raises(EvaluationError, match='schema 2'):
        reports.read_report(file)
