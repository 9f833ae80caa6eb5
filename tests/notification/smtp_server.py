"""An SMTP server of the site, as small as it can be (RFC 5321, 3207, 4954): real octets, TLS and AUTH PLAIN."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class Letter:
    sender: str
    recipients: list[str]
    message: EmailMessage
    secured: bool
    login: str


@dataclass
class SmtpServer:
    """``answers`` are what the next commands of a name get instead, once each: ``{"RCPT": ["450 later"]}``."""

    tls: ssl.SSLContext | None = None
    at_once: bool = False
    offers_starttls: bool = True
    password: str = ""
    answers: dict[str, list[str]] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secured, login, sender, recipients = self.at_once, "", "", list[str]()

        async def say(*lines: str) -> None:
            writer.write("".join(f"{line}\r\n" for line in lines).encode())
            await writer.drain()

        await say("220 smtp.test ESMTP")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            verb = line.split(":")[0].split()[0].upper()
            if planned := self.answers.get(verb):
                await say(planned.pop(0))
            elif verb == "EHLO":
                offers = ["STARTTLS"] if self.tls and self.offers_starttls and not secured else []
                offers += ["AUTH PLAIN"] if self.password and secured else []
                names = ["smtp.test", *offers]
                await say(*(f"250{'-' if place < len(names) - 1 else ' '}{name}" for place, name in enumerate(names)))
            elif verb == "STARTTLS":
                await say("220 go")
                assert self.tls is not None
                await writer.start_tls(self.tls)
                secured = True
            elif verb == "AUTH":
                _, user, secret = base64.b64decode(line.split()[2]).decode().split("\0")
                login = user if secret == self.password else ""
                await say("235 welcome" if login else "535 5.7.8 no")
            elif verb == "MAIL":
                sender, recipients = line.partition("<")[2].partition(">")[0], []
                await say("250 ok" if login or not self.password else "530 5.7.0 log in")
            elif verb == "RCPT":
                recipients.append(line.partition("<")[2].partition(">")[0])
                await say("250 ok")
            elif verb == "DATA":
                await say("354 go on")
                octets = await self._data(reader)
                message = message_from_bytes(octets, policy=policy.default)
                assert isinstance(message, EmailMessage)
                self.letters.append(Letter(sender, recipients, message, secured, login))
                await say("250 taken")
            elif verb == "QUIT":
                await say("221 bye")
                return
            else:
                await say("250 ok")

    async def _data(self, reader: asyncio.StreamReader) -> bytes:
        lines = []
        while (line := await reader.readline()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b"..") else line)
        return b"".join(lines)


@asynccontextmanager
async def smtp_server(server: SmtpServer) -> AsyncIterator[SmtpServer]:
    tls = server.tls if server.at_once else None
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server
        listening.close()
