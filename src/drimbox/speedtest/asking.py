"""The questions to a PACS that need no image: is it there, which study to take, in which syntax it holds it."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress

from drimbox.dicom.datasets import DataSet, read_data_set
from drimbox.foundation.errors import Refused
from drimbox.pacs.dimse import status, uids
from drimbox.pacs.dimse.association import Interrupt
from drimbox.pacs.dimse.client import ClientAssociation
from drimbox.pacs.identifier import Tag, encoder
from drimbox.pacs.site import PacsLink
from drimbox.pacs.study import Study

_ECHOES = 5
_DAYS = 7
_MOST_IMAGES = 2000
_MOST_ANSWERS = 5000


async def echoed(link: PacsLink) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds to open an association, and to be answered a C-ECHO in it, some times. Raises what an echo raises."""
    interrupt = Interrupt()

    def work() -> tuple[tuple[float, ...], tuple[float, ...]]:
        opened, answered = [], []
        for _ in range(_ECHOES):
            begun = time.monotonic()
            with link.associate((uids.VERIFICATION,), interrupt) as association:
                opened.append(time.monotonic() - begun)
                begun = time.monotonic()
                association.echo()
                answered.append(time.monotonic() - begun)
        return tuple(opened), tuple(answered)

    return await link.in_thread(work, interrupt)


async def recent_study(link: PacsLink, today: dt.date) -> str | None:
    """The study of the last days with the most images, of those that a test can carry; None where none is told.

    Asks for UIDs and numbers of images, and for nothing about patients. Raises what a query raises.
    """
    begin = today - dt.timedelta(days=_DAYS)
    key = {Tag.STUDY_DATE: f"{begin:%Y%m%d}-{today:%Y%m%d}"}

    def work(association: ClientAssociation) -> str | None:
        best, most = None, 0
        wanted = (Tag.STUDY_UID, Tag.STUDY_INSTANCE_COUNT)
        for answer in _answers(association, "STUDY", key, wanted):
            count = answer.text(Tag.STUDY_INSTANCE_COUNT)
            if count.isdigit() and most < int(count) <= _MOST_IMAGES:
                best, most = answer.text(Tag.STUDY_UID), int(count)
        return best

    return await link.query(uids.STUDY_ROOT_FIND, work)


async def stored_syntaxes(link: PacsLink, study: Study) -> Mapping[str, frozenset[str]]:
    """For each image the transfer syntaxes that the PACS says it has it in (0008,3002; PS3.4 C.3.4); few say it.

    Raises what a query raises.
    """
    found: dict[str, frozenset[str]] = {}

    def work(association: ClientAssociation) -> None:
        wanted = (Tag.SOP_INSTANCE_UID, Tag.AVAILABLE_SYNTAX)
        for series in study.series:
            key = {Tag.STUDY_UID: study.study_uid, Tag.SERIES_UID: series.series_uid}
            for answer in _answers(association, "IMAGE", key, wanted):
                told = answer.text(Tag.AVAILABLE_SYNTAX).split("\\")
                if any(told):
                    found[answer.text(Tag.SOP_INSTANCE_UID)] = frozenset(filter(None, told))
            if not found:
                # It does not say it of one series: nor of the others.
                return

    await link.query(uids.STUDY_ROOT_FIND, work)
    return found


def counted(told: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """How many images are told to be in each syntax."""
    return dict(Counter(syntax for syntaxes in told.values() for syntax in syntaxes))


def _answers(
    association: ClientAssociation, level: str, key: dict[Tag, str], wanted: tuple[Tag, ...]
) -> Iterator[DataSet]:
    """What matches, as far as it can be read; a refusal ends it: these questions are asked for information only."""
    for number, answer in enumerate(association.find(uids.STUDY_ROOT_FIND, encoder(level, key, wanted))):
        if number >= _MOST_ANSWERS or status.kind(answer.response.status) is not status.Kind.PENDING:
            return
        if answer.identifier is not None:
            with suppress(Refused):
                yield read_data_set(answer.identifier, answer.transfer_syntax, ordered=False)
