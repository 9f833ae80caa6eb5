"""A login on the professional's own device (CIBA): asked for here, confirmed there, then fetched by the browser.

The browser shows a two-digit number, the device shows it too: the professional confirms only what they see on both.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from drimbox.consumer.professional import Professional
from drimbox.foundation.errors import DrimboxError, Refused, Unavailable

_log = logging.getLogger(__name__)

Channel = Literal["MOBILE", "CARD"]
CHANNELS: tuple[Channel, ...] = ("MOBILE", "CARD")


class RemoteLogin:
    """One such login on its way, for one call of one browser. ``binding`` is the number on both screens."""

    def __init__(
        self, call_id: str, binding: str, channel: Channel, work: Callable[[], Coroutine[Any, Any, Professional]]
    ) -> None:
        self.call_id = call_id
        self.binding = binding
        self.channel = channel
        self._task = asyncio.create_task(_recorded(work))

    @property
    def over(self) -> bool:
        """Confirmed, refused, or too late: ``result`` tells which."""
        return self._task.done()

    def result(self) -> Professional:
        """Who confirmed. Raises the ``DrimboxError`` of a login that did not come to its end."""
        return self._task.result()

    async def close(self) -> None:
        """Give the login up. Whoever confirms now confirms nothing."""
        self._task.cancel()
        [left] = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(left, Professional):
            await left.leave()


async def _recorded(work: Callable[[], Coroutine[Any, Any, Professional]]) -> Professional:
    """A task boundary: nobody waits for this one, whatever happens must end in what the page can say."""
    try:
        return await work()
    except DrimboxError:
        raise
    except Exception as error:
        _log.exception("a remote login failed")
        raise Unavailable("Erreur interne de la DRIMbox : la connexion n'a pas abouti", code="internal") from error


def national_id_of(typed: str) -> str:
    """The PS_IdNat (``8`` + RPPS) of what a professional types: eleven digits, with or without the ``8`` before them.

    Raises ``Refused`` (``national-id``), which does not repeat what was typed.
    """
    digits = re.sub(r"[\s.-]", "", typed)
    if re.fullmatch(r"[0-9]{11}", digits):
        return f"8{digits}"
    if re.fullmatch(r"8[0-9]{11}", digits):
        return digits
    raise Refused("Un numéro RPPS a onze chiffres : vérifiez votre saisie", code="national-id")


def channel_of(sent: str) -> Channel:
    """The device that was chosen. Raises ``Refused`` (``form``)."""
    for channel in CHANNELS:
        if sent == channel:
            return channel
    raise Refused("Moyen de connexion inconnu", code="form")
