# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A signed bundle: from the key to the load, and everything that may be wrong in between."""

import os
from pathlib import Path
import shutil
import stat
import subprocess
import sys

from hralign_ros.cli.main import main
from hralign_ros.runtime import BundleError, Encoder, load_bundle, SignatureError
from hralign_ros.runtime.bundle import sign_bundle
from hralign_ros.runtime.signature import make_key
import pytest

pytest.importorskip('cryptography', reason='cryptography is not installed')
from cryptography.hazmat.primitives import serialization  # noqa: E402, I100
from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402, I100


class Keys:
    """A pair of keys in two files."""

    def __init__(self, folder, name):
        self.private, self.public, self.key_id = make_key(folder / name)


@pytest.fixture
def mine(tmp_path):
    return Keys(tmp_path, 'mine')


@pytest.fixture
def other(tmp_path):
    return Keys(tmp_path, 'other')


@pytest.fixture
def signed(tiny, variant, mine):
    """Make a signed copy of the tiny bundle."""
    folder = variant(tiny)
    sign_bundle(folder, mine.private)
    return folder


def refused(path, *words, **options):
    """Load a bundle that must be refused for its signature; return the sentence."""
    with pytest.raises(SignatureError) as caught:
        load_bundle(path, **options)
    text = str(caught.value)
    assert '\n' not in text and len(text) < 1000
    for word in words:
        assert str(word) in text, text
    return text


def test_a_signed_bundle_loads(signed, mine, other):
    """Guards the way that everybody goes: sign, carry the public key to the robot, load."""
    for keys in ([mine.public], [other.public, mine.public]):
        encoder = Encoder.load(signed, provider='cpu', trusted_keys=keys, require_signature=True)
        assert encoder.bundle.signed_by == mine.key_id
    assert load_bundle(signed, trusted_keys=[str(mine.public)]).signed_by == mine.key_id
    assert load_bundle(signed).signed_by == ''


def test_the_signature_is_an_ordinary_one(signed, mine):
    """Guards against a scheme of our own: any Ed25519 tool verifies bundle.yaml with it."""
    words = (signed / 'bundle.sig').read_text('ascii').split()
    assert words[:3] == ['hralign-signature-1', 'ed25519', mine.key_id]
    key = serialization.load_pem_public_key(mine.public.read_bytes())
    key.verify(bytes.fromhex(words[3]), (signed / 'bundle.yaml').read_bytes())


def test_no_signature(tiny, mine):
    """Guards the robot that asks for one; trusted keys alone do not."""
    refused(tiny, tiny, 'no signature', 'hralign bundle sign', trusted_keys=[mine.public],
            require_signature=True)
    assert load_bundle(tiny, trusted_keys=[mine.public]).signed_by == ''


def test_no_trusted_keys(signed):
    """Guards against a required signature that anybody's key would satisfy."""
    refused(signed, 'no trusted keys', 'trusted_keys', require_signature=True)


@pytest.mark.parametrize('required', [True, False])
def test_signed_by_somebody_else(signed, mine, other, required):
    """Guards against another's bundle; also where a signature is not required, but keys are."""
    text = refused(signed, mine.key_id[:16], 'not trusted', other.key_id[:16],
                   trusted_keys=[other.public], require_signature=required)
    assert 'changed' not in text


@pytest.mark.parametrize('required', [True, False])
def test_changed_after_signing(signed, mine, required):
    """Guards every byte of bundle.yaml, those that no reader looks at too."""
    manifest = signed / 'bundle.yaml'
    good = manifest.read_bytes()
    for bad in (good.replace(b'name: tiny', b'name: tony'), good + b'\n', good[:-1], b''):
        manifest.write_bytes(bad)
        refused(signed, 'not what was signed', mine.key_id[:16], trusted_keys=[mine.public],
                require_signature=required)


def test_a_file_changed_after_signing(signed, mine):
    """Guards the chain: the signature covers bundle.yaml, its hashes cover the rest."""
    path = signed / 'visual.onnx'
    data = bytearray(path.read_bytes())
    path.unlink()
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match='SHA-256'):
        Encoder.load(signed, provider='cpu', trusted_keys=[mine.public], require_signature=True)


