"""Every kind of wrong certificate, from the test PKI: each is right but for one thing."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field
from enum import Enum

from drimbox.sandbox.pki import PemPair, Profile, TestAuthority


class Wrong(Enum):
    """What is wrong; the value says it."""

    EXPIRED = "it ended yesterday"
    NOT_YET = "it begins tomorrow"
    REVOKED = "it is on its issuer's list"
    PURPOSE = "it is of another profile"
    UNIT = "it is of another structure"
    WILDCARD = "its name has a star"
    TWO_NAMES = "it has a second name"
    SHA1 = "it is signed with SHA-1"
    WEAK_KEY = "its key has 1024 bits"
    OTHER_RANGE = "it is of the other range, test or production"
    BROKEN_CHAIN = "nobody is given the intermediate that issued it"
    OTHER_KEY = "its key is that of another certificate"


_OTHER_PROFILE = {
    Profile.ORG_AUTH_CLI: Profile.ORG_SIGN,
    Profile.ORG_SIGN: Profile.ORG_AUTH_CLI,
    Profile.SSL_SERV: Profile.ORG_AUTH_CLI,
}


@dataclass(slots=True)
class Misfits:
    """Makes them: ``authority`` is the PKI that is believed, ``other`` that of the other range.

    ``unit`` and ``host`` are what is right.
    """

    authority: TestAuthority
    other: TestAuthority
    unit: str
    host: str
    _number: itertools.count[int] = field(default_factory=itertools.count)

    def make(self, profile: Profile, wrong: Wrong | None = None) -> PemPair:
        """A pair with that one thing wrong; None: a right one."""
        today = dt.datetime.now(dt.UTC)
        begin, end = today - dt.timedelta(days=30), today + dt.timedelta(days=365)
        if wrong is Wrong.EXPIRED:
            end = today - dt.timedelta(days=1)
        elif wrong is Wrong.NOT_YET:
            begin = today + dt.timedelta(days=1)
        hosts: tuple[str, ...] = (self.host,) if profile is Profile.SSL_SERV else ()
        if wrong is Wrong.WILDCARD:
            hosts = (f"*.{self.host.partition('.')[2]}",)
        elif wrong is Wrong.TWO_NAMES:
            hosts = (self.host, f"autre.{self.host}")
        name = f"misfit-{next(self._number)}"
        pair = (self.other if wrong is Wrong.OTHER_RANGE else self.authority).issue(
            _OTHER_PROFILE[profile] if wrong is Wrong.PURPOSE else profile,
            name,
            common_name=self.host if hosts else "DRIMbox",
            unit="1990000001" if wrong is Wrong.UNIT else self.unit,
            organisation="CENTRE D'IMAGERIE",
            hosts=hosts,
            not_before=begin,
            not_after=end,
            key_bits=1024 if wrong is Wrong.WEAK_KEY else 2048,
            sha1=wrong is Wrong.SHA1,
            lost_issuer=wrong is Wrong.BROKEN_CHAIN,
        )
        if wrong is Wrong.REVOKED:
            self.authority.revoke(pair)
        if wrong is Wrong.OTHER_KEY:
            return PemPair(pair.certificate, self.make(profile).key)
        return pair
