"""The patient's way in by an identity provider (FranceConnect+, or any OpenID provider; decision 19).

Who comes back with an identity is let in if it is that of the patient of the report, and nobody else: neither a parent
nor a spouse. Whatever differs, the answer is the one of a link that opens nothing; the journal knows what it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Rejected
from drimbox.foundation.uids import new_secret
from drimbox.identity.traits import normal, same_name
from drimbox.link.address import Link
from drimbox.link.agreement import Agreement, Disagrees, Named, until_beat
from drimbox.link.entrance import Entrance, objects_of, patient_actor, refusal
from drimbox.link.limits import Attempts
from drimbox.link.logins import Login, Logins
from drimbox.link.ports import AuditJournal, IdentityProvider
from drimbox.link.visit import Visitor, Who
from drimbox.link.visits import Door, Elsewhere
from drimbox.manifest.manifest import Manifest
from drimbox.national.oidc.client import Vouched
from drimbox.national.oidc.person import Person
from drimbox.record.audit import Actor, Event, Kind

# Apart from Pro Santé Connect's: an address each, so that no answer is taken for the other's.
CALLBACK_PATH = "/lien/identite/retour"
GOODBYE_PATH = "/lien/au-revoir"
KEYS_PATH = "/lien/cles.json"


@dataclass(slots=True)
class VouchedDesk:
    """Sends patients to their identity provider, and takes them back. ``name`` is how the pages call it."""

    name: str
    provider: IdentityProvider
    agreement: Agreement
    entrance: Entrance
    attempts: Attempts
    journal: AuditJournal
    clock: Clock
    public_url: str
    _logins: Logins = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._logins = Logins(self.clock)

    @property
    def redirect_uri(self) -> str:
        return f"{self.public_url}{CALLBACK_PATH}"

    async def begin(self, link: Link, browser: str) -> str:
        """The address of the provider's login page. Raises ``Unavailable`` or ``Misconfigured``."""
        state, login = self._logins.made(browser, link)
        address = await self.provider.authorization_url(self.redirect_uri, state, login.nonce, login.verifier)
        self._logins.expect(state, login)
        return address

    async def finish(
        self, browser: str, *, state: str, code: str, error: str, issuer: str | None, address: str
    ) -> Door:
        """The provider's answer, then the identity, then the link: the door, open.

        Raises ``Refused`` (``link-state``) for an answer that this browser does not wait for, ``Rejected`` when the
        provider or the person said no, ``TooMany``, what the provider raises, and as ``Entrance.enter``.
        """
        pending = self._logins.take(state, browser)
        actor = patient_actor(address)
        try:
            vouched = await self._identified(code, error, issuer, pending)
        except DrimboxError as problem:
            await self.journal.write(None, refusal(Kind.LOGIN, pending.link, actor, problem))
            raise
        await self._checked(pending.link, vouched.person, actor)
        who = Who(Visitor.PATIENT, self.clock.now())
        return await self.entrance.enter(pending.link, who, actor, Elsewhere(vouched.id_token))

    async def logout_url(self, id_token: str) -> str:
        """The provider's own logout page; empty when it cannot tell it: the visit here is over in any case."""
        try:
            return await self.provider.logout_url(id_token, f"{self.public_url}{GOODBYE_PATH}", new_secret())
        except DrimboxError:
            return ""

    async def _identified(self, code: str, error: str, issuer: str | None, pending: Login) -> Vouched:
        await self.provider.check_issuer(issuer)
        if error or not code:
            raise Rejected(f"{self.name} n'a pas abouti : ouvrez de nouveau le lien", code="oidc-refused")
        return await self.provider.identify(code, self.redirect_uri, pending.verifier, pending.nonce)

    async def _checked(self, link: Link, person: Person, actor: Actor) -> None:
        """Raises ``TooMany``; ``Disagrees``, always after the same time."""
        begun = self.clock.monotonic()
        named: Named | None = None
        try:
            await self.attempts.claim(link.study_uid, actor.address)
            named = await self.agreement.published(link, Visitor.PATIENT)
            if why := differing(person, named.manifest):
                raise Disagrees(f"identité différente ({', '.join(why)})")
        except DrimboxError as problem:
            await self.journal.write(None, refusal(Kind.LINK_IDENTITY_CHECKED, link, actor, problem, named))
            if isinstance(problem, Disagrees):
                await until_beat(self.clock, begun, self.entrance.beat)
            raise
        ins, structure = named.archived.ins, named.archived.structure
        event = Event(Kind.LINK_IDENTITY_CHECKED, actor, objects_of(link), structure=structure, patient=ins)
        await self.journal.write(None, event)


def differing(person: Person, manifest: Manifest) -> tuple[str, ...]:
    """Which strict traits of a person are not those of the patient of a KOS, by their French names; none: the same.

    A trait that one of the two does not have agrees with nothing.
    """
    family, _, given = manifest.patient_name.partition("^")
    dated = person.birth_date is not None and manifest.birth_date == person.birth_date.strftime("%Y%m%d")
    sexed = manifest.sex in ("M", "F") and manifest.sex == person.sex.value
    place = manifest.birth_place.strip().upper()
    same = {
        "nom de naissance": same_name(person.family, family),
        "prénom": _same_given(person.given_names, given.partition("^")[0], _listed(manifest)),
        "date de naissance": dated,
        "sexe": sexed,
        "lieu de naissance": bool(place) and place == person.birth_place,
    }
    return tuple(name for name, agrees in same.items() if not agrees)


def _same_given(told: tuple[str, ...], first: str, listed: str) -> bool:
    """Does the provider's list begin with the first birth given name, and go on as the report's, where it has one?

    Blanks stand between the names of the provider's list and hyphens inside them: ``Jean-Pierre`` is not ``Jean``, who
    may be his twin. Who writes ``JEAN PIERRE`` for one name is understood too.
    """
    wanted = normal(first)
    begins = any(normal(" ".join(told[:count])) == wanted for count in range(1, len(told) + 1))
    ours, theirs = normal(listed).split(), normal(" ".join(told)).split()
    shorter = min(len(ours), len(theirs))
    return bool(wanted) and begins and ours[:shorter] == theirs[:shorter]


def _listed(manifest: Manifest) -> str:
    """The list of birth given names (``^JEAN PAUL``); empty where the KOS has none."""
    family, _, given = (manifest.other_names[0] if manifest.other_names else "").partition("^")
    return "" if family else given.partition("^")[0]
