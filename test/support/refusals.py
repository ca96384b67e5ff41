# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Refusals of bundles: one line, named, and of use."""

import functools
import re
from typing import Any

from hralign_ros.runtime import BundleError, Encoder
import pytest

GRAPHS = ('preprocess.onnx', 'visual.onnx', 'embed.onnx', 'spatial.onnx', 'success.onnx',
          'text.onnx')
MISSING = object()
# What an error may offer: how to fix it, or what is needed in place of what came.
REMEDY = re.compile(
    r'again|needed|allowed|update|is .* a bundle\?|a bundle is the directory|export|set '
    r'|belong together|another version|no ONNX file|not YAML|not a mapping|only|no bundle is',
    re.IGNORECASE)


def refusal(path: Any, *names: str, load: Any = None) -> str:
    """Load a bundle that must be refused; check that the error is one line, named and of use."""
    with pytest.raises(BundleError) as caught:
        (load or functools.partial(Encoder.load, provider='cpu', threads=1))(path)
    text = str(caught.value)
    assert '\n' not in text.strip(), text
    assert len(text) < 1000, text
    for name in names:
        assert name in text, text
    assert REMEDY.search(text), text
    return text


def put(document: dict[str, Any], dotted: str, value: Any) -> None:
    """Set or, with MISSING, delete one field."""
    *path, last = dotted.split('/')
    for key in path:
        document = document[key]
    if value is MISSING:
        del document[last]
    else:
        document[last] = value
