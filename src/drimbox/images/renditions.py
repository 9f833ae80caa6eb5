"""One stored image in the form that one caller takes: a DICOM file with the INS in it, or frames by themselves."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from drimbox.dicom.elements import Buffer
from drimbox.dicom.files import Meta, mapped, read_meta
from drimbox.dicom.frames import all_spans, frame, native_span
from drimbox.dicom.pixels import Pixels, read_description, read_layout
from drimbox.dicom.syntaxes import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    NATIVE,
    NEVER_SENT,
    RELABELLED,
    VIDEO,
    encoding_of,
    frame_media,
)
from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.images.accept import ANY, DICOM, Choice, Offer, Policy, Wanted, choose
from drimbox.images.contents import Content, InFile, InMemory
from drimbox.images.header import Header, data_set_of, read_header, refuse_other_ins
from drimbox.images.leaving import as_it_leaves
from drimbox.images.offers import header_offers, offers
from drimbox.images.threads import in_thread
from drimbox.images.workers import Transcoder

_CHUNK = 2**20
#: What is made in memory; what may come out longer goes through the scratch folder.
_MAX_IN_MEMORY = 8 * 2**20


class NotAcceptable(Refused):
    """The caller takes none of the syntaxes that this image can be sent in (406)."""

    def __init__(self, supported: Sequence[str]) -> None:
        super().__init__("Aucune des syntaxes de transfert acceptées n'est disponible", code="not-acceptable")
        self.supported = tuple(supported)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which image a file says that it is."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Rendition:
    """An image ready to be sent: one DICOM file, or the frames that were asked for, in their order.

    ``media`` is what each of ``contents`` is, without its transfer syntax; ``single``: it is the whole body;
    ``temporary``: a file that was made for this caller alone.
    """

    identity: Identity
    transfer_syntax: str
    media: str
    single: bool
    contents: tuple[Content, ...]
    temporary: Path | None = None

    @property
    def media_type(self) -> str:
        """The Content-Type of each part."""
        return f"{self.media}; transfer-syntax={self.transfer_syntax}"

    def discard(self) -> None:
        """To be called once it was sent, or will not be."""
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done: nothing more (``done``), or work for a transcoder.

    ``identity`` is known where the transcoder is not asked for it.
    """

    choice: Choice
    in_memory: bool
    done: Rendition | None = None
    identity: Identity | None = None


