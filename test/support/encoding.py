# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Videos that tests write with encoders that the package itself does not use."""

from collections.abc import Callable
from threading import Thread


def in_a_thread(encode: Callable[[], None]) -> None:
    """
    Write a video in a thread that ends with it.

    The AV1 encoder SVT gives the thread that opens it real-time priority, where it may, and leaves
    it so. As root, in a container, all later tests of the process and the nodes that they started
    then ran above everything else on the computer.

    :raises BaseException: what `encode` raised.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            encode()
        except BaseException as error:  # also what skips a test
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
