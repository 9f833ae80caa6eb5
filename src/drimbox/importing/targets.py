"""Where imports go: a PACS by C-STORE or by STOW-RS. What it says of each instance is told as it says it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from drimbox.dicom.syntaxes import (
    EXPLICIT_LE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LE,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
)
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.association import Interrupt
from drimbox.pacs.dimse.negotiation import Offer
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.query import StudyFinder
from drimbox.pacs.site import PacsLink
from drimbox.pacs.store import PacsStore, Sent
from drimbox.pacs.study import Study
from drimbox.pacs.web_store import WebStore

#: What an image may be turned into without loss, most welcome first.
LOSSLESS_TARGETS = (
    EXPLICIT_LE,
    IMPLICIT_LE,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS,
    JPEG_2000,
    HTJ2K_LOSSLESS,
)


class Target(Protocol):
    """Where an import stores its images."""

    @property
    def id(self) -> str: ...

    @property
    def title(self) -> str:
        """What users call it."""

    @property
    def lanes(self) -> int:
        """How often ``sending`` is worth being under way at once."""

    def sending(self, instances: Sequence[Outgoing]) -> AbstractAsyncContextManager[AsyncIterator[Sent]]:
        """As ``pacs.store.PacsStore.sending``."""

    async def accepted(self, sop_class_uid: str) -> tuple[str, ...]:
        """Which of ``LOSSLESS_TARGETS`` it takes images of this class in. Raises as ``sending``."""

    async def held(self, study_uid: str) -> Study | None:
        """What it holds of a study. Raises ``Unavailable``; ``Rejected`` when it does not answer such questions."""


@dataclass(frozen=True, slots=True)
class PacsTarget:
    """A PACS by C-STORE, each ``sending`` over one association."""

    id: str
    title: str
    link: PacsLink
    finder: StudyFinder
    lanes: int = 2

    @asynccontextmanager
    async def sending(self, instances: Sequence[Outgoing]) -> AsyncIterator[AsyncIterator[Sent]]:
        async with PacsStore(self.link).sending(instances) as results:
            yield results

    async def accepted(self, sop_class_uid: str) -> tuple[str, ...]:
        interrupt = Interrupt()
        offers = [Offer(sop_class_uid, (syntax,)) for syntax in LOSSLESS_TARGETS]

        def ask() -> tuple[str, ...]:
            association = self.link.associate_to_store([*offers, Offer(uids.VERIFICATION)], interrupt)
            agreed = {c.transfer_syntax for c in association.contexts.values() if c.abstract_syntax == sop_class_uid}
            association.release()
            return tuple(syntax for syntax in LOSSLESS_TARGETS if syntax in agreed)

        async with self.link.moving():
            return await self.link.in_thread(ask, interrupt)

    async def held(self, study_uid: str) -> Study | None:
        return await self.finder.find(study_uid)


@dataclass(frozen=True, slots=True)
class WebTarget:
    """A PACS by STOW-RS (PS3.18 10.5)."""

    id: str
    title: str
    store: WebStore
    finder: StudyFinder
    lanes: int = 2

    def sending(self, instances: Sequence[Outgoing]) -> AbstractAsyncContextManager[AsyncIterator[Sent]]:
        return self.store.sending(instances)

    async def accepted(self, sop_class_uid: str) -> tuple[str, ...]:
        # Nothing is negotiated: this is the one syntax that every server takes (PS3.18 8.7.3.5.2).
        return (EXPLICIT_LE,)

    async def held(self, study_uid: str) -> Study | None:
        return await self.finder.find(study_uid)
