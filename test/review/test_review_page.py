# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The review page in a browser without a window, by its keys."""

import json
from threading import Thread

from hralign_ros.data.manifest import read_manifest
from hralign_ros.review.labels import Label, label_of
from hralign_ros.review.server import Review, ReviewServer
import pytest
from support.chromium import Chromium, PROGRAM
from support.review_data import episode, TIMES, write_data
from support.tiny_bundle import robot_bundle

pytestmark = pytest.mark.skipif(PROGRAM is None, reason='there is no Chromium')
SHOWN = ('shown && [...document.querySelectorAll("main img")].every('
         '(one) => one.complete && one.naturalWidth > 0)')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Write three episodes: labelled, not labelled, with a broken video and a nasty name."""
    nasty = episode(3, task_text='<img src=x onerror=alert(1)>', robot_videos={
        'third_person': 'pick up the cup/003/a.mp4', '<b>"wrist"': 'pick up the cup/003/b.mp4'})
    root = write_data(tmp_path_factory.mktemp('data'), [
        episode(1, success=True, time_s=TIMES, success_flags=[False] * 5 + [True] * 5,
                tags=['by:model']), episode(2), nasty])
    (root / 'pick up the cup/003/b.mp4').write_bytes(b'broken')
    return root


@pytest.fixture(scope='module')
def browser(folder, tmp_path_factory):
    """Open the page."""
    review = Review(folder, 'ann', robot_bundle())
    with ReviewServer(review) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with Chromium(tmp_path_factory.mktemp('chromium')) as browser:
                browser.url = server.url
                yield browser
        finally:
            server.shutdown()
            thread.join()
            review.close()


@pytest.fixture
def page(browser):
    """Load it anew; whatever a test does, nothing comes from elsewhere or is complained of."""
    browser.said.clear()
    browser.visit('about:blank')
    browser.visit(browser.url)
    browser.wait('document.title.startsWith("Review of") && all.length === 3 && at >= 0')
    browser.run('show(all.findIndex((one) => one.id.endsWith("002")))')
    browser.wait(f'all[at].id.endsWith("002") && {SHOWN}')
    yield browser
    assert browser.complaints() == []
    assert all(one.startswith((browser.url, 'about:', 'data:')) for one in browser.addresses())


def saved(page, folder, number):
    """Wait until the manifest has what was said."""
    page.wait('$("saved").textContent === "all labels are in the manifest"')
    return next(label_of(one) for one in read_manifest(folder).episodes
                if one.episode_id.endswith(number))


def test_keys_label(page, folder):
    """Guards the keys: each says what its line in the help says."""
    page.press('f')
    page.wait('$("label").textContent === "failure (human:ann)"')
    page.press('s')
    page.wait('$("label").textContent === "success, no time (human:ann)"')
    for _ in range(4):
        page.press('ArrowRight')
    page.press('ArrowLeft')
    page.press('t')
    page.wait('$("label").textContent === "success at 0.60 s (human:ann)"')
    assert saved(page, folder, '002') == Label('success', pytest.approx(0.6), 'human:ann')
    page.press('d')
    page.wait('$("label").textContent === "discarded (human:ann)"')
    page.press('u')
    page.wait('$("label").textContent === "no label"')
    assert saved(page, folder, '002') == Label()
    # A browser's own shortcuts are left to it, and a key that is held down labels nothing.
    page.press('d', modifiers=2)
    page.press('f', autoRepeat=True)
    page.press('ArrowRight')
    page.wait('frame === 4')
    assert page.run('$("label").textContent') == 'no label'


def test_frames_and_proposal(page):
    """Guards the way to a time of success: the curve proposes it, and the images show it."""
    page.wait('trace && trace.done')
    assert page.run('document.querySelectorAll(".strip img").length') == 16
    assert page.run('$("curve").textContent').count('proposed: 0.40 s') == 1
    page.press('g')
    page.wait(f'frame === 2 && {SHOWN}')
    assert page.run('document.querySelector(".view img").src').endswith('/2')
    page.press('End')
    page.wait('frame === 9')
    page.press('ArrowLeft', modifiers=8)
    page.wait('frame === 0')
    page.press('t')
    page.wait('$("label").textContent.startsWith("success at 0.00 s")')
    assert page.run('document.querySelectorAll("#curve .accomplished").length') == 1
    page.press('u')
    page.wait('$("label").textContent === "no label"')


def test_episodes_and_help(page):
    """Guards the order and the way through it: who needs a label first, then the model's."""
    listed = page.run('[...document.querySelectorAll("#list b")].map((one) => one.textContent)')
    assert listed == ['no label', 'no label', 'success (model)']
    page.press('n')
    page.press('n')
    page.press('n')
    page.wait('at === 2')
    page.press('p')
    page.wait('at === 1')
    page.press('?')
    page.wait('$("help").open')
    page.press('f')
    page.press('?')
    page.wait('!$("help").open')
    assert page.run('all[at].label.outcome') == ''
    assert page.run('document.querySelectorAll("#keys tr").length') == 10


def test_a_broken_view(page, folder):
    """Guards episodes with a broken video, and names that are no HTML: shown, and labelled."""
    page.press('n')
    page.wait(f'all[at].id.endsWith("003") && {SHOWN}')
    assert page.run('$("task").textContent') == '<img src=x onerror=alert(1)>'
    assert page.run('document.querySelector(".broken").textContent').endswith(
        'This view cannot be shown; the episode can be labelled all the same.')
    page.press('f')
    page.wait('$("label").textContent === "failure (human:ann)"')
    assert saved(page, folder, '003').outcome == 'failure'
    page.press('u')
    page.wait('$("label").textContent === "no label"')
    assert saved(page, folder, '003') == Label()


def test_the_server_has_ended(page):
    """Guards against labels into nowhere: the page says that nobody is there any more."""
    page.send('Network.emulateNetworkConditions', offline=True, latency=0,
              downloadThroughput=-1, uploadThroughput=-1)
    page.press('f')
    page.wait('$("problem").textContent.startsWith("The review has ended")')
    page.send('Network.emulateNetworkConditions', offline=False, latency=0,
              downloadThroughput=-1, uploadThroughput=-1)
    assert page.run('$("label").textContent') == 'no label'
    # What the browser itself says of a network that is not there.
    page.said[:] = [one for one in page.said if 'ERR_INTERNET_DISCONNECTED' not in json.dumps(one)]
