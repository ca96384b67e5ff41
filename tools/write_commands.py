# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write docs/reference/commands.md, what each command of `hralign` does and takes, from its own help.

    python tools/write_commands.py
"""

import argparse
from pathlib import Path

from hralign_ros.cli.main import TREE
from hralign_ros.cli.options import add_options, described, Parser, Tree

PAGE = Path(__file__).resolve().parents[1] / 'docs/reference/commands.md'
_HEADER = """\
# Commands

Written by `python tools/write_commands.py` from the commands' own help (`hralign COMMAND --help`).
Defaults are in brackets. An option that takes several values is followed by all of them, or given
several times.
"""


def make_page(tree: Tree = TREE, words: tuple[str, ...] = ('hralign',)) -> str:
    """Make the page, or the part of it that is about some commands."""
    parts = [_HEADER] if tree is TREE else []
    for name, entry in tree.items():
        here = (*words, name)
        if isinstance(entry, tuple):
            parts.append(make_page(entry[1], here))
            continue
        parser = Parser()
        add_options(parser, entry)
        parts.append('\n'.join([
            f'## {" ".join(here)}', '', described(entry)[0], '', '| option | |', '|---|---|',
            *(_row(action) for action in parser._actions if action.dest != 'help')]) + '\n')
    return '\n'.join(parts)


def _row(action: argparse.Action) -> str:
    """Write one option as a row of a table."""
    value = str(action.metavar or '|'.join(action.choices or ()))
    words = [' / '.join(action.option_strings), value, '...' if action.nargs == '+' else '']
    needed = '**needed**; ' if action.required and action.option_strings else ''
    text = (action.help or '').replace('%%', '%').replace('<', '&lt;')
    cells = f'`{" ".join(filter(None, words))}`', needed + text
    # A bar within a cell would end it.
    return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'


if __name__ == '__main__':
    PAGE.write_text(make_page(), encoding='utf-8')
