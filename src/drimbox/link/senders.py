"""How a code reaches a patient: by e-mail to the address of the report, or by a service of the site (SMS)."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.foundation.errors import Rejected
from drimbox.link.ports import Code
from drimbox.notification.mail import MailChannel
from drimbox.notification.webhook import WebhookChannel

_SUBJECT = "Votre code d'accès"


@dataclass(frozen=True, slots=True)
class MailSender:
    """To the address that the report gives. ``place`` is the name of the site."""

    channel: MailChannel
    place: str
    name: str = "mail"

    async def send(self, code: Code) -> None:
        """Raises ``Rejected`` (``link-no-address``), ``Unavailable`` or ``Rejected`` (``smtp``)."""
        if not code.contact.email:
            raise Rejected("Le compte rendu ne donne pas d'adresse électronique du patient", code="link-no-address")
        await self.channel.send([code.contact.email], _SUBJECT, words(code, self.place))


@dataclass(frozen=True, slots=True)
class WebhookSender:
    """By a service of the site, which knows its patients: it is told who, how the report says to reach them, and what
    to write."""

    channel: WebhookChannel
    place: str
    name: str = "webhook"

    async def send(self, code: Code) -> None:
        """Raises ``Unavailable``, ``OutcomeUnknown`` or ``Rejected`` (``webhook``)."""
        await self.channel.post(
            {
                "text": words(code, self.place),
                "code": code.digits,
                "valid_minutes": code.minutes,
                "ins": code.ins.matricule,
                "ins_oid": code.ins.oid,
                "email": code.contact.email,
                "mobile": code.contact.mobile,
            }
        )


def words(code: Code, place: str) -> str:
    """What the patient reads: nothing that says more than that somebody asked."""
    half = len(code.digits) // 2
    return (
        f"Votre code d'accès : {code.digits[:half]} {code.digits[half:]}\n\n"
        f"Il est valable {code.minutes} minutes, sur la page où vous l'avez demandé ({place}).\n"
        "Ne le donnez à personne : on ne vous le demandera jamais par téléphone ni par message.\n"
        "Si vous n'avez rien demandé, ne faites rien.\n"
    )
