"""Where a pair comes from: PEM files, a PKCS#12 file, or a PKCS#11 token; and whether its files changed since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drimbox.foundation.errors import Misconfigured
from drimbox.trust.keystore import Credential, read_file, read_pem_pair, read_pkcs12_pair
from drimbox.trust.token import TokenPlace, Tokens

Kind = Literal["PEM", "PKCS#12", "PKCS#11"]


@dataclass(frozen=True, slots=True)
class PairSource:
    """One of ``certificate`` with ``key``, ``pkcs12``, or ``module`` with ``token``, ``token_key`` and ``pin_file``.

    Secrets are named by the file that holds them and read with the rest.
    """

    certificate: Path | None = None
    key: Path | None = None
    pkcs12: Path | None = None
    password_file: Path | None = None
    module: Path | None = None
    token: str = ""
    token_key: str = ""
    pin_file: Path | None = None

    @property
    def kind(self) -> Kind:
        if self.module is not None:
            return "PKCS#11"
        return "PEM" if self.pkcs12 is None else "PKCS#12"

    def read(self, tokens: Tokens) -> Credential:
        """The pair, whatever its dates. Raises ``Misconfigured`` (``credential``), ``Unavailable`` (``token``)."""
        password = _secret(self.password_file)
        if self.module is not None:
            pin = _secret(self.pin_file) or b""
            return tokens.credential(TokenPlace(self.module, self.token, self.token_key, pin, self.certificate))
        if self.pkcs12 is not None:
            return read_pkcs12_pair(self.pkcs12, password)
        if self.certificate is None or self.key is None:
            raise Misconfigured("Paire sans certificat ou sans clé", code="credential")
        return read_pem_pair(self.certificate, self.key, password)

    def state(self) -> bytes:
        """Differs as soon as one of its files does. What a token holds is not looked into."""
        digest = hashlib.sha256()
        for path in self._files():
            try:
                found = path.stat()
                told = f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"
            except OSError as error:
                told = os.strerror(error.errno or 0)
            digest.update(f"{path}\0{told}\0".encode("utf-8", "surrogateescape"))
        return digest.digest()

    def _files(self) -> Iterator[Path]:
        for path in (self.certificate, self.key, self.pkcs12, self.password_file, self.module, self.pin_file):
            if path is not None:
                yield path


def _secret(path: Path | None) -> bytes | None:
    return read_file(path).strip() if path is not None else None
