# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The review page's server: this computer alone reaches it, and only who knows the address.

Every address begins with a secret that is made anew for each run, so that neither other users of
the computer nor pages of other sites that are open in the same browser can read or label. The
Host header is checked, because a site may point a name of its own at this computer.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
import json
from pathlib import Path
import secrets
import signal
import sys
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from hralign_ros.data.manifest import DataError
from hralign_ros.review.frames import EpisodeFrames, NotShownError
from hralign_ros.review.labels import human, Label, OUTCOMES
from hralign_ros.review.store import LabelStore
from hralign_ros.review.traces import Traces
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import first_line, HralignError
from hralign_ros.runtime.labels import SUCCESS
from hralign_ros.runtime.report import Report

ADDRESS = '127.0.0.1'
_NAMES = (ADDRESS, 'localhost')
# A label is shorter than that by far.
_MOST_BYTES = 4096
# A browser that has sent half a request is not waited for longer [s].
_TIMEOUT_S = 60.0


class Review:
    """
    What the page shows and changes.

    :param bundle: shows its probability; None: none is shown.
    :param name: of who labels; '': the login name.
    :raises DataError: a name that is none, or as LabelStore.
    """

    def __init__(
        self, root: Path, name: str, bundle: Path | None = None, report: Report = print,
    ) -> None:
        self.by = human(name)
        encoder = None if bundle is None else Encoder.load(bundle)
        self.store = LabelStore(root, report)
        self.data = self.store.data
        self.frames = EpisodeFrames(self.data)
        self.bundle = encoder and encoder.manifest.name
        self.traces = None if encoder is None else Traces(self.data, encoder)
        # Labels come into the journal in the order in which they were given.
        self._labelling = Lock()

    def close(self) -> None:
        """
        Write what is not yet in the manifest.

        :raises DataError: it cannot be written; the next review does it.
        """
        if self.traces:
            self.traces.close()
        self.store.close()

    def overview(self) -> dict[str, Any]:
        """List the episodes."""
        return {'data': self.data.folder.name, 'by': self.by, 'bundle': self.bundle, 'episodes': [
            {'id': e.episode_id, 'task': e.task_text, 'label': asdict(self.store.label(e))}
            for e in self.data.episodes]}

    def episode(self, number: int) -> dict[str, Any]:
        """Tell what there is to see of an episode, which is shown from now on."""
        episode, recording = self.data.episodes[number], self.frames.show(number)
        return {
            'times': recording.times.tolist(), 'label': asdict(self.store.label(episode)),
            'views': [{'name': view, 'broken': recording.broken.get(view, '')}
                      for view in episode.robot_videos]}

    def probability(self, number: int) -> dict[str, Any]:
        """Tell what is known of the probability over time, and compute the rest."""
        return asdict(self.traces.trace(number)) if self.traces else {}

    def label(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """
        Label an episode.

        :param wanted: `episode` (its number), `outcome`, and `frame`: of a success, which frame
            shows it first; without it, a success keeps the time that it has.
        :returns: `label`, `unwritten` (not yet in the manifest), `warning`.
        :raises DataError: it is not as described.
        """
        number, outcome, frame = (wanted.get(key) for key in ('episode', 'outcome', 'frame'))
        if type(number) is not int or not 0 <= number < len(self.data.episodes) \
                or outcome not in OUTCOMES:
            raise DataError(f'episode {number!r} cannot be labelled {outcome!r}')
        episode = self.data.episodes[number]
        times = self.frames.show(number).times
        if frame is not None and (outcome != SUCCESS or type(frame) is not int
                                  or not 0 <= frame < len(times)):
            raise DataError(f'frame {frame!r}: it has {len(times)}, and a success has one')
        with self._labelling:
            label = Label(outcome, by=self.by)
            old = self.store.label(episode)
            if frame is not None:
                label = replace(label, time_s=float(times[frame]))
            elif outcome == SUCCESS == old.outcome:
                label = replace(label, time_s=old.time_s)
            warning = self.store.give(episode, label, times.tolist())
            return {'label': asdict(self.store.label(episode)), 'warning': warning,
                    **self.state()}

    def state(self) -> dict[str, Any]:
        """Tell what a person should know whatever is shown."""
        return {'unwritten': self.store.unwritten, 'failure': self.store.failure}


class ReviewServer(ThreadingHTTPServer):
    """
    Serves a review on this computer.

    :param port: 0: any that is free.
    :ivar url: the address of the page, with its secret.
    :raises HralignError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise HralignError(f'port {port} cannot be used: {first_line(error)}; name another '
                               'with --port, or none: then it is one that is free') from error
        self.review = review
        self.token = secrets.token_urlsafe(18)
        self.hosts = frozenset(f'{name}:{self.server_port}' for name in _NAMES)
        self.url = f'http://{ADDRESS}:{self.server_port}/{self.token}/'

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that go away in the middle of an image."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: ReviewServer
    protocol_version = 'HTTP/1.1'
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:  # noqa: N802  # http.server names it
        """Give the page, images and numbers."""
        self._answer(self._get)

    def do_POST(self) -> None:  # noqa: N802
        """Take a label."""
        self._answer(self._post)

    def _answer(self, handle: Any) -> None:
        """Check where a request comes from, and answer it."""
        try:
            path = unquote(urlsplit(self.path).path)
            token, _, rest = path.removeprefix('/').partition('/')
            if self.headers.get('Host') not in self.server.hosts or not secrets.compare_digest(
                    token.encode(), self.server.token.encode()):
                self._refuse(HTTPStatus.FORBIDDEN, 'Use the address that the command printed.')
            else:
                handle(rest)
        except NotShownError:
            self._refuse(HTTPStatus.GONE, 'Another episode is shown.')
        except (KeyError, IndexError, ValueError) as error:
            self._refuse(HTTPStatus.NOT_FOUND, f'There is no such thing: {error}')
        except DataError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))

    def _get(self, rest: str) -> None:
        review, parts = self.server.review, rest.split('/')
        match parts:
            case ['']:
                nonce = secrets.token_urlsafe(12)
                page = resources.files('hralign_ros.review').joinpath('page.html')
                self._send(page.read_bytes().replace(b'NONCE', nonce.encode()),
                           'text/html; charset=utf-8', nonce=nonce)
            case ['episodes']:
                self._send_json(review.overview())
            case ['state']:
                self._send_json(review.state())
            case ['episode', number]:
                self._send_json(review.episode(_number(number)))
            case ['probability', number]:
                self._send_json(review.probability(_number(number)))
            case ['image', number, view, frame]:
                self._send(review.frames.image(_number(number), _number(view), _number(frame)),
                           'image/jpeg', keep=True)
            case _:
                raise KeyError(rest)

    def _post(self, rest: str) -> None:
        origin, length = self.headers.get('Origin'), self.headers.get('Content-Length', '')
        kind = self.headers.get('Content-Type', '').partition(';')[0].strip()
        if rest != 'label':
            raise KeyError(rest)
        # A page of another site could not name this type without being asked first.
        if (origin is not None and origin.removeprefix('http://') not in self.server.hosts) \
                or kind != 'application/json':
            self._refuse(HTTPStatus.FORBIDDEN, 'Labels come from the page itself.')
            return
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 'This is no label.')
            return
        wanted = json.loads(self.rfile.read(int(length)))
        if not isinstance(wanted, dict):
            raise ValueError('a label is an object')
        try:
            self._send_json(self.server.review.label(wanted))
        except OSError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, f'The label is not kept: {error}')

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), 'application/json')

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        # What may be left of the request is not read.
        self.close_connection = True
        self._send(text.encode(), 'text/plain; charset=utf-8', status)

    def _send(
        self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, *, nonce: str = '',
        keep: bool = False,
    ) -> None:
        """Send an answer; nothing in it may load from, or be shown by, anything else."""
        own = f"'nonce-{nonce}'" if nonce else "'none'"
        self.send_response(status)
        for name, value in {
                'Content-Type': kind, 'Content-Length': str(len(body)),
                'Cache-Control': 'private, max-age=3600' if keep else 'no-store',
                'Content-Security-Policy': (
                    f"default-src 'none'; script-src {own}; style-src {own}; "
                    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
                    "form-action 'none'; frame-ancestors 'none'"),
                'Referrer-Policy': 'no-referrer', 'X-Content-Type-Options': 'nosniff',
                'Cross-Origin-Resource-Policy': 'same-origin'}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header('Connection', 'close')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: the address is a secret, and nobody reads it."""


def _number(text: str) -> int:
    if not text.isdecimal():
        raise KeyError(text)
    return int(text)


def say(text: str) -> None:
    """Print a line at once, also where nobody is at the terminal."""
    print(text, flush=True)


def serve(
    root: Path, *, name: str, bundle: Path | None = None, port: int = 0, report: Report = say,
) -> None:
    """
    Serve the review page of a data set until it is interrupted; only the main thread can.

    :param root: folder of the manifest.
    :param name: of who labels; '': the login name.
    :param bundle: shows its probability; None: none is shown.
    :raises DataError: see LabelStore.
    :raises HralignError: the port or the bundle cannot be used.
    """
    review = Review(root, name, bundle, report)
    try:
        # A terminal that is closed ends it like Ctrl-C.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        with ReviewServer(review, port) as server:
            count = len(review.data.episodes)
            missing = sum(not review.store.label(e).outcome for e in review.data.episodes)
            report(f'{count} episodes, {missing} without a label; labels are by {review.by}')
            report(f'Open {server.url}')
            report('Ctrl-C ends it. Keep the address for yourself: who has it can label.')
            server.serve_forever()
    except KeyboardInterrupt:
        report('')
    finally:
        review.close()