def test_a_signature_of_another_bundle(signed, tiny, variant, mine):
    """Guards against a signature that is good, for something else."""
    folder = variant(tiny, files={'card.md': b'# other\n'})
    shutil.copy(signed / 'bundle.sig', folder)
    refused(folder, 'not what was signed', trusted_keys=[mine.public])


def test_a_key_that_only_says_it_is_the_trusted_one(signed, mine, other):
    """Guards against taking the name of a key for the key."""
    sign_bundle(signed, other.private)
    path = signed / 'bundle.sig'
    path.write_text(path.read_text('ascii').replace(other.key_id, mine.key_id))
    refused(signed, 'not what was signed', trusted_keys=[mine.public])


@pytest.mark.parametrize('data', [
    b'', b'x', bytes(64), b'hralign-signature-1 ed25519 00 00\n',
    b'hralign-signature-2 ed25519 ' + b'0' * 64 + b' ' + b'0' * 128, b'\xff' * 2000])
def test_a_damaged_signature(signed, mine, data):
    """Guards against a file that is no signature: one sentence, and never 'unsigned'."""
    (signed / 'bundle.sig').write_bytes(data)
    refused(signed, 'bundle.sig', 'sign the bundle again', trusted_keys=[mine.public])


def test_a_signature_that_is_a_link(signed, mine, tmp_path):
    """Guards against a signature that lies, or is missing, somewhere else."""
    for target in (tmp_path / 'nowhere', '/dev/zero'):
        (signed / 'bundle.sig').unlink()
        (signed / 'bundle.sig').symlink_to(target)
        with pytest.raises(BundleError, match='symbolic link'):
            load_bundle(signed, trusted_keys=[mine.public])


def test_what_was_verified_is_what_is_used(signed, mine, monkeypatch):
    """Guards the moment in between: bundle.yaml exchanged after its signature was checked."""
    from hralign_ros.runtime import signature

    before, verify = load_bundle(signed).sha256, signature.verify

    def exchange(*arguments, **options):
        found = verify(*arguments, **options)
        manifest = signed / 'bundle.yaml'
        manifest.write_bytes(manifest.read_bytes().replace(b'name: tiny', b'name: evil'))
        return found

    monkeypatch.setattr(signature, 'verify', exchange)
    bundle = load_bundle(signed, trusted_keys=[mine.public])
    assert bundle.manifest.name == 'tiny' and bundle.sha256 == before


def test_keys_that_cannot_be_used(signed, mine, tmp_path):
    """Guards the parameter trusted_keys: which file, and what is wrong with it."""
    wrong = tmp_path / 'wrong.pem'
    wrong.write_bytes(ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    rubbish = tmp_path / 'rubbish.pem'
    rubbish.write_text('-----BEGIN PUBLIC KEY-----\nxxxx\n-----END PUBLIC KEY-----\n')
    huge = tmp_path / 'huge.pem'
    huge.write_bytes(b'x' * 100_000)
    for path, words in ((tmp_path / 'away.pem', 'cannot be read'), (tmp_path, 'cannot be read'),
                        (rubbish, 'no PEM file of a public key'), (huge, 'more than'),
                        (mine.private, 'no PEM file of a public key'), (wrong, 'not Ed25519')):
        refused(signed, path, words, trusted_keys=[mine.public, path])


def test_private_keys_that_cannot_be_used(tiny, variant, mine, tmp_path):
    """Guards `sign`: the wrong one of the two files, another kind of key, a password."""
    folder = variant(tiny)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    wrong, locked = tmp_path / 'wrong.pem', tmp_path / 'locked.pem'
    wrong.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(
        pem, pkcs8, serialization.NoEncryption()))
    locked.write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(
        pem, pkcs8, serialization.BestAvailableEncryption(b'secret')))
    for path, words in ((mine.public, 'no PEM file of a private key'), (wrong, 'not Ed25519'),
                        (locked, 'encrypted'), (tmp_path / 'away', 'cannot be read')):
        with pytest.raises(SignatureError, match=words):
            sign_bundle(folder, path)
    assert not (folder / 'bundle.sig').exists()


