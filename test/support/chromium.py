# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A Chromium without a window, told what to do over a pair of pipes: no package is needed."""

import base64
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from threading import Timer
import time

PROGRAM = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)
# A browser that has said nothing for so long is ended [s].
_DEADLINE_S = 90.0
# A shell cannot name descriptors above 9.
_LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
# What a key is called, of those that have no sign.
_CODES = {'ArrowLeft': 37, 'ArrowRight': 39, 'End': 35, 'Home': 36}


class Chromium:
    """A browser with one page, as a context manager."""

    def __init__(self, folder: Path, size=(1280, 800)):
        # From the parent's point of view; the browser reads its file 3 and writes its file 4.
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        self._log = open(folder / 'chromium.log', 'wb')
        self._process = subprocess.Popen(
            [sys.executable, '-c', _LAUNCH, str(theirs_in), str(theirs_out), PROGRAM,
             '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             '--no-first-run', '--disable-background-networking', '--remote-debugging-pipe',
             '--force-color-profile=srgb', '--hide-scrollbars',
             f'--window-size={size[0]},{size[1]}', f'--user-data-dir={folder / "profile"}',
             'about:blank'],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=self._log,
            stderr=self._log, start_new_session=True,
            env={**os.environ, 'HOME': str(folder)})
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number, self._session = b'', 0, None
        self.said = []
        page = next(one for one in self.send('Target.getTargets')['targetInfos']
                    if one['type'] == 'page')
        self._session = self.send('Target.attachToTarget', targetId=page['targetId'],
                                  flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.send(f'{domain}.enable')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._log.close()

    def send(self, method, **parameters):
        """Send a command of the DevTools protocol and return its result."""
        answer = self._ask(method, parameters)
        assert 'error' not in answer, answer
        return answer['result']

    def _ask(self, method, parameters):
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._to, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._number:
                return answer
            self.said.append(answer)

    def _read(self):
        while b'\0' not in self._buffer:
            timer = Timer(_DEADLINE_S, self._process.kill)
            timer.start()
            more = os.read(self._from, 1 << 20)
            timer.cancel()
            assert more, 'Chromium has ended; chromium.log says more'
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(line)

    def visit(self, url):
        """Go to an address."""
        self.send('Page.navigate', url=url)

    def run(self, script):
        """Run an expression in the page and return its value; it may be a promise."""
        found = self.send('Runtime.evaluate', expression=script, returnByValue=True,
                          awaitPromise=True)
        assert 'exceptionDetails' not in found, found
        return found['result'].get('value')

    def wait(self, condition):
        """Wait until an expression is true, and return it; meanwhile the page may be another."""
        end = time.monotonic() + _DEADLINE_S
        while time.monotonic() < end:
            answer = self._ask('Runtime.evaluate', {
                'expression': condition, 'returnByValue': True, 'awaitPromise': True})
            if found := answer.get('result', {}).get('result', {}).get('value'):
                return found
            time.sleep(0.02)
        raise AssertionError(f'{condition}: still {answer}')

    def press(self, key, **more):
        """Press and release a key."""
        text = {'text': key} if len(key) == 1 else {}
        code = _CODES.get(key, ord(key[0].upper()))
        for kind in ('keyDown', 'keyUp'):
            self.send('Input.dispatchKeyEvent', type=kind, key=key, windowsVirtualKeyCode=code,
                      **more, **(text if kind == 'keyDown' else {}))

    def picture(self, path, **more):
        """Write what is seen into a file: PNG, or as told."""
        found = self.send('Page.captureScreenshot', **more)
        Path(path).write_bytes(base64.b64decode(found['data']))

    def complaints(self):
        """List what the page has said to the console, errors of the network among it."""
        return [json.dumps(one) for one in self.said if one.get('method') in (
            'Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded')]

    def addresses(self):
        """List what was asked for over the network."""
        return [one['params']['request']['url'] for one in self.said
                if one.get('method') == 'Network.requestWillBeSent']
