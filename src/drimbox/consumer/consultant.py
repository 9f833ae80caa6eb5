"""Who consults: a professional in one practice, with what the call allows and, for a while, an emergency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from drimbox.consumer.call import Consent, ContextualCall
from drimbox.consumer.ports import ConsumerStructure, Structures
from drimbox.consumer.professional import Professional, vihf_identity
from drimbox.foundation.errors import DrimboxError, Rejected
from drimbox.identity.ins import Ins
from drimbox.national.dmp.actor import Actor as DmpActor
from drimbox.national.psc.userinfo import Practice
from drimbox.record.audit import Actor, Event, Kind, Object, failed


@dataclass(frozen=True, slots=True)
class Consultant:
    """A professional in one practice, with the structure whose certificates go with it."""

    professional: Professional
    practice: Practice
    structure: ConsumerStructure
    dmp: DmpActor
    address: str

    @property
    def person(self) -> str:
        """The national id (PS_IdNat)."""
        return self.professional.info.national_id

    def in_emergency(self, reason: str) -> Consultant:
        """The same, acting in an emergency (*bris de glace*) for a reason that the DMP is told."""
        return replace(self, dmp=replace(self.dmp, emergency=reason))

    def event(
        self, kind: Kind, patient: Ins, objects: Sequence[Object] = (), error: DrimboxError | None = None
    ) -> Event:
        """An event of the journal by this person about this patient."""
        event = Event(
            kind,
            Actor(
                person=self.person,
                name=self.professional.name,
                profession=self.practice.profession.code,
                structure=self.practice.structure_id,
                sector=self.practice.sector,
                address=self.address,
            ),
            tuple(objects),
            structure=self.structure.id,
            patient=patient,
        )
        return event if error is None else failed(event, error)


def consultant(
    professional: Professional, practice: Practice, structures: Structures, *, authn_context: str, address: str
) -> Consultant:
    """The professional as they may act here.

    Raises ``Rejected`` (``structure-unknown``) when the practice is in a structure that this box does not serve.
    """
    structure = structures.of(practice.structure_id)
    if structure is None:
        raise Rejected(
            "Cette situation d'exercice relève d'une structure que cette DRIMbox ne sert pas : "
            "choisissez-en une autre, ou adressez-vous à votre administrateur",
            code="structure-unknown",
        )
    identity = vihf_identity(professional, practice, authn_context=authn_context)
    actor = structure.actor(identity)
    if structure.api is not None:
        actor = replace(actor, bearer=professional.bearer(structure.id, structure.api))
    return Consultant(professional, practice, structure, actor, address)


def require_consent(call: ContextualCall) -> None:
    """Raises ``Rejected`` (``no-consent``) unless the call carries the patient's consent (DB.CO.93, DB.CO.94)."""
    if call.consent is not Consent.YES:
        raise Rejected("L'appel ne porte pas le consentement du patient", code="no-consent")
