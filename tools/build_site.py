# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Build the documentation as a site with Sphinx, and follow every link within it.

    python tools/build_site.py                    # into build/site; open build/site/index.html
    python tools/build_site.py --output FOLDER

It fails where Sphinx warns or a link is dead. `make docs` installs what it needs.
"""

import argparse
from html.parser import HTMLParser
from pathlib import Path
import re
import subprocess
import sys
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
START = 'docs/index.html'
_TO_START = f"""\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>hralign_ros</title>
<meta http-equiv="refresh" content="0; url={START}"></head>
<body><a href="{START}">The documentation of hralign_ros</a></body></html>
"""


class _Page(HTMLParser):
    """The links of a page, and the names that links may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ('href', 'src') and value:
                self.links.add(value)
            elif key == 'id' and value:
                self.names.add(value)


def build(output: Path) -> list[str]:
    """
    Build the site anew, and return what Sphinx warns of.

    :raises subprocess.CalledProcessError: Sphinx failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        # Of each reference too that leads to nothing (-n); everything is read again (-E).
        [sys.executable, '-m', 'sphinx', '-q', '-n', '-E', '-c', 'docs', '-d',
         output / '.doctrees', '.', output],
        cwd=ROOT, check=True, stderr=subprocess.PIPE, text=True)
    (output / 'index.html').write_text(_TO_START, 'utf-8')
    return [line.replace(f'{ROOT}/', '') for line in done.stderr.splitlines() if line.strip()]


def dead(output: Path) -> list[str]:
    """Return the links of a built site, without those to other hosts, that lead nowhere."""
    pages = {path: _Page(path.read_text('utf-8')) for path in sorted(output.rglob('*.html'))}
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            if re.match(r'[a-z]+:|//', link):
                continue
            name, _, anchor = unquote(link).partition('#')
            target = (path.parent / name.partition('?')[0]).resolve() if name else path
            if not target.exists() or (
                    anchor and target in pages and anchor not in pages[target].names):
                found.append(f'{path.relative_to(output).as_posix()}: {link}')
    return found


def main() -> int:
    """Build and check; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--output', type=Path, default=ROOT / 'build/site')
    output = parser.parse_args().output.resolve()
    try:
        warnings, links = build(output), dead(output)
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return 1
    print('\n'.join([*warnings, *(f'dead link: {link}' for link in links),
                     f'{output}/index.html: {len(warnings)} warnings, {len(links)} dead links']))
    return bool(warnings or links)


if __name__ == '__main__':
    sys.exit(main())
