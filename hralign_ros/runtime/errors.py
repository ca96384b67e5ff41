# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What can go wrong in the runtime, one class per cause.

Every message says what came, what is allowed and what to do about it.
"""

from importlib import import_module
from pathlib import Path
from typing import Any


def install_line(extra: str = '') -> str:
    """
    Say how to install this package, which no package index has.

    :param extra: name of an optional part, such as adapt.
    """
    root = Path(__file__).resolve().parents[2]
    place = root if (root / 'package.xml').is_file() else '<path of hralign_ros or of its wheel>'
    return f"pip install '{place}{f'[{extra}]' if extra else ''}'"


class HralignError(Exception):
    """Base of all errors that a user can fix."""


class BundleError(HralignError):
    """A bundle is missing, damaged, or does not keep its contract."""


class SignatureError(BundleError):
    """A bundle's signature is missing or wrong, or a key cannot be used."""


class ProviderError(HralignError):
    """Onnxruntime is not usable as asked: not installed, unknown provider, no GPU."""


class TaskError(HralignError):
    """An instruction cannot be used: too long, or not text."""


class PolicyError(HralignError):
    """A policy is missing, damaged, or does not belong to what it is given."""


class DataError(HralignError):
    """A data set, or a video in it, is not what it should be."""


class InferenceError(HralignError):
    """A graph failed while running, or returned values that are not finite."""


def first_line(error: BaseException) -> str:
    """Shorten an error of another package to its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def import_package(name: str, kind: type[HralignError], remedy: str = '') -> Any:
    """
    Import a package that only some need, or a module of it.

    :param kind: the error that is raised where it is not installed.
    :param remedy: how to install it; default: by its own name.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition('.')[0]
        raise kind(f'{package} cannot be imported ({error}); '
                   f'{remedy or f"pip install {package}"}') from error


class FrameError(HralignError):
    """
    A camera frame cannot be used.

    :param reason: short snake_case key under which the drop is counted in diagnostics.
    :param text: one sentence for a person.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
