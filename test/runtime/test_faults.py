# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""When faults are told: once at their begin, once at their end, however they flicker."""

from hralign_ros.runtime.faults import Faults, QUIET
import pytest


class Book:
    """Faults on a clock that the test turns, with what was told."""

    def __init__(self) -> None:
        self.now = 0
        self.told: list[str] = []
        self.faults = Faults(lambda key, text: self.told.append(f'begin {key}: {text}'),
                             lambda key: self.told.append(f'end {key}'), lambda: self.now)


@pytest.fixture
def book() -> Book:
    """Give an empty book."""
    return Book()


def test_a_fault_is_told_once_and_its_end_once(book: Book) -> None:
    """It ends when it has gone well since, and been quiet for long enough."""
    for _ in range(5):
        book.faults.bad('camera', 'dead')
        book.now += QUIET
        book.faults.settle()
    assert book.told == ['begin camera: dead'], 'nothing has gone well yet'
    book.faults.good('camera')
    book.faults.settle()
    assert book.told[1:] == ['end camera']
    assert not book.faults.lasting()
    book.faults.bad('camera', 'dead')
    assert book.told[2:] == ['begin camera: dead']


def test_a_fault_that_flickers_is_one_fault(book: Book) -> None:
    """
    Every other image broken, at 30 Hz: two lines, not sixty a second.

    Each good image used to end the fault, and each bad one to begin it again.
    """
    for i in range(300):
        if i % 2:
            book.faults.bad('images', f'broken {i}')
        else:
            book.faults.good('images')
        book.now += 33_000_000
        book.faults.settle()
    assert book.told == ['begin images: broken 1']
    assert book.faults.lasting() == {'images': 'broken 299'}
    book.now += QUIET
    book.faults.good('images')
    book.faults.settle()
    assert book.told[1:] == ['end images']


def test_what_goes_well_before_it_is_bad_does_not_end_it(book: Book) -> None:
    """A fault of something that has gone well earlier lasts until it goes well again."""
    book.faults.good('model')
    book.faults.bad('model', 'NaN')
    book.now += 10 * QUIET
    book.faults.settle()
    assert book.faults.lasting() == {'model': 'NaN'}


def test_clear_forgets_without_a_word(book: Book) -> None:
    """Deactivating is no recovery."""
    book.faults.bad('wrist stamps', 'zero')
    book.faults.bad('model', 'NaN')
    book.faults.clear()
    assert not book.faults.lasting() and len(book.told) == 2