def test_nobody_signs_a_damaged_bundle(tiny, variant, mine):
    """Guards whoever signs: a wrong hash, in the card too, is found before the signature."""
    for name in ('card.md', 'visual.onnx'):
        folder = variant(tiny, files={name: b'rubbish'}, rehash=False)
        with pytest.raises(BundleError, match=name):
            sign_bundle(folder, mine.private)
        assert not (folder / 'bundle.sig').exists()


def test_signing_where_nothing_may_be_written(signed, mine, monkeypatch):
    """Guards a bundle on a read-only disk: a sentence, and the old signature stays."""
    def fail(*_):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'write_bytes', fail)
    before = (signed / 'bundle.sig').read_bytes()
    with pytest.raises(SignatureError, match='cannot be written'):
        sign_bundle(signed, mine.private)
    assert (signed / 'bundle.sig').read_bytes() == before


def test_the_private_file_is_private(tmp_path, capsys):
    """Guards the key: nobody else reads it, whatever the umask, and nothing is overwritten."""
    before = os.umask(0)
    try:
        assert main(['bundle', 'keygen', '--output', str(tmp_path / 'robot.v1')]) == 0
    finally:
        os.umask(before)
    private, public = (tmp_path / f'robot.v1.{kind}.pem' for kind in ('private', 'public'))
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b'PRIVATE' in private.read_bytes() and b'PRIVATE' not in public.read_bytes()
    out = capsys.readouterr().out
    assert str(private) in out and str(public) in out
    kept = private.read_bytes()
    assert main(['bundle', 'keygen', '--output', str(tmp_path / 'robot.v1')]) == 1
    assert 'not overwritten' in capsys.readouterr().err and private.read_bytes() == kept
    private.unlink()
    assert main(['bundle', 'keygen', '--output', str(tmp_path / 'robot.v1')]) == 1
    assert not private.exists(), 'half a pair'
    assert main(['bundle', 'keygen', '--output', str(tmp_path / 'no/such/folder')]) == 1


def test_the_commands(tiny, variant, tmp_path, capsys):
    """Guards keygen, sign and verify, one after the other as they are typed."""
    folder = variant(tiny)
    assert main(['bundle', 'keygen', '--output', str(tmp_path / 'k')]) == 0
    public = str(tmp_path / 'k.public.pem')
    verify = ['bundle', 'verify', '--bundle', str(folder), '--device', 'cpu']
    assert main([*verify, '--trusted-key', public]) == 1
    assert 'no signature' in capsys.readouterr().err
    sign = ['bundle', 'sign', '--bundle', str(folder), '--key']
    assert main([*sign, str(tmp_path / 'k.private.pem')]) == 0
    assert main([*verify, '--trusted-key', public]) == 0
    assert 'signature  good' in capsys.readouterr().out
    assert main(verify) == 0
    assert 'signature' not in capsys.readouterr().out
    assert main([*sign, public]) == 1
    assert 'private' in capsys.readouterr().err


@pytest.mark.parametrize('words', [
    'keygen --output k', 'sign --bundle {bundle} --key {private}',
    'verify --bundle {bundle} --device cpu --trusted-key {public}'])
def test_cryptography_is_not_installed(words, signed, mine, tmp_path):
    """Guards a robot without it: one sentence with the line that installs it."""
    words = [word.format(bundle=signed, private=mine.private, public=mine.public)
             for word in ['bundle', *words.split()]]
    program = ('import sys\nsys.modules["cryptography"] = None\n'
               f'from hralign_ros.cli.main import main\nsys.exit(main({words!r}))\n')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    assert 'pip install' in done.stderr and '[signature]' in done.stderr
    assert "'hralign_ros[" not in done.stderr, 'whoever takes that name gets our users'


def test_without_signatures_nothing_needs_cryptography(signed):
    """Guards the robots that do not ask for one: a signed bundle loads there as any other."""
    program = ('import sys\nsys.modules["cryptography"] = None\n'
               'from hralign_ros.runtime import load_bundle\nload_bundle(sys.argv[1])\n')
    subprocess.run([sys.executable, '-c', program, str(signed)], timeout=120, check=True)
