"""TD0.3: a professional records that the patient authorises, or no longer authorises, the consultation.

Request (demonstrator.md 7.3)::

    <setAuthorization xmlns="urn:si-dmp-habilitations"><action>AJOUT</action></setAuthorization>

``SUPPRESSION`` takes the authorisation away. The patient is the resource-id of the VIHF, the actor its NameID. The
shape of the answer is not public; here it is, with the action ``…:setAuthorizationResponse``::

    <setAuthorizationResponse xmlns="urn:si-dmp-habilitations"><status>OK</status></setAuthorizationResponse>

A breach of a rule (no DMP, closed DMP, blocked professional) is answered by a SOAP fault.
"""

from __future__ import annotations

from drimbox.foundation.xml import Builder, text_of
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.answers import Reply
from drimbox.sandbox.dmp.bench import Authorisation, RecordStatus
from drimbox.sandbox.dmp.hearing import Hearing
from drimbox.sandbox.dmp.rules import Rule, judge, rule

_ACTIONS = {"AJOUT": Authorisation.VALID, "SUPPRESSION": Authorisation.ABSENT}
_OUT = Builder({"hab": v.HABILITATIONS}, "hab")


@rule("AUTHORISE.FORM", v.MALFORMED)
def form(h: Hearing) -> str | None:
    """setAuthorization holds one action, AJOUT or SUPPRESSION, and nothing else (standards.md D.8)."""
    children = list(h.message.body)
    right = [c.tag for c in children] == [f"{{{v.HABILITATIONS}}}action"] and text_of(children[0]) in _ACTIONS
    return None if right else "action AJOUT ou SUPPRESSION attendue"


@rule("AUTHORISE.RECORD", v.NOT_ALLOWED)
def record(h: Hearing) -> str | None:
    """The patient has an open DMP (standards.md D.8)."""
    known = h.bench.patient(h.vihf.patient)
    is_open = known is not None and known.status is RecordStatus.ACTIVE
    return None if is_open else "pas de DMP ouvert pour ce patient"


@rule("AUTHORISE.BLOCKED", v.NOT_ALLOWED)
def blocked(h: Hearing) -> str | None:
    """A professional whom the patient has blocked cannot give himself access (standards.md D.8)."""
    return "professionnel bloqué par le patient" if h.authorisation() is Authorisation.BLOCKED else None


AUTHORISE_RULES: tuple[Rule[Hearing], ...] = (form, record, blocked)


def authorise(hearing: Hearing) -> Reply:
    """Judge and record. Raises ``Breach``."""
    judge(AUTHORISE_RULES, hearing)
    state = _ACTIONS[text_of(hearing.message.body[0])]
    hearing.bench.store.set_authorisation(hearing.vihf.patient, hearing.vihf.name_id, state.value)
    return Reply(f"{v.AUTHORISE}Response", _OUT("setAuthorizationResponse", _OUT("status", "OK")))
