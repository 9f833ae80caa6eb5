"""The market certificate for an nginx that ends TLS before the viewer's listener: written to a file, nginx reloaded.

One PEM file holds the certificate, its chain and its key, so that nginx never reads one of two halves. It takes the
place of the one before in a single step, readable by its owner alone (nginx's master process reads as root), the key
encrypted under the password of another file (``ssl_password_file``). nginx keeps what it serves when it cannot read a
new file.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Misconfigured, Unavailable
from drimbox.trust.keystore import UNREADABLE, Credential
from drimbox.trust.token import TokenKey

_PASSWORD_BYTES = 32
_COMMAND_SECONDS = 60.0
# After a failure the same is not tried again sooner.
_PAUSE = 60.0
_PLACEHOLDER = "certificat en attente"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Handing:
    """Hands the certificate of ``host`` over.

    ``command`` (the program by its whole path, then its arguments; no shell) or ``pid_file`` (of nginx, which is sent
    its own signal) tells nginx; with neither, whoever watches ``folder`` does.
    """

    host: str
    folder: Path
    password_file: Path
    clock: Clock
    command: Sequence[str] = ()
    pid_file: Path | None = None
    _told: x509.Certificate | None = None
    _failure: tuple[float, DrimboxError] | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        """What nginx is given as certificate and as key."""
        return file_of(self.folder, self.host)

    def make_ready(self) -> None:
        """Without a certificate nginx does not start, and without nginx none is had: one that nobody believes, first.

        Raises ``Misconfigured`` (``market-handing``) for a folder or a password that cannot be used.
        """
        password = self._password()
        if not self.file.exists():
            self._write(_placeholder(self.host, self.clock.now()), password)

    async def hand(self, credential: Credential) -> None:
        """Write a certificate that is not there yet, and tell nginx: at the start of a box too, for nobody knows
        whether it was told before.

        Raises ``Misconfigured`` (``market-handing``), ``Unavailable`` (``market-reload``): for a minute, the same.
        """
        if self._told == credential.certificate:
            return
        now = self.clock.monotonic()
        if self._failure is not None and now - self._failure[0] < _PAUSE:
            raise self._failure[1]
        try:
            await asyncio.to_thread(self._put, credential)
            await self._tell_nginx()
        except DrimboxError as error:
            self._failure = (now, error)
            raise
        self._told, self._failure = credential.certificate, None
        _log.info("market certificate handed over, until %s", f"{credential.expires_at:%Y-%m-%d}")

    def _put(self, credential: Credential) -> None:
        password = self._password()
        if not self._has(credential, password):
            self._write(credential, password)

    def _has(self, credential: Credential, password: bytes) -> bool:
        try:
            data = self.file.read_bytes()
            found = x509.load_pem_x509_certificates(data)
            load_pem_private_key(data, password)
        except (OSError, *UNREADABLE):
            return False
        return found == [credential.certificate, *credential.chain]

    def _write(self, credential: Credential, password: bytes) -> None:
        if isinstance(credential.key, TokenKey):
            raise _bad("une clé dans un jeton PKCS#11 ne s'écrit pas")
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in (credential.certificate, *credential.chain))
        pem += credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        _replace(self.file, pem)

    def _password(self) -> bytes:
        """Made at need; without the line end that people put after it, as nginx reads it."""
        try:
            if not self.password_file.exists():
                _replace(self.password_file, secrets.token_hex(_PASSWORD_BYTES).encode() + b"\n")
            found = self.password_file.read_bytes()
        except OSError as error:
            raise _bad(f"{self.password_file} ne peut pas être lu ({error.strerror})") from error
        password = found.splitlines()[0].strip() if found.strip() else b""
        if not 16 <= len(password) <= 1024:
            raise _bad(f"le mot de passe de {self.password_file} a moins de 16 caractères, ou trop")
        return password

    async def _tell_nginx(self) -> None:
        if self.command:
            await self._run()
        elif self.pid_file is not None:
            await asyncio.to_thread(_signal, self.pid_file)

    async def _run(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                # Nothing of what the box was started with.
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            )
        except OSError as error:
            raise _deaf(f"{self.command[0]} ne peut pas être lancé ({error.strerror})") from error
        try:
            status = await asyncio.wait_for(process.wait(), _COMMAND_SECONDS)
        except (TimeoutError, asyncio.CancelledError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise _deaf(f"{self.command[0]} ne se termine pas") from None
        if status != 0:
            raise _deaf(f"{self.command[0]} se termine par l'état {status}")


def file_of(folder: Path, host: str) -> Path:
    """The file of the certificate of a host, in the folder that the operator named."""
    return folder / f"{host}.pem"


def _signal(pid_file: Path) -> None:
    """SIGHUP, by which nginx reads its configuration again; to a process of that name and no other."""
    try:
        number = int(pid_file.read_text("ascii").strip()[:12])
        if number <= 1 or Path(f"/proc/{number}/comm").read_text().strip() != "nginx":
            raise _deaf(f"le processus de {pid_file} n'est pas nginx")
        os.kill(number, signal.SIGHUP)
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else "illisible"
        raise _deaf(f"le processus de {pid_file} ne peut pas être prévenu ({told})") from error


def _placeholder(host: str, now: dt.datetime) -> Credential:
    """Self-signed, already out of date, under a name that says why a browser warns."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _PLACEHOLDER)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now - dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Credential(certificate, (), key)


def _replace(target: Path, data: bytes) -> None:
    """Whole, or not at all; never readable by anybody but the owner."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise _bad(f"{target} ne peut pas être écrit ({error.strerror})") from error


def _bad(why: str) -> Misconfigured:
    return Misconfigured(f"Le certificat de la visionneuse n'a pas été remis à nginx : {why}", code="market-handing")


def _deaf(why: str) -> Unavailable:
    return Unavailable(
        f"Le certificat de la visionneuse est écrit, mais nginx n'a pas été rechargé : {why}", code="market-reload"
    )
