# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Check the links of every Markdown page of the repository, and that the site shows every page.

    python tools/check_links.py              # files and anchors; no network
    python tools/check_links.py --external   # other hosts, too

Standard library only.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
import re
import subprocess
import sys
import urllib.error
from urllib.parse import unquote
import urllib.request

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / 'docs/index.rst'
# Text, then a target without spaces; of an image, too. A text may have brackets in it once.
_LINK = re.compile(r'\[(?:(?!\n\n)[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()\s]*\))?)\)')
_RST_LINK = re.compile(r'`[^`<>]*<(https?://[^>]+)>`_')
_BARE = re.compile(r'<(https?://[^>\s]+)>')
_HEADING = re.compile(r'^#{1,6} +(.+?) *#*$')
_FENCE = re.compile(r'^ *(```+|~~~+)')
# Names that never lead anywhere (RFC 2606): of machines that a reader has to fill in.
_RESERVED = re.compile(r'https?://([^/]+\.)?(example|localhost|127\.0\.0\.1)\b')


@dataclass(frozen=True)
class Link:
    """A link of a page."""

    page: Path
    line: int
    target: str

    def __str__(self) -> str:
        return f'{self.page.relative_to(ROOT).as_posix()}:{self.line}: {self.target}'


def pages() -> list[Path]:
    """Return the Markdown and reStructuredText files that git knows, sorted."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', '*.md',
         '*.rst'], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = {ROOT / name for name in listed.split('\0') if name}
    return sorted(path for path in found if path.is_file())


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Go through the lines of a page, numbered from 1, without code blocks."""
    fence = ''
    for number, line in enumerate(path.read_text('utf-8').splitlines(), 1):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = '' if fence else mark[1]
        elif not fence and not line.startswith('    '):
            yield number, line


def links(path: Path) -> list[Link]:
    """Return the links of a page."""
    text, line = '', 1
    for number, said in prose(path):
        text += '\n' * (number - line) + said
        line = number
    if path.suffix == '.md':
        text = re.sub(r'`[^`\n]*`', lambda code: 'x' * len(code[0]), text)
    return [Link(path, 1 + text.count('\n', 0, match.start(1)), match[1])
            for form in (_LINK if path.suffix == '.md' else _RST_LINK, _BARE)
            for match in form.finditer(text)]


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges and the site name them."""
    found: set[str] = set()
    for _, line in prose(path):
        heading = _HEADING.match(line)
        if heading:
            text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading[1])
            slug = base = re.sub(r'[^\w\- ]', '', text.strip().lower()).replace(' ', '-')
            number = 0
            while slug in found:
                number += 1
                slug = f'{base}-{number}'
            found.add(slug)
    return found


def dead(page: Path) -> list[str]:
    """Return what is wrong with each link of a page that leads to no file or to no heading."""
    found = []
    for link in links(page):
        if re.match(r'[a-z]+:', link.target):
            continue
        name, _, anchor = unquote(link.target).partition('#')
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or not target.is_relative_to(ROOT):
            found.append(f'{link}: no such file in the repository')
        elif anchor and (target.suffix != '.md' or anchor not in anchors(target)):
            found.append(f'{link}: no heading of {target.relative_to(ROOT).as_posix()} is '
                         f'called so; it has {", ".join(sorted(anchors(target)))}')
    return found


def in_tree() -> list[str]:
    """Return the pages that the site's tables of contents name, from the repository's root."""
    found, within = [], False
    for line in INDEX.read_text('utf-8').splitlines():
        if line.startswith('.. toctree::'):
            within = True
        elif line and not line.startswith(' '):
            within = False
        elif within and line.strip() and not line.strip().startswith(':'):
            name = re.sub(r'.*<(.+)>$', r'\1', line.strip())
            # From the repository's root, which Sphinx reads.
            path = ROOT / name[1:] if name.startswith('/') else INDEX.parent / name
            found.append(path.resolve().relative_to(ROOT).as_posix())
    return found


def lost() -> list[str]:
    """Return what is wrong with the tree: pages that it lacks, has twice, or that are gone."""
    named = in_tree()
    there = {path.relative_to(ROOT).with_suffix('').as_posix() for path in pages()}
    wanted = {name for name in there if name.startswith('docs/') and name != 'docs/index'}
    return [*(f'{name}: in no table of contents of docs/index.rst'
              for name in sorted(wanted - {*named})),
            *(f'{name}: {named.count(name)} times in docs/index.rst'
              for name in sorted({*named}) if named.count(name) > 1),
            *(f'{name}: in docs/index.rst, but there is no such page'
              for name in sorted({*named} - there))]


def unreachable(url: str, timeout_s: float = 20.0) -> str | None:
    """Fetch a page of another host; return why it could not be had, or None."""
    request = urllib.request.Request(url.partition('#')[0], headers={'User-Agent': 'Mozilla/5.0'})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):
            return None
    except urllib.error.HTTPError as error:
        # Such a host answers, only not to programs.
        return None if error.code in (403, 429) else f'HTTP {error.code}'
    except (OSError, ValueError) as error:
        return str(getattr(error, 'reason', error))


def main() -> int:
    """Check, and print what is wrong; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--external', action='store_true', help='other hosts, too')
    arguments = parser.parse_args()
    found = [*(text for page in pages() for text in dead(page)), *lost()]
    checked = sum(len(links(page)) for page in pages())
    if arguments.external:
        outside = {link.target: link for page in pages() for link in links(page)
                   if link.target.startswith('http') and not _RESERVED.match(link.target)}
        for url, link in outside.items():
            reason = unreachable(url)
            print(f'{"dead" if reason else "ok":6}{url}', flush=True)
            found += [f'{link}: {reason}'] if reason else []
    print('\n'.join([*found, f'{checked} links of {len(pages())} pages, {len(found)} dead']))
    return bool(found)


if __name__ == '__main__':
    sys.exit(main())
