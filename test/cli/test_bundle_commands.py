# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The command line: what it prints, and one sentence with exit code 1 where something is wrong."""

from importlib import import_module
from pathlib import Path
import re
import shlex
import subprocess
import sys

from hralign_ros import __version__
from hralign_ros.cli.main import main, make_parser, TREE
from hralign_ros.cli.options import add_options, Parser, SHARED
import pytest

ROOT = Path(__file__).resolve().parents[2]


def sentence(capsys, arguments):
    """Run a command that must fail; return the one line it says."""
    assert main([str(a) for a in arguments]) == 1
    out, error = capsys.readouterr()
    assert error.startswith('hralign: ') and error.count('\n') == 1, error
    assert 'Traceback' not in error and out == ''
    return error


def test_verify(capsys):
    """Guards what verify is for: the bundle is good, and where it really ran."""
    assert main(['bundle', 'verify', '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert 'good' in out and 'efficientnet_lite0' in out and 'wrist, third_person' in out
    assert 'asked cpu, got CPUExecutionProvider' in out
    assert 'success head trained' in out


def test_verify_a_named_bundle(capsys, tiny):
    """Guards the argument."""
    assert main(['bundle', 'verify', '--bundle', str(tiny), '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert str(tiny) in out and 'left, middle, right' in out


def test_verify_with_options_that_contradict(capsys):
    """Guards against a traceback."""
    assert 'require_gpu' in sentence(
        capsys, ['bundle', 'verify', '--device', 'cpu', '--require-gpu'])


def test_verify_what_is_no_bundle(capsys, tmp_path, tiny, variant):
    """Guards against a traceback for a wrong path or a damaged bundle."""
    assert 'nowhere' in sentence(capsys, ['bundle', 'verify', '--bundle', tmp_path / 'nowhere'])
    folder = variant(tiny, files={'visual.onnx': b'rubbish'}, rehash=False)
    assert 'visual.onnx' in sentence(
        capsys, ['bundle', 'verify', '--bundle', folder, '--device', 'cpu'])


@pytest.mark.parametrize(('command', 'module', 'extra'), [
    ('bundle verify', 'tokenizers', 'tokenizers'), ('encoder export', 'torch', '[adapt]'),
    ('encoder export', 'onnx', '[adapt]')])
def test_a_package_is_not_installed(command, module, extra, tmp_path):
    """
    Guards a robot without the offline half: which package is missing and how to get it.

    The sentence named a package on the public index that is not ours.
    """
    arguments = [*command.split(), *(['--device', 'cpu'] if command == 'bundle verify' else [
        '--output', str(tmp_path / 'bundle')])]
    program = (f'import sys\nsys.modules[{module!r}] = None\n'
               f'from hralign_ros.cli.main import main\nsys.exit(main({arguments!r}))\n')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    assert 'pip install' in done.stderr and extra in done.stderr
    assert "'hralign_ros[" not in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize(('words', 'said'), [
    ('', 'required: COMMAND; see hralign --help'), ('fly', "invalid choice: 'fly'"),
    ('bundle', 'required: COMMAND; see hralign bundle --help'),
    ('bundle sign', 'required: --bundle, --key; see hralign bundle sign --help'),
    ('bundle verify --bundel x', "there is no '--bundel' (do you mean --bundle?)"),
    ('bundle verify --device tpu', "invalid choice: 'tpu' (choose from"),
    ('data simulate', 'required: --output'), ('data import bag .', "invalid choice: 'bag'"),
    ('data import rh20t', 'required: SOURCE'), ('data import lerobot x', 'required: --view'),
    ('encoder train --data .', 'required: --output'),
    ('encoder train --data . --output x --workers some', "'some' is neither a number nor 'ray'"),
    ('encoder train --data . --output x --preset fast', "invalid choice: 'fast'"),
    ('encoder train --data . --output x --steps many', '--steps: invalid int value'),
    ('encoder train --data . --output x --stepps 4', 'do you mean --steps?'),
    ('encoder evaluate --data . --output x', 'required: RUN;')])
def test_usage(words, said, capsys):
    """Guards words that are missing or unknown: one sentence, and exit code 2 as is usual."""
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    text = capsys.readouterr().err
    assert caught.value.code == 2 and said in text
    assert text.startswith('hralign: ') and text.count('\n') == 1


def commands(tree=TREE, words=()):
    """Yield each command: its words and its function."""
    for name, entry in tree.items():
        if isinstance(entry, tuple):
            yield from commands(entry[1], (*words, name))
        else:
            yield (*words, name), entry


def test_an_option_is_the_same_everywhere():
    """
    Guards the one form of options.

    A folder of features was --cache here and --store there, a split file --splits, which was a
    list of splits elsewhere.
    """
    forms = {}
    for words, function in commands():
        parser = Parser()
        add_options(parser, function)
        for action in parser._actions:
            for option in action.option_strings:
                forms.setdefault(option, {}).setdefault(
                    (action.type, str(action.choices), action.metavar), []).append(words)
            assert re.match(r'\s*[^\s(]', action.help), (words, action.dest)
    # Only features can be computed by Ray.
    assert {name: found for name, found in forms.items()
            if len(found) > 1 and name != '--workers'} == {}
    shared = {f'--{name.replace("_", "-")}' for name in SHARED}
    assert shared <= set(forms), 'of no command'


def test_the_page_is_in_step(monkeypatch):
    """Guards docs/reference/commands.md: it names every command and option that there is."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    writer = import_module('write_commands')
    assert writer.PAGE.read_text('utf-8') == writer.make_page(), 'run tools/write_commands.py'


@pytest.mark.parametrize('page', ['README.md', *sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.glob('docs/**/*.md'))])
def test_commands_in_documents_can_be_typed(page):
    """Guards readers: a line that a document tells them to type has options that there are."""
    text = (ROOT / page).read_text('utf-8').replace('\\\n', ' ')
    for line in re.findall(r'^    (?:\.venv-sim/bin/)?hralign ([^\n#`]+)', text, re.M):
        if '...' not in line:
            make_parser().parse_args(shlex.split(line))


@pytest.mark.parametrize('words', [(), *(words for words, _ in commands())], ids=' '.join)
def test_help(words, capsys):
    """Guards the help of every command: it says what each option is for."""
    with pytest.raises(SystemExit) as caught:
        main([*words, '--help'])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and ' '.join(('usage: hralign', *words)) in out
    options = re.findall(r'^  (-\S.*?)(?:  +(\S.*))?(?:\n {10,}(\S.*))?$', out, re.M)
    assert options and all(one or other for _, one, other in options), options


def test_a_robot_has_help_and_version_without_the_offline_half():
    """Guards a quick start on a robot: nothing but the runtime's own packages is imported."""
    for words in (['--help'], ['--version'], ['bundle', 'verify', '--help'], ['doctor', '--help']):
        done = subprocess.run(
            [sys.executable, '-X', 'importtime', '-m', 'hralign_ros.cli', *words],
            capture_output=True, text=True, timeout=120, check=True)
        assert __version__ in done.stdout or 'usage: hralign' in done.stdout
        loaded = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
        assert not loaded & {'torch', 'onnx', 'onnxruntime', 'transformers', 'rclpy', 'pyarrow'}
