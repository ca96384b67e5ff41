# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A command is a function: its parameters are the options, and its docstring is their help.

Parameters before `/` are positional; `Sequence` means one or more values, and its option is in the
singular; `command` is filled with what was typed. Options that several commands have are described
once, in SHARED.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
import difflib
from importlib import import_module
import inspect
from pathlib import Path
import re
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints, Literal, NoReturn, TypeVar

from hralign_ros.runtime.errors import HralignError

Command = Callable[..., int | None]
Tree = Mapping[str, 'Command | tuple[str, Tree]']
Device = Literal['auto', 'cpu', 'cuda']
Workers = int | str
Options = TypeVar('Options')

SHARED = {
    'bundle': 'folder of the bundle; default: the shipped one',
    'data': 'data set: a folder with a manifest, as `hralign data` writes it',
    'device': 'auto takes a GPU where there is one',
    'features': 'folder of computed features; default: in the data set',
    'learning_rate': 'at its highest',
    'node': "the encoder's node with its namespace",
    'output': 'where to write',
    'params_file': "the node's parameter file, where its cameras recorded these videos: they are "
                   'turned and cropped as the node does (<view>.rotation, <view>.crop)',
    'report': 'report.json of the evaluation, for the card',
    'resume': 'continue what is in --output, exactly where it was stopped',
    'seed': 'of everything random',
    'split': 'only these splits of the data set',
    'split_file': 'YAML file that says which tasks, scenes and robots are held out; default: the '
                  'shipped one',
    'steps': 'of the optimiser',
    'workers': "processes that compute features, or 'ray'",
}


class Parser(argparse.ArgumentParser):
    """A parser that takes its options from a function when it is used, and not before."""

    command: Command | None = None

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; what is not known of a command is refused with the option that was meant."""
        if self.command is None:
            return super().parse_known_args(args, namespace)
        add_options(self, self.command)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._option_string_actions, 1)
            self.error(f"there is no '{unknown[0]}'"
                       + (f' (do you mean {near[0]}?)' if near else ''))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """End with one sentence."""
        self.exit(2, f'hralign: {message}; see {self.prog} --help\n')


def settings(place: str) -> Callable[[Command], Command]:
    """
    Give a command one option for each field of a dataclass, which it takes as `**changes`.

    :param place: module:CLASS below hralign_ros, imported when the command is used.
    """
    def mark(command: Command) -> Command:
        command.settings = place  # type: ignore[attr-defined]
        return command
    return mark


def changed(options: Options, changes: Mapping[str, Any]) -> Options:
    """Return a dataclass instance with some fields changed, those of nested ones too."""
    values: dict[str, Any] = {}
    for field in fields(options):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        if is_dataclass(value):
            values[field.name] = changed(value, changes)
        elif field.name in changes:
            given = changes[field.name]
            values[field.name] = tuple(given) if isinstance(given, list) else given
    return replace(options, **values)  # type: ignore[type-var]


def compute_on(device: str) -> None:
    """
    Choose the device and the CPU threads of a command, before it does any work.

    :raises HralignError: the device is not there.
    """
    from hralign_ros.training.devices import choose_device

    choose_device(device, print)


def read_views(texts: Sequence[str], example: str, option: str = '--view') -> dict[str, str]:
    """
    Read VIEW=WHAT texts.

    :raises HralignError: one is of another form, or a view is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        view, _, what = text.partition('=')
        if not view or not what or view in found:
            raise HralignError(f"{option} '{text}': needed is VIEW=WHAT, once for each view, for "
                               f'example {option} {example}')
        found[view] = what
    return found


def add_commands(parser: argparse.ArgumentParser, tree: Tree) -> None:
    """Add commands and groups of commands to a parser; their options are added when used."""
    commands = parser.add_subparsers(metavar='COMMAND', required=True, parser_class=Parser)
    for name, entry in tree.items():
        if isinstance(entry, tuple):
            text, below = entry
            add_commands(commands.add_parser(name, help=text, description=text), below)
            continue
        text, _ = described(entry)
        child = commands.add_parser(
            name, help=re.split(r'[.;:] ', text)[0].rstrip('.'), description=text)
        child.command = entry
        child.set_defaults(_command=entry)


def described(thing: Any) -> tuple[str, dict[str, str]]:
    """Read a docstring: what comes before the first `:param`, and the text of each parameter."""
    text, *parts = re.split(r'\n:(?:param )?', inspect.getdoc(thing) or '')
    named = (part.partition(': ') for part in parts)
    return ' '.join(text.split()), {name: ' '.join(words.split()) for name, _, words in named}


def add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add to a parser what a command takes."""
    _, texts = described(command)
    parameters = inspect.signature(command).parameters
    for name, parameter in parameters.items():
        if name != 'command' and parameter.kind is not parameter.VAR_KEYWORD:
            _add(parser, name, parameter.annotation, parameter.default, texts,
                 positional=parameter.kind is parameter.POSITIONAL_ONLY)
    if place := getattr(command, 'settings', None):
        module, _, kind = place.partition(':')
        _add_fields(parser.add_argument_group('settings'), getattr(
            import_module(f'hralign_ros.{module}'), kind)(), taken=set(parameters))


def _add_fields(parser: Any, options: Any, taken: set[str]) -> None:
    """Add the fields of a dataclass instance, those of nested ones too."""
    texts: dict[str, str] = {}
    for kind in reversed(type(options).__mro__):
        texts |= described(kind)[1] if is_dataclass(kind) else {}
    kinds = get_type_hints(type(options))
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            _add_fields(parser, value, taken)
        elif field.name not in taken:
            _add(parser, field.name, kinds[field.name], value, texts)


def _add(parser: Any, name: str, kind: Any, default: Any, texts: Mapping[str, str], *,
         positional: bool = False) -> None:
    """Add one option, whose value is absent where it is not given."""
    text = (texts.get(name) or SHARED.get(name, '')).rstrip('.')
    if default not in (inspect.Parameter.empty, None, '', ()) and not isinstance(default, bool):
        text += f' ({default if isinstance(default, (str, int, float)) else " ".join(default)})'
    more: dict[str, Any] = {'help': text.replace('%', '%%')}
    option = name
    if kind == Workers:
        kind = _workers
    if NoneType in get_args(kind):
        kind, = (one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) in (Sequence, tuple):
        kind = get_args(kind)[0]
        option = re.sub(r'(?<=s)es$|s$', '', name)
        more |= {'nargs': '+'} | ({} if positional else {'action': 'extend'})
    elif positional and default is None:
        more['nargs'] = '?'
    if get_origin(kind) is Literal:
        more['choices'] = get_args(kind)
    elif kind is bool:
        more['action'] = argparse.BooleanOptionalAction if default else 'store_true'
    else:
        more |= {'type': kind, 'metavar': option.upper() if positional or kind is str else
                 {Path: 'PATH', int: 'N', float: 'X', _workers: 'N|ray'}[kind]}
    if positional:
        parser.add_argument(name, **more)
    else:
        parser.add_argument(
            f'--{option.replace("_", "-")}', dest=name, default=argparse.SUPPRESS,
            required=default is inspect.Parameter.empty, **more)


def _workers(text: str) -> int | str:
    """Read how many processes, or where they are."""
    if text != 'ray' and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number nor 'ray'")
    return text if text == 'ray' else int(text)
