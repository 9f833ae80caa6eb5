"""The link in a report: its query string, what a patient writes, how a report says that the patient is reached."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl

from drimbox.foundation.errors import DrimboxError
from drimbox.link.address import Link, ReportId, parse
from drimbox.link.challenge import answers_of
from drimbox.link.contact import contact_of
from drimbox.reports.cda import document_root
from drimbox.sandbox.ris import exams, letters
from fuzz.target import Broken, Target, pure

_STUDY = "1.2.250.1.213.4.5.2.1.105"
_REPORT = "1.2.250.1.213.4.5.4.405"


def _run_link(data: bytes) -> object:
    link = parse(data)
    if parse(link.query.encode("ascii")) != link:
        raise Broken("a link that is written again is another one")
    return bool(link.series_uid), bool(link.report.extension), len(link.accession)


def _links() -> Iterator[bytes]:
    yield Link(_STUDY, "ACN105", ReportId(_REPORT)).query.encode("ascii")
    yield Link(_STUDY, "A/1 é", ReportId(_REPORT, "7_8^9"), "1.2.3").query.encode("ascii")
    yield b"IDCDA=1.2%5E3&accessionnumber=+A+&STUDYUID=1.2&requesttype=study&viewerType=IHE_BIR&x"


def _run_answers(data: bytes) -> object:
    answers = answers_of(dict(parse_qsl(data.decode("utf-8", "replace"), max_num_fields=10)))
    if not answers.place.strip() or len(answers.place) > 160:
        raise Broken("a place that is none")
    return answers.sex.value, answers.place.isalnum()


def _answers() -> Iterator[bytes]:
    yield b"naissance=28/03/1979&sexe=F&lieu=Dompremy"
    yield "naissance=28 3 1979&sexe=M&lieu=2A004&x=Saint-Étienne-l'Œuf".encode()


def _run_contact(data: bytes) -> object:
    contact = contact_of(document_root(data))
    if any(c in contact.email + contact.mobile for c in "\r\n,;<> \t\0"):
        raise Broken("an address that a header could not carry")
    return bool(contact.email), bool(contact.mobile), bool(contact.birth_city)


def _documents() -> Iterator[bytes]:
    yield letters.clinical_document(letters.Letter(exams.exam("E"), "M1"))


TARGETS = (
    Target("link-query", pure(_run_link), _links, largest=4096),
    # More fields than a form of ours has: the reader of forms itself says no.
    Target("link-answers", pure(_run_answers), _answers, (DrimboxError, ValueError), largest=4096),
    Target("link-contact", pure(_run_contact), _documents, official=("cda/*.xml",)),
)
