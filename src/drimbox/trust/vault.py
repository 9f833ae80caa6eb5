"""The sealed part of the keystore: private keys that the box makes itself, encrypted wherever they are kept.

A key made here (of an ACME account, of a certificate) must outlive the process and be known to every node, so it is
kept in the database - sealed with AES-256-GCM under a secret that lives in the state folder and never in the database.
A copy or a backup of the database alone opens nothing. What a sealed key is for is bound into the seal: a row that is
moved to another place does not open.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.secret_file import own_secret
from drimbox.trust.keystore import PrivateKey

_VERSION = b"\x01"
_MARK_BYTES = 4
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Vault:
    """Seals and opens keys. Get it with ``load_vault``."""

    secret: bytes = field(repr=False)

    def seal(self, key: PrivateKey, purpose: str) -> bytes:
        """``key`` as it may be kept; it opens for the same ``purpose`` only."""
        plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _VERSION + self._mark
        return head + nonce + AESGCM(self.secret).encrypt(nonce, plain, head + purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> PrivateKey:
        """The key. Raises ``Misconfigured`` (``vault-key``): another secret, another purpose, a damaged row."""
        head, rest = sealed[: 1 + _MARK_BYTES], sealed[1 + _MARK_BYTES :]
        if head[:1] != _VERSION or head[1:] != self._mark:
            raise _bad(
                "Clé privée scellée avec un autre secret que celui de cette DRIMbox : restaurez le fichier du secret "
                "(il est le même sur tous les nœuds d'une base)"
            )
        try:
            plain = AESGCM(self.secret).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], head + purpose.encode())
            key = load_der_private_key(plain, None)
        except (InvalidTag, ValueError, TypeError, UnsupportedAlgorithm):
            # Without its cause, which knows the bytes.
            raise _bad("Clé privée scellée abîmée ou déplacée : restaurez la base, ou commandez à nouveau") from None
        if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
            raise _bad("Clé privée scellée d'un type inattendu : commandez à nouveau")
        return key

    @property
    def _mark(self) -> bytes:
        """Tells secrets apart and reveals nothing of them."""
        return hashlib.sha256(b"drimbox vault\0" + self.secret).digest()[:_MARK_BYTES]


def load_vault(path: Path) -> Vault:
    """The vault whose secret is in ``path``; made there, readable by the owner alone, the first time.

    Raises ``Misconfigured`` (``vault-key``) when the file cannot be read or made, or holds no secret.
    """
    try:
        secret = own_secret(path)
    except ValueError as error:
        raise _bad(f"Secret du coffre des clés abîmé : {path}. Restaurez-le depuis la sauvegarde") from error
    except OSError as error:
        raise _bad(f"Secret du coffre des clés illisible ou impossible à créer : {path}. Restaurez-le") from error
    return Vault(secret)


def _bad(reason: str) -> Misconfigured:
    return Misconfigured(reason, code="vault-key")
