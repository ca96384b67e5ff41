# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The review page's server, as a browser and as an attacker see it."""

from http.client import HTTPConnection
import json
from threading import Event, Thread

import cv2
from hralign_ros.data.manifest import read_manifest
from hralign_ros.review.frames import EpisodeFrames, NotShownError
from hralign_ros.review.labels import label_of
from hralign_ros.review.server import Review, ReviewServer
from hralign_ros.review.traces import propose
from hralign_ros.runtime.errors import HralignError
import numpy as np
import pytest
from support.review_data import episode, TIMES, write_data
from support.tiny_bundle import robot_bundle

JSON = {'Content-Type': 'application/json'}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Three episodes: a whole one, one with a broken video, one with nothing but broken ones."""
    root = write_data(tmp_path_factory.mktemp('data'), [episode(n) for n in (1, 2, 3)])
    for file in ('002/wrist.mp4', '003/wrist.mp4', '003/third_person.mp4'):
        (root / 'pick up the cup' / file).write_bytes(b'broken')
    return root


@pytest.fixture(scope='module')
def server(root):
    """Serve it, with a bundle."""
    review = Review(root, 'ann', robot_bundle())
    with ReviewServer(review) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    review.close()


def request(server, path, body=None, method=None, token=None, host=None, **headers):
    """Ask for something; return the status, the headers and the body."""
    connection = HTTPConnection('127.0.0.1', server.server_port, timeout=30)
    try:
        connection.request(
            method or ('GET' if body is None else 'POST'),
            f'/{server.token if token is None else token}/{path}',
            None if body is None else body if isinstance(body, bytes) else json.dumps(body),
            {'Host': host or f'127.0.0.1:{server.server_port}',
             **{name.replace('_', '-'): value for name, value in headers.items()}})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def ask(server, path, body=None):
    status, _, text = request(server, path, body, **({} if body is None else JSON))
    assert status == 200, text
    return json.loads(text)


def test_only_who_knows_the_address(server):
    """Guards episodes and labels against other users of the computer."""
    assert request(server, '')[0] == 200
    for token in ('', 'x', server.token[:-1], 'ü', f'{server.token}x'):
        assert request(server, 'episodes', token=token.replace('ü', '%C3%BC'))[0] == 403
        assert request(server, 'label', {'episode': 0, 'outcome': 'failure'},
                       token=token.replace('ü', '%C3%BC'), **JSON)[0] == 403
    assert server.url.split('/')[2].startswith('127.0.0.1:')
    assert len(server.token) >= 20


@pytest.mark.parametrize('host', ['evil.example', 'evil.example:{}', '127.0.0.1', '127.0.0.1:1',
                                  'localhost.evil.example:{}'])
def test_a_name_that_points_here(server, host):
    """Guards against a site that points a name of its own at this computer."""
    host = host.format(server.server_port)
    assert request(server, '', host=host)[0] == 403
    assert request(server, 'episodes', host=f'localhost:{server.server_port}')[0] == 200


@pytest.mark.parametrize('headers, status', [
    ({'Content-Type': 'text/plain'}, 403),
    ({**JSON, 'Origin': 'http://evil.example'}, 403),
    ({**JSON, 'Origin': 'null'}, 403),
    ({**JSON, 'Content-Length': '5000'}, 413),
    ({**JSON, 'Content-Length': 'x'}, 413)])
def test_labels_come_from_the_page(server, headers, status):
    """Guards against forms and scripts of other sites, and bodies that are no label."""
    before = ask(server, 'episodes')
    assert request(server, 'label', {'episode': 0, 'outcome': 'failure'}, **headers)[0] == status
    assert ask(server, 'episodes') == before


@pytest.mark.parametrize('body, status', [
    (b'{', 404), (b'[]', 404), ({}, 422), ({'episode': 0, 'outcome': 'maybe'}, 422),
    ({'episode': 9, 'outcome': 'failure'}, 422), ({'episode': True, 'outcome': ''}, 422),
    ({'episode': -1, 'outcome': 'failure'}, 422), ({'episode': 0, 'outcome': ['failure']}, 422),
    ({'episode': 0, 'outcome': 'failure', 'frame': 1}, 422),
    ({'episode': 0, 'outcome': 'success', 'frame': 10}, 422),
    ({'episode': 0, 'outcome': 'success', 'frame': -1}, 422),
    ({'episode': 2, 'outcome': 'success', 'frame': 0}, 422)])
def test_what_is_no_label(server, body, status):
    """Guards the manifest against labels that no key gives."""
    before = ask(server, 'episodes')
    assert request(server, 'label', body, **JSON)[0] == status
    assert ask(server, 'episodes') == before


@pytest.mark.parametrize('path', [
    'x', 'episode', 'episode/x', 'episode/99', 'episode/-1', 'image/0/9/0', 'image/0/0/10',
    'image/2/0/0', 'probability/99', '../../etc/passwd', '%2e%2e/manifest.parquet'])
def test_what_is_not_there(server, path):
    """Guards files beside the page: nothing is served by its name."""
    assert request(server, path)[0] == 404
    assert request(server, 'label', method='PUT')[0] == 501


def test_the_page_loads_nothing_else(server):
    """Guards the page itself: what it may load, who may show it, and that its address stays."""
    _, headers, text = request(server, '')
    policy = headers['Content-Security-Policy']
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert nonce and f'<script nonce="{nonce}">'.encode() in text and b'NONCE' not in text
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert headers['Referrer-Policy'] == 'no-referrer' and headers['Cache-Control'] == 'no-store'
    assert text.count(b'http') == text.count(b'http://www.w3.org/2000/svg')
    assert request(server, '')[2] != text


def test_images(server, root):
    """Guards what is shown: each frame of each view, as the camera saw it."""
    shown = ask(server, 'episode/0')
    assert shown['times'] == pytest.approx(TIMES)
    assert [view['name'] for view in shown['views']] == ['third_person', 'wrist']
    for view in (0, 1):
        for frame in (0, 7, 9):
            status, headers, data = request(server, f'image/0/{view}/{frame}')
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            assert status == 200 and headers['Content-Type'] == 'image/jpeg'
            assert image.shape == (48, 64, 3)
            assert abs(float(image.mean()) - (20 * frame + 40 * view)) < 4


def test_broken_videos(server):
    """Guards episodes of which something is broken: said, and labelled all the same."""
    wrist = ask(server, 'episode/1')['views'][1]
    assert 'wrist.mp4' in wrist['broken'] and request(server, 'image/1/0/0')[0] == 200
    none = ask(server, 'episode/2')
    assert none['times'] == [] and all(view['broken'] for view in none['views'])
    said = ask(server, 'label', {'episode': 2, 'outcome': 'failure'})
    assert said['label']['outcome'] == 'failure' and said['warning'] == ''


def test_labels(server, root):
    """Guards the way from a key to the manifest and to the table of the next import."""
    said = ask(server, 'label', {'episode': 0, 'outcome': 'success', 'frame': 3})
    assert said['label'] == {'outcome': 'success', 'time_s': pytest.approx(0.6), 'by': 'human:ann'}
    # s keeps the time.
    again = ask(server, 'label', {'episode': 0, 'outcome': 'success'})
    assert again['label'] == said['label']
    assert 'pick up the cup/001,success,0.600,,human:ann' in (root / 'labels.csv').read_text()
    while state := ask(server, 'state'):
        assert not state['failure']
        if not state['unwritten']:
            break
    row = read_manifest(root).episodes[0]
    assert label_of(row).time_s == pytest.approx(0.6) and list(row.success_flags) == [
        False] * 3 + [True] * 7
    ask(server, 'label', {'episode': 0, 'outcome': 'discard'})
    assert ask(server, 'episodes')['episodes'][0]['label'] == {
        'outcome': 'discard', 'time_s': None, 'by': 'human:ann'}
    assert ask(server, 'label', {'episode': 0, 'outcome': ''})['label']['by'] == ''


def trace_of(server, number):
    while not (trace := ask(server, f'probability/{number}')).get('done'):
        pass
    return trace


def test_the_probability_is_the_nodes(server):
    """
    Guards the curve: what the runtime says of these frames, with its threshold and a proposal.

    The tiny bundle's score is the number of frames that it sees, up to three of two views.
    """
    trace = trace_of(server, 0)
    assert trace['times'] == pytest.approx(TIMES) and trace['threshold'] == 0.8
    assert trace['probability'][:3] == pytest.approx([
        1 / (1 + np.exp(1 - 0.5 * frames)) for frames in (2, 4, 6)])
    assert trace['proposal'] == pytest.approx(0.4) and trace['note'] == ''
    # One view of two reaches sigmoid(0.5), which is below.
    alone = trace_of(server, 1)
    assert alone['proposal'] is None and 'VIEW_MISSING in 100% of ticks' in alone['note']
    assert 'no probability' in trace_of(server, 2)['note']


@pytest.mark.parametrize('port', [None, 70000])
def test_a_port_that_is_taken(server, port):
    """Guards the message: which port, and what to do."""
    with pytest.raises(HralignError, match=r'port \d+ cannot be used.*--port'):
        ReviewServer(server.review, port or server.server_port)


def test_no_bundle(root, tmp_path):
    """Guards the page without a bundle: there is nothing to draw and nothing to propose."""
    review = Review(write_data(tmp_path, [episode(1)]), 'ann')
    assert review.overview()['bundle'] is None and review.probability(0) == {}
    review.close()


@pytest.mark.parametrize('probability, expected', [
    ([0.9] * 6, 0.0), ([0.1, 0.9, 0.1, 0.9, 0.9, 0.9], 0.6), ([0.1] * 4 + [0.9] * 2, None),
    ([0.1] * 6, None), ([None] * 6, None), ([0.9, 0.9, None, 0.9, 0.9, 0.8], None)])
def test_proposals(probability, expected):
    """Guards against proposing a moment at which the probability only flickered."""
    times = [0.2 * i for i in range(6)]
    assert propose(times, probability, 0.8) == (
        None if expected is None else pytest.approx(expected))
    assert propose(times, probability, None) is None


def test_episodes_that_are_passed_by(tmp_path, monkeypatch):
    """
    Guards the page while somebody skips through thousands of episodes.

    Each left its images to be decoded behind it, and the one that is shown had to wait for all.
    """
    data = read_manifest(write_data(tmp_path, [episode(n) for n in range(6)]))
    frames = EpisodeFrames(data)
    decoded = []
    decode = frames._decode
    monkeypatch.setattr(frames, '_decode', lambda recording, number, *key: decoded.append(
        number) or decode(recording, number, *key))
    for number in range(6):
        frames.show(number)
    with pytest.raises(NotShownError):
        frames.image(0, 0, 0)
    assert frames.image(5, 0, 0) == frames.image(5, 0, 0) and decoded == [0, 5]


def test_images_in_memory_are_bounded(tmp_path, monkeypatch):
    """Guards a long review: images that were looked at long ago are let go, and come again."""
    monkeypatch.setattr('hralign_ros.review.frames._MOST_BYTES', 1)
    frames = EpisodeFrames(read_manifest(write_data(tmp_path, [episode(1)])))
    frames.show(0)
    first = frames.image(0, 0, 0)
    frames.image(0, 1, 0)
    assert len(frames._blocks) == 1 and frames.image(0, 0, 0) == first


def test_many_ask_for_one_block(tmp_path, monkeypatch):
    """Guards the strip of frames: what lies together is decoded once, whoever asks first."""
    frames = EpisodeFrames(read_manifest(write_data(tmp_path, [episode(1)])))
    frames.show(0)
    go, decoded = Event(), []
    decode = frames._decode
    monkeypatch.setattr(frames, '_decode', lambda *key: go.wait(30) and (
        decoded.append(key[1:]) or decode(*key)))
    threads = [Thread(target=frames.image, args=(0, 0, frame)) for frame in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert decoded == [(0, 'third_person', 0)]