class Renderer:
    """Makes renditions. ``scratch`` holds long transcoded files for as long as they are being sent."""

    def __init__(self, transcoder: Transcoder, scratch: Path, policy: Policy = Policy.QUALITY) -> None:
        self._transcoder = transcoder
        self._scratch = scratch
        self._policy = policy

    async def render(self, path: Path, wanted: Sequence[Wanted], ins: Ins, *, one: bool = False) -> Rendition:
        """The best form of the image at ``path`` for a caller who takes ``wanted``, with the INS of its patient.

        Raises ``NotAcceptable``, ``IdentityMismatch`` when the image names another INS, ``Refused`` when it is damaged.
        """
        return await self._image(path, await in_thread(_plan, path, wanted, ins, self._policy, one), ins)

    async def frames(self, path: Path, wanted: Sequence[Wanted], ins: Ins, numbers: Sequence[int]) -> Rendition:
        """The frames ``numbers`` (from 1), or the DICOM file that holds them, whichever the caller likes better.

        Raises as ``render`` does, and ``Refused`` (``no-frame``) when there is no such frame.
        """
        plan = await in_thread(_plan_frames, path, wanted, ins, numbers, self._policy)
        if plan.done is not None or plan.identity is None:
            return await self._image(path, plan, ins)
        choice, target = plan.choice, self._target("frames")
        made = await self._transcoder.frames(path, target, choice.offer.syntax, numbers, in_memory=plan.in_memory)
        ends = list(accumulate(made.lengths))
        spans = list(zip([0, *ends], ends, strict=False))
        contents: tuple[Content, ...]
        if made.content is not None:
            contents = tuple(InMemory(made.content[start:end]) for start, end in spans)
        else:
            contents = tuple(InFile(target, (span,)) for span in spans)
        temporary = target if made.content is None else None
        return Rendition(
            plan.identity, choice.offer.syntax, _media(choice), choice.single, contents, temporary=temporary
        )

    async def metadata(self, path: Path, ins: Ins) -> bytes:
        """The header as one DICOM JSON object. Raises ``Refused``, ``IdentityMismatch``."""
        target = self._target("json")
        await self._transcoder.metadata(path, target, ins)
        try:
            return await in_thread(target.read_bytes)
        finally:
            target.unlink(missing_ok=True)

    async def _image(self, path: Path, plan: _Plan, ins: Ins) -> Rendition:
        if plan.done is not None:
            return plan.done
        choice, target = plan.choice, self._target("dcm")
        made = await self._transcoder.image(path, target, choice.offer.syntax, ins, in_memory=plan.in_memory)
        identity = Identity(made.study_uid, made.series_uid, made.sop_instance_uid)
        if made.content is not None:
            return Rendition(identity, choice.offer.syntax, DICOM, choice.single, (InMemory(made.content),))
        whole = InFile(target, ((0, made.size),))
        return Rendition(identity, choice.offer.syntax, DICOM, choice.single, (whole,), temporary=target)

    def _target(self, kind: str) -> Path:
        return self._scratch / f"{uuid.uuid4()}.{kind}"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A stored file, open, for as long as it is being looked at."""

    path: Path
    buffer: Buffer
    meta: Meta

    @property
    def stored(self) -> str:
        return self.meta.transfer_syntax

    def pixels(self) -> Pixels | None:
        """The description of its pixels."""
        data, start = data_set_of(self.buffer, self.meta)
        return read_description(data, start, encoding_of(self.stored))


def _plan(path: Path, wanted: Sequence[Wanted], ins: Ins, policy: Policy, one: bool) -> _Plan:
    with mapped(path) as buffer:
        file = _Opened(path, buffer, read_meta(buffer))
        choice = _choose(file, wanted, policy, one)
        return _planned(file, choice, ins)


def _choose(file: _Opened, wanted: Sequence[Wanted], policy: Policy, one: bool) -> Choice:
    cheap = choose(wanted, header_offers(file.stored), policy=policy, one=one)
    most = max((w.quality for w in wanted if one or not w.single), default=0.0)
    if cheap is not None and (policy is Policy.LEAST_WORK or cheap.quality >= most):
        # Nothing that can be made of the pixels would be liked better.
        return cheap
    possible = _offers(file.stored, file.pixels())
    choice = choose(wanted, possible, policy=policy, one=one)
    if choice is None:
        raise NotAcceptable([offer.syntax for offer in possible])
    return choice


def _offers(stored: str, pixels: Pixels | None) -> tuple[Offer, ...]:
    # A deflated image becomes an Explicit Little Endian one first.
    return offers(EXPLICIT_LE if stored in NEVER_SENT else stored, pixels)


def _planned(file: _Opened, choice: Choice, ins: Ins) -> _Plan:
    syntax = choice.offer.syntax
    if choice.offer in header_offers(file.stored):
        leaving = as_it_leaves(file.buffer, ins, transfer_syntax=syntax, meta=file.meta)
        if leaving is not None:
            content = InFile(file.path, ((leaving.change.rest, len(file.buffer)),), leaving.change.head)
            identity = _identity(leaving.header)
            return _Plan(choice, False, Rendition(identity, syntax, DICOM, choice.single, (content,)))
        return _Plan(choice, file.stored != DEFLATED_LE and len(file.buffer) <= _MAX_IN_MEMORY)
    pixels = file.pixels()
    return _Plan(choice, pixels is not None and pixels.all_bytes <= _MAX_IN_MEMORY)


def _plan_frames(path: Path, wanted: Sequence[Wanted], ins: Ins, numbers: Sequence[int], policy: Policy) -> _Plan:
    with mapped(path) as buffer:
        file = _Opened(path, buffer, read_meta(buffer))
        pixels = file.pixels()
        if pixels is None or max(numbers) > pixels.frames:
            raise Refused("Trame absente de cette image", code="no-frame")
        header = read_header(buffer)
        refuse_other_ins(header, ins)
        possible = _offers(file.stored, pixels)
        choice = _choose_frames(file.stored, wanted, possible, policy, len(numbers) == 1)
        if choice.media == DICOM:
            return _planned(file, choice, ins)
        contents = _lying(file, choice.offer.syntax, numbers)
        if contents is None:
            room = len(numbers) * pixels.frame_bytes <= _MAX_IN_MEMORY
            return _Plan(choice, room, identity=_identity(header))
        whole = Rendition(_identity(header), choice.offer.syntax, _media(choice), choice.single, contents)
        return _Plan(choice, False, whole)


def _choose_frames(
    stored: str, wanted: Sequence[Wanted], possible: Sequence[Offer], policy: Policy, one: bool
) -> Choice:
    """Frames rather than the file where the caller likes both alike. Raises ``NotAcceptable``."""
    # The frames of a video cannot be told apart.
    bare = choose([w for w in wanted if w.frames], () if stored in VIDEO else possible, policy=policy, one=one)
    whole = choose([w for w in wanted if not w.frames], possible, policy=policy, one=True)
    found = [choice for choice in (bare, whole) if choice is not None]
    if not found:
        raise NotAcceptable([offer.syntax for offer in possible])
    return min(found, key=lambda c: (c.offer.loses, -c.quality))


def _lying(file: _Opened, syntax: str, numbers: Sequence[int]) -> tuple[Content, ...] | None:
    """The frames as they lie in the file; None when they have to be decoded or turned round."""
    if file.stored in (DEFLATED_LE, EXPLICIT_BE):
        return None
    if syntax not in (file.stored, *RELABELLED.get(file.stored, ())) and file.stored not in NATIVE:
        return None
    if file.stored in NATIVE and syntax != EXPLICIT_LE:
        return None
    layout = read_layout(file.buffer, file.meta)
    if file.stored not in NATIVE:
        spans = all_spans(file.buffer, layout, file.stored)
        return tuple(InFile(file.path, spans[number - 1]) for number in numbers)
    contents: list[Content] = []
    for number in numbers:
        span = native_span(layout, number)
        contents.append(InFile(file.path, (span,)) if span else InMemory(frame(file.buffer, layout, number)))
    return tuple(contents)


def _identity(header: Header) -> Identity:
    return Identity(header.study_uid, header.series_uid, header.sop_instance_uid)


def _media(choice: Choice) -> str:
    return frame_media(choice.offer.syntax) if choice.media == ANY else choice.media
