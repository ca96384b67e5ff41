# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The worker by itself, without a node: what it does before its first frame."""

from threading import current_thread, Event

from hralign_ros.nodes.faults import Faults
from hralign_ros.nodes.pipeline import Callbacks, Pipeline
from hralign_ros.runtime import default_bundle, Encoder
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.errors import InferenceError
from hralign_ros.runtime.pairing import PairingRules
import pytest


@pytest.fixture
def encoder():
    """Load the shipped bundle, so that a test may change it."""
    return Encoder.load(default_bundle(), provider='cpu', threads=1)


def warmed_by(encoder, monkeypatch, *, records, problem=''):
    """Start and stop a worker; return the thread that warmed up, and what was said."""
    done, threads, said = Event(), [], {}

    def warm_up():
        threads.append(current_thread().name)
        done.set()
        if problem:
            raise InferenceError(problem)

    monkeypatch.setattr(Encoder, 'records', records)
    monkeypatch.setattr(encoder, 'warm_up', warm_up)
    faults = Faults(lambda key, text: said.update({key: text}), lambda key: None)
    pipeline = Pipeline(
        encoder, Callbacks(
            decode=lambda view, message: None, clock=lambda: 1, on_result=lambda result: None,
            after_result=lambda result: None, elapsed=lambda: 1),
        faults, required=encoder.manifest.views[:1], pairing=PairingRules(),
        decision=DecisionRules())
    pipeline.start()
    if records:
        assert done.wait(10.0)
    alive = pipeline._thread.is_alive()
    pipeline.stop()
    return threads, said, alive


def test_a_recorded_graph_is_recorded_by_the_thread_that_runs_it(encoder, monkeypatch):
    """
    Guards the first frame on a GPU that records its graphs.

    A recording belongs to the thread that made it. The node's thread warmed up, the worker
    recorded all over again while the first frame waited.
    """
    assert warmed_by(encoder, monkeypatch, records=True)[0] == ['hralign_worker']
    assert warmed_by(encoder, monkeypatch, records=False)[0] == []


def test_a_recording_that_fails_is_told_and_does_not_end_the_worker(encoder, monkeypatch):
    """Guards the worker: without it no camera would ever be heard again."""
    _, said, alive = warmed_by(encoder, monkeypatch, records=True, problem='out of memory')
    assert said == {'inference': 'out of memory'} and alive
