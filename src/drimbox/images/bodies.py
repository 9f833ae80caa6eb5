"""The bodies of an answer: DICOM files in a multipart, one DICOM file, or DICOM JSON. Each is made part by part."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins
from drimbox.images.accept import Wanted
from drimbox.images.elements import mapped
from drimbox.images.gate import Denied, Target
from drimbox.images.header import Header, read_header, read_meta
from drimbox.images.multipart import Writer
from drimbox.images.pixels import read_layout
from drimbox.images.renditions import Renderer, Rendition
from drimbox.images.syntaxes import DEFLATED_LE
from drimbox.images.threads import in_thread


@dataclass(frozen=True, slots=True)
class Asked:
    """The images of one request: whose they are, which they are, and the forms that the caller takes."""

    target: Target
    ins: Ins
    expected: frozenset[str]
    wanted: Sequence[Wanted] = ()

    @property
    def one(self) -> bool:
        """Does the answer hold one instance only?"""
        return bool(self.target.instance_uid)


class Part(Protocol):
    """One instance ready to be sent."""

    def opening(self, *, first: bool) -> bytes:
        """What stands before it in the body."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Its bytes."""

    def ending(self) -> bytes:
        """What stands after it, whatever follows."""

    def discard(self) -> None:
        """To be called once it was sent, or will not be."""

    @property
    def syntax(self) -> str:
        """Its transfer syntax, empty for metadata."""


class Body(Protocol):
    """A kind of answer."""

    async def prepare(self, path: Path, instance_uid: str) -> Part:
        """The instance at ``path``, ready to be sent. Raises ``Refused``, ``Denied``."""

    def headers(self, first: Part) -> dict[str, str]:
        """The headers of the answer that begins with ``first``."""

    def closing(self, first: Part) -> bytes:
        """What stands after the last part."""


@dataclass(frozen=True, slots=True)
class _DicomPart:
    rendition: Rendition
    writer: Writer

    @property
    def syntax(self) -> str:
        return self.rendition.transfer_syntax

    @property
    def media_type(self) -> str:
        return f"application/dicom; transfer-syntax={self.syntax}"

    def opening(self, *, first: bool) -> bytes:
        if self.rendition.single:
            return b""
        header = self.writer.opening({"Content-Type": self.media_type, "Content-Length": str(self.rendition.size)})
        return self.writer.delimiter() + header if first else header

    def ending(self) -> bytes:
        return b"" if self.rendition.single else self.writer.delimiter()

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return self.rendition.chunks()

    def discard(self) -> None:
        self.rendition.discard()


class DicomBody:
    """DICOM files: a multipart/related, or one application/dicom when the caller likes that better."""

    def __init__(self, asked: Asked, renderer: Renderer, boundary: str) -> None:
        self._asked = asked
        self._renderer = renderer
        self._writer = Writer(boundary)

    async def prepare(self, path: Path, instance_uid: str) -> _DicomPart:
        asked = self._asked
        if asked.target.frames:
            await in_thread(_check_frames, path, asked.target.frames)
        rendition = await self._renderer.render(path, asked.wanted, asked.ins, one=asked.one)
        try:
            check_identity(rendition.header, asked.target, instance_uid)
        except Refused:
            rendition.discard()
            raise
        return _DicomPart(rendition, self._writer)

    def headers(self, first: Part) -> dict[str, str]:
        assert isinstance(first, _DicomPart)
        if first.rendition.single:
            return {"Content-Type": first.media_type, "Content-Length": str(first.rendition.size)}
        # Only of one instance is it known that its syntax is that of the whole.
        return {"Content-Type": self._writer.content_type(first.syntax if self._asked.one else "")}

    def closing(self, first: Part) -> bytes:
        assert isinstance(first, _DicomPart)
        return b"" if first.rendition.single else self._writer.closing()


@dataclass(frozen=True, slots=True)
class _JsonPart:
    content: bytes

    @property
    def syntax(self) -> str:
        return ""

    def opening(self, *, first: bool) -> bytes:
        return b"[" if first else b","

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield self.content

    def ending(self) -> bytes:
        return b""

    def discard(self) -> None:
        pass


class MetadataBody:
    """The headers of the instances as one DICOM JSON array (PS3.18 10.4.1.2)."""

    def __init__(self, asked: Asked, renderer: Renderer) -> None:
        self._asked = asked
        self._renderer = renderer

    async def prepare(self, path: Path, instance_uid: str) -> _JsonPart:
        check_identity(await in_thread(_header, path), self._asked.target, instance_uid)
        return _JsonPart(await self._renderer.metadata(path, self._asked.ins))

    def headers(self, first: Part) -> dict[str, str]:
        return {"Content-Type": "application/dicom+json"}

    def closing(self, first: Part) -> bytes:
        return b"]"


def check_identity(header: Header, target: Target, instance_uid: str) -> None:
    """Is the file what was asked for? What the PACS sends is not believed unseen.

    Raises ``IdentityMismatch`` (``image-identity``).
    """
    asked = replace(target, instance_uid=instance_uid, series_uid=target.series_uid or header.series_uid, frames=())
    if asked != Target(header.study_uid, header.series_uid, header.sop_instance_uid):
        raise IdentityMismatch("Le PACS a envoyé une image d'un autre examen", code="image-identity")


def _header(path: Path) -> Header:
    with mapped(path) as buffer:
        return read_header(buffer)


def _check_frames(path: Path, frames: Sequence[int]) -> None:
    with mapped(path) as buffer:
        meta = read_meta(buffer)
        # A deflated image is not inflated for this: it has one frame as a rule, and goes out whole anyway.
        if meta.transfer_syntax == DEFLATED_LE:
            return
        pixels = read_layout(buffer, meta).pixels
    if max(frames) > (pixels.frames if pixels else 0):
        raise Denied(404, "frame-unknown", "Trame absente de cette image")
