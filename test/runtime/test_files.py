# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Files of somebody else: bounded before they are read, plain data and nothing more."""

import os
import time

from hralign_ros.runtime import files
from hralign_ros.runtime.files import load_yaml, MAX_YAML_BYTES, NotPlainError, read_bounded
import pytest
import yaml


@pytest.mark.parametrize('size', [0, 1, 9, 10, 11, 1000])
def test_no_more_than_asked_for(tmp_path, size):
    """Guards the limit: whole up to it, one byte more beyond it, so that the caller sees it."""
    (tmp_path / 'file').write_bytes(bytes(size))
    assert len(read_bounded(tmp_path / 'file', 10)) == min(size, 11)


@pytest.mark.parametrize('kind', ['link', 'pipe', 'folder', 'dangling'])
def test_what_is_no_file(tmp_path, kind):
    """Guards against links, against pipes on which one waits for ever, and against folders."""
    path = tmp_path / kind
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    else:
        (tmp_path / 'target').write_bytes(b'x')
        path.symlink_to(tmp_path / ('target' if kind == 'link' else 'away'))
    with pytest.raises(NotPlainError):
        read_bounded(path, 10)


def test_a_missing_file(tmp_path):
    """Guards the reason that the callers hand on."""
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / 'away', 10)


@pytest.mark.parametrize('text', [
    'a: 1', '[1, 2.5, text, null, true, 2001-01-01]', '', '- &a {x: 1}\n- *a\n- {<<: *a, y: 2}',
    'a: &shared [1, 2]\nb: *shared'])
def test_plain_yaml_is_what_it_was(text):
    """Guards bundles that are there already: the same values as PyYAML's own safe reader."""
    assert load_yaml(text.encode()) == yaml.safe_load(text)


def bomb(first, line, count):
    return '\n'.join([first, *(line.format(i, i - 1) for i in range(1, count))]).encode()


BOMBS = {
    'lists': bomb('a0: &a0 [x, x, x, x]', 'a{0}: &a{0} [*a{1}, *a{1}, *a{1}, *a{1}]', 40),
    'mappings': bomb('a0: &a0 {x: 1}', 'a{0}: &a{0} {{p: *a{1}, q: *a{1}, r: *a{1}}}', 40),
    'merges': bomb('a0: &a0 {x: 1}', 'a{0}: &a{0} {{<<: [*a{1}, *a{1}, *a{1}]}}', 40),
    'itself': b'a: &a [1, *a]',
    'one another': b'a: &a {b: &b [*a, *b]}',
    'wide': b'a: &a [' + b'1,' * 5000 + b']\nb: [' + b'*a,' * 5000 + b']',
    'digits': b'a: ' + b'1' * 5000,
    'sixty': b'a: 1' + b':59' * 300_000,
    'deep': b'[' * 100_000,
    'deep blocks': b'- ' * 400_000 + b'1',
    'deep mappings': b'? ' * 400_000 + b'1',
    'bare tag': b'a: ! 1' + b':59' * 300_000,
    'bare tag in quotes': b'a: ! "' + b'1' * 5000 + b'"',
    'tagged digits': b'a: !!int "' + b'1' * 5000 + b'"',
    'long': b'#' * (MAX_YAML_BYTES + 1),
}


@pytest.fixture(params=['CSafeLoader', 'SafeLoader'], autouse=True)
def reader(request, monkeypatch):
    """Read by libyaml, which PyYAML has in most places, and without it."""
    monkeypatch.setattr(files, '_LOADER', getattr(yaml, request.param))


@pytest.mark.parametrize('name', BOMBS)
def test_yaml_that_explodes(name):
    """Guards against a kilobyte that becomes gigabytes, or hours, in whoever walks through it."""
    started = time.monotonic()
    with pytest.raises((ValueError, RecursionError)):
        load_yaml(BOMBS[name])
    assert time.monotonic() - started < 30.0


@pytest.mark.parametrize('text', [
    '!!python/object/apply:os.system [echo]', '!!python/name:os.system', '!!python/module:os',
    'a: !!python/tuple [1]', '!other 1'])
def test_yaml_that_names_code(text):
    """Guards against tags that make a reader call something."""
    with pytest.raises(ValueError, match='constructor .* in line 1'):
        load_yaml(text.encode())


def test_where_it_is_no_yaml():
    """Guards the place: the first line of PyYAML's message says what it was reading alone."""
    with pytest.raises(ValueError, match='unknown escape character.* in line 2, column '):
        load_yaml(b'a: 1\nb: "\\q"')
