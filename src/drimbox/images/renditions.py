"""One stored image in the form that one caller takes: its head with the INS, and the rest as it lies on the disk."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.images.accept import Choice, Policy, Wanted, choose
from drimbox.images.elements import Buffer, mapped
from drimbox.images.header import Header, Splice, read_header, read_meta, with_ins
from drimbox.images.offers import header_offers, offers
from drimbox.images.pixels import read_layout
from drimbox.images.syntaxes import DEFLATED_LE, NEVER_SENT
from drimbox.images.threads import in_thread
from drimbox.images.workers import Transcoder

_CHUNK = 2**20


class NotAcceptable(Refused):
    """The caller takes none of the syntaxes that this image can be sent in (406)."""

    def __init__(self, supported: Sequence[str]) -> None:
        super().__init__("Aucune des syntaxes de transfert acceptées n'est disponible", code="not-acceptable")
        self.supported = tuple(supported)


@dataclass(frozen=True, slots=True)
class Rendition:
    """A file ready to be sent: ``head``, then ``path`` from offset ``rest``; ``size`` in all.

    ``temporary``: the file is ours, and goes with ``discard``.
    """

    header: Header
    transfer_syntax: str
    single: bool
    head: bytes
    path: Path
    rest: int
    size: int
    temporary: bool

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the file, about a mebibyte at a time."""
        # Unbuffered: the chunks are large.
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.rest)
            chunk = self.head + await in_thread(file.read, _CHUNK)
            while chunk:
                yield chunk
                chunk = await in_thread(file.read, _CHUNK)

    def discard(self) -> None:
        """Delete what was made for this caller alone."""
        if self.temporary:
            self.path.unlink(missing_ok=True)


class Renderer:
    """Makes renditions. ``scratch`` holds transcoded files for as long as they are being sent."""

    def __init__(self, transcoder: Transcoder, scratch: Path, policy: Policy = Policy.LEAST_WORK) -> None:
        self._transcoder = transcoder
        self._scratch = scratch
        self._policy = policy

    async def render(self, path: Path, wanted: Sequence[Wanted], ins: Ins, *, one: bool = False) -> Rendition:
        """The best form of the image at ``path`` for a caller who takes ``wanted``, with the INS of its patient.

        Raises ``NotAcceptable``, ``IdentityMismatch`` when the image names another INS, ``Refused`` when it is damaged.
        """
        header, choice, change = await in_thread(_plan, path, wanted, ins, self._policy, one)
        if change is not None:
            return await in_thread(_rendition, header, choice, change, path, False)
        target = self._scratch / f"{uuid.uuid4()}.dcm"
        await self._transcoder.transcode(path, target, choice.offer.syntax)
        try:
            return await in_thread(_spliced, header, choice, target, ins)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    async def metadata(self, path: Path, ins: Ins) -> bytes:
        """The header as one DICOM JSON object. Raises ``Refused``, ``IdentityMismatch``."""
        target = self._scratch / f"{uuid.uuid4()}.json"
        await self._transcoder.metadata(path, target, ins)
        try:
            return await in_thread(target.read_bytes)
        finally:
            target.unlink(missing_ok=True)


def _plan(
    path: Path, wanted: Sequence[Wanted], ins: Ins, policy: Policy, one: bool
) -> tuple[Header, Choice, Splice | None]:
    with mapped(path) as buffer:
        header = read_header(buffer)
        choice = _choose(buffer, header.transfer_syntax, wanted, policy, one)
        if header.transfer_syntax not in NEVER_SENT and choice.offer in header_offers(header.transfer_syntax):
            return header, choice, with_ins(buffer, ins, transfer_syntax=choice.offer.syntax)
    return header, choice, None


def _choose(buffer: Buffer, stored: str, wanted: Sequence[Wanted], policy: Policy, one: bool) -> Choice:
    cheap = header_offers(stored)
    choice = choose(wanted, cheap, policy=policy, one=one) if policy is Policy.LEAST_WORK else None
    if choice is not None:
        return choice
    # What a deflated file holds is not known before it is inflated: it goes out as Explicit Little Endian only.
    possible = cheap if stored == DEFLATED_LE else offers(stored, read_layout(buffer, read_meta(buffer)).pixels)
    choice = choose(wanted, possible, policy=policy, one=one)
    if choice is None:
        raise NotAcceptable([offer.syntax for offer in possible])
    return choice


def _spliced(header: Header, choice: Choice, path: Path, ins: Ins) -> Rendition:
    with mapped(path) as buffer:
        change = with_ins(buffer, ins)
    return _rendition(header, choice, change, path, True)


def _rendition(header: Header, choice: Choice, change: Splice, path: Path, temporary: bool) -> Rendition:
    return Rendition(
        header=header,
        transfer_syntax=choice.offer.syntax,
        single=choice.single,
        head=change.head,
        path=path,
        rest=change.rest,
        size=change.size(os.path.getsize(path)),
        temporary=temporary,
    )
