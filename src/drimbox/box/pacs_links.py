"""The PACSs of the configuration, made ready: how each is reached, by which ways, with which certificates."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from drimbox.box.keys import client_tls
from drimbox.box.places import pacs_place
from drimbox.box.settings import Settings
from drimbox.box.settings.pacs import PacsNode, PacsSection, PacsTls, PacsWeb
from drimbox.box.settings.source import DicomListener
from drimbox.foundation.clock import Clock
from drimbox.foundation.http_client import HttpClient
from drimbox.keyring.keeper import Keyring
from drimbox.pacs.access import AnyFinder, AnySource, PacsAccess
from drimbox.pacs.contents import Contents
from drimbox.pacs.dicomweb import DicomWeb, WebService
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings
from drimbox.pacs.inbox import Inbox
from drimbox.pacs.nodes import Node
from drimbox.pacs.patient import PatientArchive
from drimbox.pacs.query import PacsStudyFinder, StudyFinder
from drimbox.pacs.retrieve import PacsGetSource, PacsSeriesSource, SeriesSource
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.ways import Ways
from drimbox.pacs.web_query import WebStudyFinder
from drimbox.pacs.web_retrieve import WebSeriesSource
from drimbox.trust.keystore import read_file
from drimbox.trust.tls import client_context
from drimbox.trust.watch import TrustWatch

_FIND = ("dimse", "dicomweb")
_RETRIEVE = ("dicomweb", "move", "get")
_ECHO_SECONDS = 10.0


class Means(Protocol):
    """What the ways to a PACS need of a box (``services.Services`` has it)."""

    @property
    def settings(self) -> Settings: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def http(self) -> HttpClient: ...
    @property
    def trust(self) -> TrustWatch: ...
    @property
    def keyring(self) -> Keyring: ...


def described(section: PacsSection) -> Pacs:
    """A PACS of the configuration, in the words of the room that talks to it."""
    return Pacs(
        id=section.id,
        host=section.host,
        port=section.port,
        ae_title=section.ae_title,
        calling_ae_title=section.calling_ae_title,
        connect_timeout=section.connect_timeout,
        answer_timeout=section.answer_timeout,
        query_timeout=section.query_timeout,
        retrieve_timeout=section.retrieve_timeout,
        queue_timeout=section.queue_timeout,
        max_associations=section.max_associations,
        max_queries=section.max_queries,
        patient_issuer=section.patient_issuer,
        accession_issuer=section.accession_issuer,
        storing_ae_titles=frozenset(section.storing_ae_titles),
        alternates=_nodes(section.alternates),
        retrieve_nodes=_nodes(section.retrieve_from),
        store_nodes=_nodes(section.store_to),
        operations_per_minute=section.operations_per_minute,
        tls_name=section.tls.name if section.tls is not None else "",
    )


def linked(section: PacsSection, services: Means) -> PacsLink:
    """The link to it; to be closed. Raises ``Misconfigured`` for certificates that cannot be used."""
    return PacsLink(described(section), tls=_dicom_tls(section, services))


def linked_for_echo(section: PacsSection, services: Means) -> PacsLink:
    """A link for an echo now and then: one association, and little patience; to be closed. Raises ``Misconfigured``."""
    patience = min(section.answer_timeout, _ECHO_SECONDS)
    pacs = replace(described(section), answer_timeout=patience, max_associations=1, max_queries=1)
    return PacsLink(pacs, tls=_dicom_tls(section, services))


def accessible(section: PacsSection, link: PacsLink, inbox: Inbox, destination_ae: str, services: Means) -> PacsAccess:
    """The PACS with every way to it that the configuration allows. Raises ``Misconfigured``."""
    contents = Contents()
    web = web_service(section.dicomweb, section.id, services) if section.dicomweb is not None else None
    finders: dict[str, StudyFinder] = {"dimse": PacsStudyFinder(link)}
    if web is not None:
        finders["dicomweb"] = WebStudyFinder(link, web)
    finder = AnyFinder(finders, _ways(section, "find", finders, services), contents)
    sources: dict[str, SeriesSource] = {
        "move": PacsSeriesSource(link, inbox, destination_ae),
        "get": PacsGetSource(link, inbox, finder, contents),
    }
    if web is not None:
        sources["dicomweb"] = WebSeriesSource(link, web, inbox)
    source = AnySource(sources, _ways(section, "retrieve", sources, services))
    return PacsAccess(link, finder, source, finders.get("dicomweb"))


def viewable(
    section: PacsSection, link: PacsLink, inbox: Inbox, destination_ae: str | None, services: Means
) -> PatientArchive | None:
    """The PACS for who views its studies; ``destination_ae`` of a receiver that C-MOVE may name, None without one.

    None where the configuration allows no way that works without a receiver. Raises ``Misconfigured``.
    """
    contents = Contents()
    finder = findable(section, link, services)
    sources: dict[str, SeriesSource] = {}
    if section.dicomweb is not None:
        sources["dicomweb"] = WebSeriesSource(link, web_service(section.dicomweb, section.id, services), inbox)
    if destination_ae is not None:
        sources["move"] = PacsSeriesSource(link, inbox, destination_ae)
    sources["get"] = PacsGetSource(link, inbox, finder, contents)
    if section.retrieve != "auto" and section.retrieve not in sources:
        return None
    # Its own memory of what works: the source may have a receiver where this has none.
    names = (section.retrieve,) if section.retrieve != "auto" else tuple(sources)
    return PatientArchive(link, finder, AnySource(sources, Ways(names, services.clock)))


def findable(section: PacsSection, link: PacsLink, services: Means) -> StudyFinder:
    """What a PACS holds, asked by every way that the configuration allows. Raises ``Misconfigured``."""
    finders: dict[str, StudyFinder] = {"dimse": PacsStudyFinder(link)}
    if section.dicomweb is not None:
        finders["dicomweb"] = WebStudyFinder(link, web_service(section.dicomweb, section.id, services))
    return AnyFinder(finders, _ways(section, "find", finders, services), Contents())


def web_finder(section: PacsSection, link: PacsLink, services: Means) -> StudyFinder | None:
    """QIDO-RS of the PACS, where the configuration has it. Raises ``Misconfigured``."""
    if section.dicomweb is None:
        return None
    return WebStudyFinder(link, web_service(section.dicomweb, section.id, services))


def ways_of(section: PacsSection, services: Means) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How it is asked and how images are fetched, first way first, as far as is known by now."""
    web = () if section.dicomweb is None else ("dicomweb",)
    finding = dict.fromkeys(("dimse", *web))
    retrieving = dict.fromkeys(("move", "get", *web))
    return (
        _ways(section, "find", finding, services).in_order(),
        _ways(section, "retrieve", retrieving, services).in_order(),
    )


