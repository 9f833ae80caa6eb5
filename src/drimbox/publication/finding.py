"""Where a study is: asks the PACSs of a structure for it (DB.SO.04, DB.SO.12, decision 7).

All PACSs of the structure may hold the study; who is asked first is told by the message. In order: the one that held
it last time; those configured for the sender (MSH-3); those configured for the issuer of its accession numbers; those
configured for nobody in particular (an archive, a VNA); those of other senders and issuers. Within each, the order of
the configuration. The first that holds the study with images is the one: where two hold it, a preference of the site
and not a count decides, so that a KOS does not go back and forth between them, and no one is asked in vain. Its
identity is checked like any other's (decision 4): a PACS that tells of another patient stops the publication, another
PACS that tells of the right one does not heal that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from drimbox.foundation.errors import DrimboxError, Misconfigured, Rejected, Unavailable
from drimbox.pacs.keynotes import KeyNote
from drimbox.pacs.study import Study
from drimbox.publication.checks import Finding
from drimbox.publication.notes import read_notes
from drimbox.publication.ports import Site, SitePacs


@dataclass(frozen=True, slots=True)
class Found:
    """A study with the PACS that holds it.

    ``study`` is without what rejection notes in the PACS take out (``rejected``, which the PACS lists nonetheless); it
    may be left without any image. ``notes`` are its key-image notes, ``findings`` what the operator should know of
    them.
    """

    pacs: str
    study: Study
    notes: tuple[KeyNote, ...] = ()
    findings: tuple[Finding, ...] = ()
    rejected: frozenset[str] = frozenset()


async def find_study(
    site: Site, study_uid: str, *, sender: str = "", accession_issuers: Collection[str] = (), hint: str = ""
) -> Found | None:
    """The study and its PACS; None only when every PACS of the structure answered that it has none.

    ``sender`` is the MSH-3 of the RIS and ``accession_issuers`` the issuers of its accession numbers, where they are
    known; ``hint`` the PACS that held the study last time, asked first. A PACS that knows the study and lists no image
    of it gives way to one that lists some. Raises ``Unavailable`` when no images were found and one of the PACSs could
    not or would not answer (decision 7), or when the notes of the study could not be had; ``Refused`` when they cannot
    be read; ``Misconfigured`` (``pacs-none``) without any PACS.
    """
    if not site.pacs:
        raise Misconfigured("Aucun PACS n'est configuré pour la structure", code="pacs-none")
    failures: list[DrimboxError] = []
    empty: Found | None = None
    for pacs in in_order(site, sender=sender, accession_issuers=accession_issuers, hint=hint):
        try:
            study = await pacs.finder.find(study_uid)
        except (Unavailable, Rejected) as error:
            failures.append(error)
            continue
        if study is not None and study.instance_count:
            noted = await read_notes(pacs, study)
            return Found(pacs.id, noted.study, noted.notes, noted.findings, noted.rejected)
        if study is not None and empty is None:
            empty = Found(pacs.id, study)
    if failures:
        first = failures[0]
        raise Unavailable(first.reason, code=first.code, peer_code=first.peer_code)
    return empty


def in_order(
    site: Site, *, sender: str = "", accession_issuers: Collection[str] = (), hint: str = ""
) -> tuple[SitePacs, ...]:
    """The PACSs of a structure in the order in which they are asked."""

    def rank(pacs: SitePacs) -> int:
        if pacs.id == hint:
            return 0
        if sender and sender in pacs.senders:
            return 1
        if not frozenset(accession_issuers).isdisjoint(pacs.accession_issuers):
            return 2
        return 4 if pacs.senders or pacs.accession_issuers else 3

    return tuple(sorted(site.pacs, key=rank))
