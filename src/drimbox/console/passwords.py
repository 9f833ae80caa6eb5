"""Passwords: how they are kept (scrypt, salted, versioned), and which ones are good enough (IE.36, IAM.92).

The hash costs 64 MiB and some tenths of a second on purpose; how many are made at once is bounded, so that strangers
at the door cannot take the memory of the machine.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from drimbox.foundation.errors import Busy

MAX_LENGTH = 256
_SALT_BYTES = 16
_HASH_BYTES = 32
_SCHEME = "scrypt-1"
_DISTINCT = 6
_ALPHABET = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789-_+"


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters of scrypt (RFC 7914): memory is ``128 * r * 2**log2_n`` bytes, time grows with ``p`` too."""

    log2_n: int = 16
    r: int = 8
    p: int = 2


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """What the site asks of a password. Lengths in characters, ages in days (0: no limit).

    ``classes`` is how many of lower case, upper case, digits and other characters it must mix; ``former`` how many
    earlier passwords may not come back.
    """

    min_length: int = 12
    admin_min_length: int = 15
    classes: int = 4
    former: int = 5
    max_age_days: float = 0
    first_days: float = 7


def hashed(password: str, cost: Cost | None = None) -> str:
    """What is kept of a password: scheme, parameters, salt and hash in one line."""
    cost = cost or Cost()
    salt = secrets.token_bytes(_SALT_BYTES)
    return _kept(cost, salt, _derived(password, salt, cost, _HASH_BYTES))


def matches(password: str, kept: str) -> bool:
    """Is this the password of which ``kept`` is the hash? Takes as long whatever the answer."""
    cost, salt, digest = _parsed(kept)
    return hmac.compare_digest(_derived(password, salt, cost, len(digest)), digest)


def outdated(kept: str, cost: Cost | None = None) -> bool:
    """Was it made with other parameters than those in force?"""
    return _parsed(kept)[0] != (cost or Cost())


def weaknesses(password: str, rules: PasswordRules, *, login: str, administrator: bool) -> tuple[str, ...]:
    """What is wrong with a new password, in French; nothing when it may be taken."""
    found = []
    least = max(rules.min_length, rules.admin_min_length) if administrator else rules.min_length
    if len(password) < least:
        found.append(f"il faut au moins {least} caractères")
    if len(password) > MAX_LENGTH:
        found.append(f"il faut au plus {MAX_LENGTH} caractères")
    if _classes(password) < rules.classes:
        kinds = "minuscules, majuscules, chiffres et autres caractères"
        found.append(f"il faut mêler {rules.classes} sortes de caractères parmi {kinds}")
    if login and login.lower() in password.lower():
        found.append("il ne doit pas contenir l'identifiant")
    if len(set(password)) < _DISTINCT:
        found.append(f"il faut au moins {_DISTINCT} caractères différents")
    if any(unicodedata.category(c) == "Cc" for c in password):
        found.append("il ne doit pas contenir de caractère de contrôle")
    return tuple(found)


def provisional() -> str:
    """A first password to hand over, good enough for any rules: 24 characters of an alphabet without look-alikes."""
    while True:
        password = "".join(secrets.choice(_ALPHABET) for _ in range(24))
        if _classes(password) == 4 and len(set(password)) >= _DISTINCT:
            return password


class Hasher:
    """Hashes in threads, two at once; whoever would wait behind too many others is asked to come back."""

    _AT_ONCE = 2
    _WAITING = 16

    def __init__(self, cost: Cost | None = None) -> None:
        self.cost = cost or Cost()
        self._turns = asyncio.Semaphore(self._AT_ONCE)
        self._present = 0
        # What no password gives: to compare to where there is nothing.
        self._decoy = _kept(self.cost, secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_HASH_BYTES))

    async def hashed(self, password: str) -> str:
        """Raises ``Busy`` (``passwords-busy``)."""
        async with self._turn():
            return await asyncio.to_thread(hashed, password, self.cost)

    async def matches(self, password: str, kept: str | None) -> bool:
        """Compare; without a hash to compare to, take the same time and say no. Raises ``Busy``."""
        async with self._turn():
            same = await asyncio.to_thread(matches, password, kept or self._decoy)
        return same and kept is not None

    async def among(self, password: str, kept: Sequence[str]) -> bool:
        """Is it one of those? Raises ``Busy``."""
        for each in kept:
            if await self.matches(password, each):
                return True
        return False

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._present >= self._AT_ONCE + self._WAITING:
            raise Busy("Trop de connexions à la fois : réessayez dans un instant", code="passwords-busy", retry_after=5)
        self._present += 1
        try:
            async with self._turns:
                yield
        finally:
            self._present -= 1


def _derived(password: str, salt: bytes, cost: Cost, length: int) -> bytes:
    # The same password typed on two systems may come in two Unicode forms.
    octets = unicodedata.normalize("NFC", password[: MAX_LENGTH + 1]).encode("utf-8", "surrogatepass")
    memory = 128 * cost.r * (2**cost.log2_n + cost.p + 2)
    return hashlib.scrypt(octets, salt=salt, n=2**cost.log2_n, r=cost.r, p=cost.p, maxmem=memory + 2**20, dklen=length)


def _kept(cost: Cost, salt: bytes, digest: bytes) -> str:
    words = (base64.b64encode(octets).decode() for octets in (salt, digest))
    return "$".join((_SCHEME, str(cost.log2_n), str(cost.r), str(cost.p), *words))


def _parsed(kept: str) -> tuple[Cost, bytes, bytes]:
    scheme, log2_n, r, p, salt, digest = kept.split("$")
    if scheme != _SCHEME:
        raise ValueError("unknown password scheme")
    return Cost(int(log2_n), int(r), int(p)), base64.b64decode(salt), base64.b64decode(digest)


def _classes(password: str) -> int:
    lower = any(c.islower() for c in password)
    upper = any(c.isupper() for c in password)
    digit = any(c.isdigit() for c in password)
    other = any(not c.isalnum() for c in password)
    return lower + upper + digit + other
