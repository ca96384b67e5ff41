# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write docs/reference/messages.md, every field of hralign_msgs, from the comments in its files.

    python tools/write_messages.py

How a comment is read: the first block of a file is about the whole. A comment on a field's line,
and the indented lines below it, are about that field. A block above a field is about it too; where
the block begins a paragraph of several fields, about all of them. Constants belong to the field
that follows them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
import re

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/reference/messages.md'
_KINDS = (('msg', 'Messages', ('',)), ('srv', 'Services', ('Request', 'Response')),
          ('action', 'Actions', ('Goal', 'Result', 'Feedback')))
_HEADER = """\
# Messages, services and actions

Written by `python tools/write_messages.py` from the comments of `hralign_msgs`, which
`ros2 interface show hralign_msgs/msg/TaskEmbedding` prints, too.
"""
_ITEM = re.compile(r'(?P<type>[\w/]+(?:<=\d+)?(?:\[[<=\d]*\])?) +(?P<name>\w+)'
                   r'(?: *= *(?P<value>[^#]+?))? *(?:#(?P<text>.*))?')


@dataclass
class Item:
    """A field or a constant: what is said above it and beside it; of a field, its constants."""

    kind: str
    name: str
    value: str | None
    text: list[str]
    above: list[str] = field(default_factory=list)
    constants: list['Item'] = field(default_factory=list)


@dataclass
class Paragraph:
    """Fields without an empty line between them, and what is said of all of them."""

    text: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)


def read(lines: Iterable[str]) -> tuple[list[str], list[Paragraph]]:
    """
    Read one part of a file.

    :return: the lines of its first comment, and its paragraphs.
    :raises ValueError: a line is neither a comment nor a field.
    """
    paragraphs, above, constants = [Paragraph()], [], []
    first: list[str] | None = None
    for line in lines:
        item = _ITEM.fullmatch(line)
        if not line.strip():
            if above:
                if first is None:
                    first = above
                else:
                    paragraphs[-1].text += above
                above = []
            if paragraphs[-1].items:
                paragraphs.append(Paragraph())
        elif line.startswith('#'):
            above.append(line.removeprefix('#').removeprefix(' '))
        elif line.lstrip().startswith('#'):
            (constants or paragraphs[-1].items)[-1].text.append(line.strip('# '))
        elif item is None:
            raise ValueError(f'{line!r} is neither a comment nor a field')
        else:
            now = Item(item['type'], item['name'], item['value'],
                       [item['text'].strip()] if item['text'] else [])
            if above and first is None:
                first, above = above, []
            if above and not paragraphs[-1].items and not constants:
                paragraphs[-1].text, above = above, []
            now.above, above = above, []
            if item['value'] is not None:
                constants.append(now)
            else:
                now.constants, constants = constants, []
                paragraphs[-1].items.append(now)
    return first or above, [paragraph for paragraph in paragraphs if paragraph.items]


def _markdown(lines: Iterable[str]) -> str:
    """Join lines of a comment; one that is indented, or is about stamp or frame_id, is apart."""
    text = ''
    for line in lines:
        apart = re.match(r'  \S|stamp: |frame_id: ', line) and text
        text += ('<br>' if apart else ' ' if text else '') + _escaped(line.strip())
    return text


def _escaped(text: str) -> str:
    """Keep signs from meaning anything in a cell."""
    return re.sub(r'([|*])', r'\\\1', text.replace('<', '&lt;'))


def _type(name: str, own: set[str]) -> str:
    """Write a type, with a link where it is on this page."""
    base, bracket, rest = name.partition('[')
    end = f'{bracket}{rest}'.replace('[', '\\[')
    return f'[{base}](#{base.lower()}){end}' if base in own else f'`{name}`'


def _table(paragraphs: Iterable[Paragraph], own: set[str]) -> list[str]:
    rows = ['| field | type | meaning |', '|---|---|---|']
    for paragraph in paragraphs:
        text = paragraph.text
        if text and len(paragraph.items) > 1:
            rows.append(f'| | | **{_markdown(text)}** |' if len(' '.join(text)) < 60
                        else f'| | | {_markdown(text)} |')
            text = []
        for item in paragraph.items:
            said = [_markdown(one) for one in (text, item.above, item.text) if one]
            said += [f'`{one.name}` = {one.value}' + (
                f': {_markdown([*one.above, *one.text])}' if one.above or one.text else '')
                for one in item.constants]
            rows.append(f'| `{item.name}` | {_type(item.kind, own)} | {"<br>".join(said)} |')
            text = []
    return rows


def make_page(folder: Path = ROOT / 'hralign_msgs') -> str:
    """Make the page from the files in a package of interfaces."""
    own = {path.stem for path in folder.glob('msg/*.msg')}
    overview, sections = [], []
    for kind, title, parts in _KINDS:
        files = sorted(folder.glob(f'{kind}/*.{kind}'))
        overview += ['', f'| {title} | |', '|---|---|']
        for path in files:
            split = re.split(r'^---$', path.read_text('utf-8'), flags=re.M)
            sections += ['', f'## {path.stem}', '', f'`hralign_msgs/{kind}/{path.stem}`']
            for number, (part, text) in enumerate(zip(parts, split, strict=True)):
                # What is above the first line of dashes may begin with what the whole is for.
                first, paragraphs = read(text.splitlines() if not number else ['', *_whole(text)])
                if not number:
                    said = '\n\n'.join(_markdown(block) for block in _blocks(first))
                    sections += ['', said]
                    overview.append(
                        f'| [{path.stem}](#{path.stem.lower()}) | '
                        f'{re.split(r"(?<=[.;]) ", _markdown(first), maxsplit=1)[0]} |')
                if part:
                    sections += ['', f'**{part}**']
                sections += ['', *(_table(paragraphs, own) if paragraphs else ['No fields.'])]
    return '\n'.join([_HEADER.rstrip('\n'), *overview, *sections]) + '\n'


def _whole(text: str) -> list[str]:
    """Give a later part no comment of its own: all of its comments are about fields."""
    return ['#', '', *text.strip('\n').splitlines()]


def _blocks(lines: list[str]) -> list[list[str]]:
    """Split a comment where a line of it is empty."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return blocks


if __name__ == '__main__':
    PAGE.write_text(make_page(), encoding='utf-8')
