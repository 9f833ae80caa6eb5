"""The bodies of an answer: DICOM files in a multipart, one DICOM file, or DICOM JSON. Each is made part by part."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from drimbox.dicom.files import mapped
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins
from drimbox.images.accept import Wanted
from drimbox.images.contents import Content
from drimbox.images.gate import Denied, Target
from drimbox.images.header import Header, read_header
from drimbox.images.multipart import Writer
from drimbox.images.renditions import Identity, Renderer, Rendition
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

    def chunks(self) -> AsyncGenerator[bytes | bytearray, None]:
        """Its bytes, whose buffers are not touched again."""

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
    """One file, or the frames of one image: each a part of the multipart, or the whole body."""

    rendition: Rendition
    writer: Writer

    @property
    def syntax(self) -> str:
        return self.rendition.transfer_syntax

    def headers(self, *, one: bool) -> dict[str, str]:
        """The headers of the answer. ``one``: it holds no other image, so that its syntax is that of the whole."""
        rendition = self.rendition
        if rendition.single:
            return {"Content-Type": rendition.media_type, "Content-Length": str(rendition.contents[0].size)}
        return {"Content-Type": self.writer.content_type(self.syntax if one else "", rendition.media)}

    def opening(self, *, first: bool) -> bytes:
        if self.rendition.single:
            return b""
        header = self._header(self.rendition.contents[0])
        return self.writer.delimiter() + header if first else header

    def ending(self) -> bytes:
        return b"" if self.rendition.single else self.writer.delimiter()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for index, content in enumerate(self.rendition.contents):
            if index:
                yield self.writer.delimiter() + self._header(content)
            async with aclosing(content.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk

    def discard(self) -> None:
        self.rendition.discard()

    def _header(self, content: Content) -> bytes:
        return self.writer.opening({"Content-Type": self.rendition.media_type, "Content-Length": str(content.size)})


class DicomBody:
    """Images: a multipart/related of DICOM files or of frames, or one of them when the caller likes that better."""

    def __init__(self, asked: Asked, renderer: Renderer, boundary: str) -> None:
        self._asked = asked
        self._renderer = renderer
        self._writer = Writer(boundary)

    @property
    def asked(self) -> Asked:
        return self._asked

    @property
    def writer(self) -> Writer:
        return self._writer

    async def prepare(self, path: Path, instance_uid: str) -> _DicomPart:
        asked = self._asked
        if asked.target.frames:
            rendition = await self._frames(path)
        else:
            rendition = await self._renderer.render(path, asked.wanted, asked.ins, one=asked.one)
        try:
            check_identity(rendition.identity, asked.target, instance_uid)
        except Refused:
            rendition.discard()
            raise
        return _DicomPart(rendition, self._writer)

    async def _frames(self, path: Path) -> Rendition:
        asked = self._asked
        try:
            return await self._renderer.frames(path, asked.wanted, asked.ins, asked.target.frames)
        except Refused as refused:
            if refused.code == "no-frame":
                raise Denied(404, "frame-unknown", "Trame absente de cette image") from refused
            raise

    def headers(self, first: Part) -> dict[str, str]:
        assert isinstance(first, _DicomPart)
        return first.headers(one=self._asked.one)

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


def check_identity(header: Identity | Header, target: Target, instance_uid: str) -> None:
    """Is the file what was asked for? What the PACS sends is not believed unseen.

    Raises ``IdentityMismatch`` (``image-identity``).
    """
    asked = replace(target, instance_uid=instance_uid, series_uid=target.series_uid or header.series_uid, frames=())
    if asked != Target(header.study_uid, header.series_uid, header.sop_instance_uid):
        raise IdentityMismatch("Le PACS a envoyé une image d'un autre examen", code="image-identity")


def _header(path: Path) -> Header:
    with mapped(path) as buffer:
        return read_header(buffer)
