"""E-mails through the site's own SMTP server (RFC 5321, RFC 3207), in a thread: the standard client waits."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Literal

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.notification.notices import Notice

_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class MailChannel:
    """Sends notices as e-mails. ``password`` gives the password when it is needed; ``tls`` is None for a relay on the
    same machine that has none."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    tls: ssl.SSLContext | None
    sender: str
    recipients: Sequence[str]
    clock: Clock
    username: str = ""
    password: Callable[[], str] = field(default=lambda: "", repr=False)
    name: str = "mail"

    async def tell(self, notice: Notice) -> None:
        """Raises ``Unavailable`` (the server is away, or says later) or ``Rejected`` (it will not), both ``smtp``."""
        await self.send(self.recipients, notice.subject, notice.text)

    async def send(self, recipients: Sequence[str], subject: str, text: str) -> None:
        """One e-mail to these addresses, whoever the channel's own recipients are. Raises as ``tell``."""
        message = self._message(recipients, subject, text)
        await asyncio.to_thread(self._send, message, list(recipients))

    def _message(self, recipients: Sequence[str], subject: str, text: str) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self.sender
        message["To"] = ", ".join(recipients)
        message["Subject"] = subject
        message["Date"] = format_datetime(self.clock.now())
        message["Message-ID"] = make_msgid(domain=self.sender.rpartition("@")[2])
        # Not answered by machines, nor by those who are away (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message

    def _send(self, message: EmailMessage, recipients: list[str]) -> None:
        try:
            with self._connected() as client:
                if self.username:
                    client.login(self.username, self.password())
                refused = client.send_message(message, self.sender, recipients)
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPResponseException) as error:
            raise _answered(error) from error
        except smtplib.SMTPNotSupportedError as error:
            raise Rejected("Le serveur SMTP n'offre pas STARTTLS ou AUTH", code="smtp") from error
        except ssl.SSLCertVerificationError as error:
            raise Rejected("Le certificat du serveur SMTP n'est pas accepté", code="smtp") from error
        except (smtplib.SMTPException, OSError) as error:
            raise Unavailable("Serveur SMTP injoignable", code="smtp", peer_code=type(error).__name__) from error
        if refused:
            raise Rejected(f"{len(refused)} destinataires refusés par le serveur SMTP", code="smtp")

    def _connected(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=_TIMEOUT, context=self.tls)
        client = smtplib.SMTP(self.host, self.port, timeout=_TIMEOUT)
        if self.security == "starttls":
            try:
                # Raises where it is not offered: nothing goes out in the clear instead.
                client.starttls(context=self.tls)
            except BaseException:
                client.close()
                raise
        return client


def _answered(error: smtplib.SMTPRecipientsRefused | smtplib.SMTPResponseException) -> Unavailable | Rejected:
    """The server's own code; 4yz may pass (RFC 5321 4.2.1). What it says beside it may name people: it is left out."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
        code = min(codes, default=550)
    else:
        code = error.smtp_code
    if 400 <= code < 500:
        return Unavailable("Le serveur SMTP demande de réessayer", code="smtp", peer_code=str(code))
    return Rejected("Le serveur SMTP refuse l'envoi", code="smtp", peer_code=str(code))
