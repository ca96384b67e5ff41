# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The report: what goes in comes out, nothing in it is taken for markup, nothing is fetched."""

import csv
from dataclasses import replace
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


def measured(*rows, title='Bars', tables=None):
    """Note rows, by default a value and a control, and a figure."""
    found = reports.Measured(tables=tables or {})
    for values, options in rows or (
            (('retrieval_r1', 'adapted', 'test_task', estimate()),
             {'chance': 0.02, 'seeds': (0, 1), 'text': 'task'}),
            (('retrieval_r1', 'random', 'test_task', estimate(0.02, 0.01, 0.03)),
             {'control': True, 'text': 'task'})):
        found.add(*values, **options)
    found.draw('bars', PNG, title, 'By variant.')
    return found


def write(folder, found=None, **changes):
    return reports.write_report(folder, found or measured(), **{
        'title': 'Evaluation', 'data': {'clips': 440, 'splits': ['test_task']},
        'warnings': ['Simulated pairs are not RH20T.'],
        'commands': ['hralign encoder evaluate'], **changes})


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


@pytest.fixture
def page(tmp_path):
    """Write a report; return its page as text, and parsed."""
    def written(found=None, **changes):
        text = write(tmp_path, found, **changes)['report.html'].read_text('utf-8')
        parser = Page()
        parser.feed(text)
        return text, parser
    return written


def test_what_goes_in_comes_out(tmp_path):
    found = measured()
    files = write(tmp_path / 'new', found)
    assert set(files) == {'report.json', 'report.csv', 'report.html', 'bars.png'}
    assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == sorted(files)
    assert reports.read_report(files['report.json']) == json.loads(json.dumps({
        'schema_version': 2, 'title': 'Evaluation',
        'data': {'clips': 440, 'splits': ['test_task']},
        'warnings': ['Simulated pairs are not RH20T.'], 'rows': found.rows,
        'figures': [{'name': 'bars', 'title': 'Bars', 'caption': 'By variant.'}],
        'commands': ['hralign encoder evaluate'], 'tables': {}}))
    # And it can be written again over itself.
    before = files['report.json'].read_bytes()
    assert write(tmp_path / 'new', found)['report.json'].read_bytes() == before
    assert reports.read_report(
        write(tmp_path, runs={'abc': 'adapted'})['report.json'])['runs'] == {'abc': 'adapted'}


def test_csv_has_a_line_per_value(tmp_path):
    files = write(tmp_path, measured(tables={'episodes': [
        {'episode': 'e0', 'hit': 1}, {'episode': 'e1', 'rank': 3}]}))
    with files['report.csv'].open(newline='') as stream:
        lines = list(csv.DictReader(stream))
    assert [(r['control'], r['variant'], r['text'], r['value'], r['low'], r['n'], r['seeds'])
            for r in lines] == [('False', 'adapted', 'task', '0.5', '0.4', '200', '0 1'),
                                ('True', 'random', 'task', '0.02', '0.01', '200', '')]
    with files['episodes.csv'].open(newline='') as stream:
        assert list(csv.DictReader(stream)) == [
            {'episode': 'e0', 'hit': '1', 'rank': ''}, {'episode': 'e1', 'hit': '', 'rank': '3'}]


def test_everything_is_escaped(page):
    """Guards the page against names of tasks, files and people: text stays text."""
    found = measured((('auroc', NASTY, NASTY, estimate()), {'note': NASTY, 'cameras': NASTY}),
                     title=NASTY + '" onload="x')
    found.figures[0]['caption'] = NASTY
    text, parser = page(
        found, title=NASTY, data={NASTY: NASTY}, warnings=[NASTY], commands=[NASTY])
    assert 'script' not in parser.tags
    # Title twice, both of data, warning, split, variant, condition, note with the three before,
    # figure (and its caption), command.
    assert ''.join(parser.text).count(NASTY) == 15
    assert 'onload=' not in text.replace('&#34; onload=', '')


def test_the_page_needs_nothing_else(page):
    """Guards reading it on a plane: every address is the image itself."""
    text, parser = page()
    assert len(parser.addresses) == 1
    assert parser.addresses[0].startswith('data:image/png;base64,')
    assert 'http' not in text and '@import' not in text and 'url(' not in text


def test_controls_stand_in_the_same_table(page):
    _, parser = page()
    assert parser.tags.count('table') == 1 and parser.tags.count('tr') == 3
    text = ' '.join(parser.text)
    assert 'control' in text and '0.500' in text and '0.400 to 0.600' in text
    assert 'n 200, 2 seeds' in text and 'chance 0.020' in text and 'higher is better' in text
    assert 'Simulated pairs are not RH20T.' in text


def test_numbers_that_json_does_not_know(page):
    """Guards strict readers: NaN and infinity become null, and the page says what is meant."""
    found = measured((('auroc', 'v', 's', Estimate(0.5, np.nan, np.nan, 3, 1)), {}),
                     (('brier_score', 'v', 's', Estimate(3.0, 1.0, np.inf, 30, 10)), {}))
    assert found.rows[0]['low'] is None and found.rows[1]['high'] is None
    text = ' '.join(page(found)[1].text)
    assert 'no interval' in text and '1.000 to ∞' in text


@pytest.mark.parametrize(('value', 'text'), [
    (0.0, '0.000'), (-0.05, '−0.050'), (0.00123, '0.0012'), (12.345, '12.3'), (1234.5, '1234'),
    (None, '–')])
def test_numbers(value, text):
    assert reports._number(value) == text


ROW = (('auroc', 'b', 'c', estimate()), {})


@pytest.mark.parametrize(('rows', 'changes', 'message'), [
    ([(('auroc', 'b', 'c', replace(estimate(), n=0)), {})], {}, 'no n'),
    ([(('roc', 'b', 'c', estimate()), {})], {}, 'called .roc.; names'),
    ([ROW, ROW], {}, 'two rows'),
    ([ROW], {'tables': {'../x': []}}, 'name of a table'),
    ([ROW], {'tables': {'report': []}}, 'name of a table'),
    ([ROW], {'data': {'x': float('nan')}}, 'cannot be written'),
    ([ROW], {'data': {'x': {1, 2}}}, 'cannot be written'),
])
def test_what_is_refused(tmp_path, rows, changes, message):
    tables = changes.pop('tables', None)
    with pytest.raises(EvaluationError, match=message):
        write(tmp_path / 'out', measured(*rows, tables=tables), **changes)
    assert not (tmp_path / 'out').exists()


def test_what_is_no_figure():
    with pytest.raises(EvaluationError, match="figure '../bars': a name has letters"):
        reports.Measured().draw('../bars', PNG, '', '')
    with pytest.raises(EvaluationError, match="no PNG was handed in for figure 'lost'"):
        reports.Measured().draw('lost', b'GIF', '', '')


def test_reading_what_is_none(tmp_path):
    file = tmp_path / 'report.json'
    with pytest.raises(EvaluationError, match='report.json'):
        reports.read_report(file)
    file.write_text('{"schema_version": 99}')
    with pytest.raises(EvaluationError, match='schema 2'):
        reports.read_report(file)
