# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Who vouches for a bundle: an Ed25519 signature over the bytes of bundle.yaml.

bundle.yaml holds the SHA-256 of every other file, so its signature covers the whole bundle. The
signature lies beside it as bundle.sig, one line of text:

    hralign-signature-1 ed25519 KEY_ID SIGNATURE

KEY_ID is the SHA-256 of the 32 bytes of the public key, SIGNATURE has 64 bytes; both hexadecimal.
The package `cryptography` is needed only where a signature is made or checked.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
import os
from pathlib import Path
import re
from typing import Any

from hralign_ros.runtime.errors import import_package, install_line, SignatureError
from hralign_ros.runtime.files import read_bounded

SIGNATURE = 'bundle.sig'
EXTRA = 'signature'
MAX_SIGNATURE_BYTES = 1024
MAX_KEY_BYTES = 16 * 1024
_SERIALIZATION = 'cryptography.hazmat.primitives.serialization'
_ED25519 = 'cryptography.hazmat.primitives.asymmetric.ed25519'

_LINE = re.compile(rb'hralign-signature-1 ed25519 ([0-9a-f]{64}) ([0-9a-f]{128})\s*')


# By key id: the PEM file that it was read from, and cryptography's own object.
PublicKeys = Mapping[str, tuple[Path, Any]]


def read_public_keys(paths: Iterable[str | os.PathLike[str]]) -> PublicKeys:
    """
    Read public keys, whose signatures are trusted, from PEM files.

    :raises SignatureError: a file that cannot be read or holds no Ed25519 public key.
    """
    found = [_read_key(path, 'public') for path in paths]
    return {_key_id(key): (path, key) for path, key in found}


def verify(signed: bytes, signature: bytes, keys: PublicKeys, *, folder: Path) -> str:
    """
    Check the signature of a bundle.

    :param signed: the bytes of bundle.yaml, the very ones that are used afterwards.
    :param signature: the bytes of bundle.sig.
    :param folder: the bundle's directory, for errors.
    :returns: the id of the key that it was made with.
    :raises SignatureError: not by one of these keys, or bundle.yaml is not what was signed.
    """
    found = _LINE.fullmatch(signature)
    if found is None:
        raise SignatureError(
            f'{folder / SIGNATURE}: no signature as `hralign bundle sign` writes it; sign the '
            'bundle again')
    key_id = found[1].decode()
    if key_id not in keys:
        raise SignatureError(
            f'{folder}: it is signed with the key {key_id[:16]}..., which is not trusted; trusted '
            f'are {", ".join(f"{known[:16]}... ({path})" for known, (path, _) in keys.items())}. '
            'Take a bundle from whom you trust, or add the public key of whoever signed this one')
    try:
        keys[key_id][1].verify(bytes.fromhex(found[2].decode()), signed)
    except _cryptography('cryptography.exceptions').InvalidSignature as error:
        raise SignatureError(
            f'{folder}: bundle.yaml is not what was signed with the trusted key '
            f'{key_id[:16]}...; one of the two files was changed afterwards. Copy the bundle '
            'again, or let it be signed again') from error
    return key_id


def sign(signed: bytes, private_key: str | os.PathLike[str]) -> tuple[bytes, str]:
    """
    Sign the bytes of bundle.yaml.

    :param private_key: PEM file of an Ed25519 private key.
    :returns: the bytes of bundle.sig, and the id of the key.
    :raises SignatureError: the key cannot be read or is of another kind.
    """
    _, key = _read_key(private_key, 'private')
    key_id = _key_id(key.public_key())
    return f'hralign-signature-1 ed25519 {key_id} {key.sign(signed).hex()}\n'.encode(), key_id


def make_key(name: str | os.PathLike[str]) -> tuple[Path, Path, str]:
    """
    Make a pair of keys; nothing is ever overwritten.

    :param name: NAME.private.pem, which only its owner may read, and NAME.public.pem are written.
    :returns: both files, and the id of the key.
    :raises SignatureError: a file is there already or cannot be written.
    """
    serialization = _cryptography(_SERIALIZATION)
    key = _cryptography(_ED25519).Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    whole = Path(name).expanduser()
    private = whole.with_name(f'{whole.name}.private.pem')
    public = whole.with_name(f'{whole.name}.public.pem')
    _write_new(private, key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()), 0o600)
    try:
        _write_new(public, key.public_key().public_bytes(
            pem, serialization.PublicFormat.SubjectPublicKeyInfo), 0o644)
    except SignatureError:
        # Half a pair would be in the way of the next attempt.
        private.unlink()
        raise
    return private, public, _key_id(key.public_key())


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not be there yet, never readable by more than `mode` says."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, 'wb') as file:
            file.write(data)
    except FileExistsError as error:
        raise SignatureError(
            f'{path} is there already and is not overwritten; choose another name') from error
    except OSError as error:
        raise SignatureError(
            f'{path}: cannot be written ({error.strerror}); choose another folder') from error


def _read_key(given: str | os.PathLike[str], kind: str) -> tuple[Path, Any]:
    """
    Read a public or a private key from its file; a link to it is followed.

    :returns: the file, and cryptography's own object.
    """
    try:
        path = Path(given).expanduser()
        data = read_bounded(path.resolve(), MAX_KEY_BYTES)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        raise SignatureError(
            f'the key {given} cannot be read ({reason}); needed is a PEM file') from error
    if len(data) > MAX_KEY_BYTES:
        raise SignatureError(
            f'the key {given} has more than {MAX_KEY_BYTES} bytes; needed is a PEM file')
    load = getattr(_cryptography(_SERIALIZATION), f'load_pem_{kind}_key')
    ed25519 = _cryptography(_ED25519)
    try:
        key = load(data, password=None) if kind == 'private' else load(data)
    except Exception as error:  # cryptography raises several types, by version
        if kind == 'private' and isinstance(error, TypeError):
            raise SignatureError(
                f'{path}: it is encrypted, and only plain PEM files are read; decrypt it where '
                'you sign') from error
        raise SignatureError(
            f'{path}: no PEM file of a {kind} key; needed is the {kind} file that `hralign '
            'bundle keygen` writes') from error
    if not isinstance(key, (ed25519.Ed25519PublicKey, ed25519.Ed25519PrivateKey)):
        raise SignatureError(
            f'{path}: {type(key).__name__} is not Ed25519, and only such keys sign bundles; make '
            'one with `hralign bundle keygen`')
    return path, key


def _key_id(key: Any) -> str:
    serialization = _cryptography(_SERIALIZATION)
    return sha256(key.public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw)).hexdigest()


def _cryptography(module: str) -> Any:
    return import_package(module, SignatureError,
                          f'signatures need it: {install_line(EXTRA)}')
