# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Dataclasses as schemas of documents: one declaration from which they are read and written.

A field of a dataclass is a key of the document. Its type says what may stand there: bool, int,
float, str, a Literal, Annotated with Limits, a tuple (a list), a Mapping, another dataclass,
`| None`, or Any for what only people read. A field with a default may be missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, MISSING
from functools import cache
from reprlib import Repr
import sys
from types import UnionType
from typing import (
    Annotated,
    Any,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    Literal,
    TypeVar,
    Union,
)

T = TypeVar('T')


@dataclass(frozen=True)
class Limits:
    """Least and most of a number, or of the length of a text, a list or a mapping."""

    low: float = -sys.float_info.max
    high: float = sys.float_info.max


Text = Annotated[str, Limits(1)]
# In the metadata of a field that is no part of the document.
NOT_STORED = {'stored': False}


class _Brief(Repr):

    def repr_int(self, value: int, level: int) -> str:
        """Print a number that Python itself may refuse to print."""
        return repr(value) if value.bit_length() <= 128 else f'{value.bit_length()} bits long'


_BRIEF = _Brief()
_BRIEF.maxlevel = 2


def in_brief(value: Any) -> str:
    """Print a value of YAML: in full its aliases multiply, and its numbers have no end."""
    return _BRIEF.repr(value)


def is_text(value: Any) -> bool:
    """Whether a message can carry a value as text; YAML can spell halves of characters."""
    return isinstance(value, str) and not any('\ud800' <= c <= '\udfff' for c in value)


@cache
def _stored(kind: Any) -> dict[str, tuple[Any, Any]]:
    """Return the type and the default of each field that a document has, by its key."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: (hints[field.name], field.default if field.default_factory is MISSING
                     else field.default_factory())
        for field in fields(kind) if field.metadata.get('stored', True)}


def parse(kind: type[T], document: Any, name: str = '') -> T:
    """
    Read a dataclass from a document of plain values.

    :param name: of the document, for errors.
    :raises ValueError: a value is missing, senseless or of another type, or a key is not known.
    """
    if not isinstance(document, dict):
        raise ValueError(f'{name or "the document"} is not a mapping')
    prefix, values, stored = f'{name}.' if name else '', {}, _stored(cast(Any, kind))
    for key, (hint, default) in stored.items():
        if key in document:
            values[key] = _value(hint, document[key], prefix + key)
        elif default is MISSING:
            raise ValueError(f'{prefix}{key} is missing; needed is {_need(hint)}')
    unknown = [in_brief(key) for key in document if key not in stored]
    if unknown:
        raise ValueError(f'{name or "the document"} has {", ".join(unknown[:3])}; allowed are '
                         f'{", ".join(stored)}')
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f'{name}: {error}' if name else str(error)) from error


def _value(hint: Any, value: Any, name: str) -> Any:
    """Read one value of a document."""
    limits = Limits()
    plain = hint
    if get_origin(hint) is Annotated:
        plain, limits = get_args(hint)
    origin, inner = get_origin(plain), get_args(plain)
    if plain is Any:
        return value
    if origin in (Union, UnionType):
        return None if value is None else _value(inner[0], value, name)
    if isinstance(plain, type) and is_dataclass(plain):
        return parse(plain, value, name)
    if origin is Literal:
        good = isinstance(value, str) and value in inner
    elif origin is tuple:
        good = isinstance(value, list) and limits.low <= len(value) <= limits.high
        if good:
            return tuple(_value(inner[0], one, f'{name}[{i}]') for i, one in enumerate(value))
    elif origin is Mapping:
        good = isinstance(value, dict)
        if good:
            return {_value(inner[0], key, f'{name}: a key'):
                    _value(inner[1], one, f'{name}.{in_brief(key)}')
                    for key, one in value.items()}
    elif plain is str:
        good = is_text(value) and limits.low <= len(value) <= limits.high
    elif plain is bool:
        good = isinstance(value, bool)
    else:
        good = isinstance(value, int if plain is int else (int, float)) \
            and not isinstance(value, bool) and limits.low <= value <= limits.high
    if not good:
        raise ValueError(f'{name} is {in_brief(value)}; needed is {_need(hint)}')
    return float(value) if plain is float else value


def _need(hint: Any) -> str:
    """Say what a value has to be."""
    between = ''
    if get_origin(hint) is Annotated:
        hint, limits = get_args(hint)
        between = f' from {limits.low:g}' if limits.low > -sys.float_info.max else ''
        between += f' to {limits.high:g}' if limits.high < sys.float_info.max else ''
    if get_origin(hint) is Literal:
        return f'one of those allowed: {", ".join(get_args(hint))}'
    if hint is str:
        return f'a text of{between} characters' if between else 'a text'
    if get_origin(hint) is tuple:
        return f'a list of{between} entries' if between else 'a list'
    return {bool: 'true or false', int: 'a whole number', float: 'a number'}.get(
        hint, 'a mapping') + between


def to_document(value: Any) -> Any:
    """
    Write a dataclass as plain values, from which `parse` reads the same.

    Fields that are as their default are left out.
    """
    if is_dataclass(value):
        return {key: to_document(getattr(value, key))
                for key, (_, default) in _stored(cast(Any, type(value))).items()
                if default is MISSING or getattr(value, key) != default}
    if isinstance(value, Mapping):
        return {key: to_document(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_document(one) for one in value]
    return value