def receiver_settings(listener: DicomListener, pacs: tuple[PacsSection, ...]) -> ReceiverSettings:
    """The listener for what the PACSs move to us: who may associate, and by which certificate."""
    allowed = frozenset(listener.allowed_callers or (title for one in pacs for title in one.stores_as))
    return ReceiverSettings(
        destinations={listener.ae_title: uids.AS_STORED},
        allowed_callers=allowed,
        certificate_names=certificate_names(pacs, allowed) if listener.client_roots else None,
        host=listener.host,
        port=listener.port,
        max_associations=listener.max_associations,
    )


def certificate_names(pacs: tuple[PacsSection, ...], titles: frozenset[str]) -> dict[str, frozenset[str]]:
    """For each AE title that may call, the names of which its certificate must carry one: those of the PACS that calls
    itself so, or of any PACS where the title is none of theirs."""
    any_of_them = frozenset(name for one in pacs for name in _certificate_names(one))
    found = {}
    for title in titles:
        owners = [_certificate_names(one) for one in pacs if title in one.stores_as]
        found[title] = frozenset().union(*owners) if owners else any_of_them
    return found


def _nodes(nodes: tuple[PacsNode, ...]) -> tuple[Node, ...]:
    return tuple(Node(node.host, node.port, node.ae_title) for node in nodes)


def _certificate_names(section: PacsSection) -> frozenset[str]:
    if section.certificate_names:
        return frozenset(section.certificate_names)
    named = (section.tls.name,) if section.tls is not None and section.tls.name else ()
    return frozenset((*named, *(node.host for node in section.nodes)))


def web_service(section: PacsWeb, pacs_id: str, services: Means) -> WebService:
    """The DICOMweb service of a PACS. Raises ``Misconfigured``."""
    password = ""
    if section.password_file is not None:
        password = read_file(section.password_file).decode("utf-8").strip()
    tls = _client_tls(section, services, pacs_place(services.settings, pacs_id, "dicomweb"))
    return WebService(services.http, DicomWeb(section.url, tls, section.user, password), pacs_id)


def _dicom_tls(section: PacsSection, services: Means) -> ssl.SSLContext | None:
    if section.tls is None:
        return None
    return _client_tls(section.tls, services, pacs_place(services.settings, section.id, "tls"))


def _client_tls(section: PacsTls | PacsWeb, services: Means, place: str) -> ssl.SSLContext:
    """Always with our pair of the moment, where it asks for one."""
    trust = services.trust
    theirs = trust.beside(section.roots, section.revocation_lists) if section.roots else trust
    if section.client is None:
        return theirs.enrol(client_context(theirs.trust))
    return client_tls(services.keyring, place, theirs, needed=True)


def _ways(section: PacsSection, what: str, available: Mapping[str, object], services: Means) -> Ways:
    """The ways in the order of ``auto``, or the one that the configuration forces."""
    forced = getattr(section, what)
    order = [name for name in (_FIND if what == "find" else _RETRIEVE) if name in available]
    if forced != "auto":
        return Ways((forced,), services.clock)
    kept = services.settings.box.state_dir / "pacs" / f"{_file_name(section.id)}-{what}.json"
    return Ways(order, services.clock, kept, _fingerprint(section))


def _file_name(pacs_id: str) -> str:
    """A name of a file for any id."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in pacs_id)[:40]
    return f"{plain}-{hashlib.sha256(pacs_id.encode()).hexdigest()[:8]}"


def _fingerprint(section: PacsSection) -> str:
    """Changes with the settings that what was learnt depends on."""
    told = section.model_dump_json(include={"host", "port", "ae_title", "calling_ae_title", "alternates",
                                            "retrieve_from", "tls", "dicomweb"})  # fmt: skip
    return hashlib.sha256(told.encode()).hexdigest()[:32]
