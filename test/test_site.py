# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The documentation hangs together: every page is in its tree, and every link leads somewhere."""

import importlib.util
from pathlib import Path
import re
import shutil
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(name):
    """Load one of the programs in tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look for it there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


check_links = load('check_links')


build_site = load('build_site')


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """Give the checker a repository of a few pages."""
    pages = {
        'README.md': '# Title\n\n[a page](docs/how_to/page.md#a-code-heading-2) and '
                     '[a\nfolder](docs/how_to/)\n',
        'docs/index.rst': 'Title\n=====\n\n.. toctree::\n   :maxdepth: 1\n\n   how_to/page\n',
        'docs/how_to/page.md': '# Page\n\n## A `code`, heading: (2)\n\n    [code](nowhere.md)\n\n'
                               '`[code](nowhere.md)`\n\n```\n[code](nowhere.md)\n# none\n```\n'}
    for name, text in pages.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(check_links, 'ROOT', tmp_path)
    monkeypatch.setattr(check_links, 'INDEX', tmp_path / 'docs/index.rst')
    monkeypatch.setattr(check_links, 'pages', lambda: sorted(
        path for form in ('*.md', '*.rst') for path in tmp_path.rglob(form)))
    return tmp_path


def test_the_messages_page_is_in_step():
    """Guards docs/reference/messages.md: it has every field and every comment."""
    writer = load('write_messages')
    assert writer.PAGE.read_text('utf-8') == writer.make_page(), 'run tools/write_messages.py'


def test_every_field_of_a_message_is_explained():
    """Guards who looks a field up: it, or the paragraph that it is part of, says what it is."""
    said = False
    for line in load('write_messages').make_page().splitlines():
        if line.startswith('| | |'):
            said = True
        elif line.startswith('| `') and line.endswith('|  |'):
            assert said, line
        elif not line.startswith('|'):
            said = False


def test_comments_of_a_message_go_to_their_fields(tmp_path):
    """Guards the page: which comment is about what follows from where it stands."""
    (tmp_path / 'msg').mkdir()
    (tmp_path / 'msg/Cup.msg').write_text(
        '# A cup. It is *hot*.\n#\n# Never <empty>.\n\n'
        '# Above one field.\n#   spout: set apart\nuint32[<=4] spouts  # at its line,\n'
        '                    # and below it\n\n'
        '# Of two.\nstring name\nSaucer[] saucers\n\n'
        '# Of what it is.\nuint8 TEA=1  # green | black\nuint8 MILK=2\nuint8 kind\n')
    (tmp_path / 'msg/Saucer.msg').write_text('# Under a cup.\nbool chipped  # or not\n')
    (tmp_path / 'srv').mkdir()
    (tmp_path / 'srv/Pour.srv').write_text('# Fill it.\n---\n# Above.\nbool full\n')
    page = load('write_messages').make_page(tmp_path)
    for line in (
            '| [Cup](#cup) | A cup. |',
            'A cup. It is \\*hot\\*.\n\nNever &lt;empty>.\n',
            '| `spouts` | `uint32[<=4]` | Above one field.<br>spout: set apart<br>at its line, '
            'and below it |',
            '| | | **Of two.** |\n| `name` | `string` |  |\n'
            '| `saucers` | [Saucer](#saucer)\\[] |  |',
            '| `kind` | `uint8` | Of what it is.<br>`TEA` = 1: green \\| black<br>`MILK` = 2 |',
            '**Request**\n\nNo fields.\n\n**Response**\n',
            '| `full` | `bool` | Above. |'):
        assert line in page, line


def test_the_code_of_the_first_page_runs(monkeypatch, capsys):
    """Guards a newcomer: what the first page tells to type does what it says."""
    monkeypatch.chdir(ROOT)
    page = (ROOT / 'docs/start/five_minutes.md').read_text('utf-8')
    exec(re.search('```python\n(.*?)```', page, re.S)[1], {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(' RUNNING') and lines[-2].endswith(' SUCCESS')
    assert lines[-1].startswith('(2, 7, 7, 16)')


def test_the_site_is_built_without_a_warning(tmp_path):
    """Guards the site: what Sphinx warns of is a hole in a page. Every link is followed."""
    for name in ('sphinx', 'myst_parser', 'sphinx_rtd_theme'):
        pytest.importorskip(name, reason=f'no {name}: python tools/setup_env.py docs')
    assert build_site.build(tmp_path) == []
    assert build_site.dead(tmp_path) == []
    start = (tmp_path / build_site.START).read_text('utf-8')
    assert 'start/five_minutes.html' in start and 'start/your_robot.html' in start
    assert build_site.START in (tmp_path / 'index.html').read_text('utf-8')


def test_dead_links_of_a_site_are_found(tmp_path):
    """Guards the test above: what it follows."""
    (tmp_path / 'there.html').write_text('<h1 id="top">There</h1>')
    (tmp_path / 'page.html').write_text(
        '<p id="here"><a href="#here"><a href="there.html?a=1#top"><a href="https://ros.org/no">'
        '<a href="there.html#gone"><img src="gone.png"><a href="#">')
    assert build_site.dead(tmp_path) == ['page.html: gone.png', 'page.html: there.html#gone']


def found():
    """Return all that is wrong."""
    return [*(text for page in check_links.pages() for text in check_links.dead(page)),
            *check_links.lost()]


def test_every_link_of_the_documents_leads_somewhere():
    """A link to a file or a heading that has moved sends the reader nowhere."""
    checked = [link for page in check_links.pages() for link in check_links.links(page)]
    assert len(checked) > 150
    assert [text for page in check_links.pages() for text in check_links.dead(page)] == []


def test_every_page_is_in_the_tree_of_the_site():
    """A page that no table of contents names is on the site, and nobody finds it."""
    assert check_links.lost() == [], 'add the page to a table of contents of docs/index.rst'


def test_the_checker_finds_nothing_wrong_in_a_sound_repository(repository):
    """Guards the other tests: links in code are none, and a heading's signs are no part of it."""
    assert found() == []


def test_the_checker_finds_what_is_wrong(repository):
    page = repository / 'docs/how_to/page.md'
    page.write_text(
        '# Page\n\n[a text that\nends here](../gone.md)\n\n[up](../../README.md#titel)\n')
    (repository / 'docs/lost.md').write_text('# Lost\n')
    shutil.copy(repository / 'docs/lost.md', repository / 'docs/how_to/other.md')
    (repository / 'docs/index.rst').write_text(
        '.. toctree::\n\n   how_to/page\n   A title <how_to/other>\n   how_to/page\n'
        '   how_to/gone\n')
    assert found() == [
        'README.md:3: docs/how_to/page.md#a-code-heading-2: no heading of docs/how_to/page.md is '
        'called so; it has page',
        'docs/how_to/page.md:4: ../gone.md: no such file in the repository',
        'docs/how_to/page.md:6: ../../README.md#titel: no heading of README.md is called so; it '
        'has title',
        'docs/lost: in no table of contents of docs/index.rst',
        'docs/how_to/page: 2 times in docs/index.rst',
        'docs/how_to/gone: in docs/index.rst, but there is no such page']
