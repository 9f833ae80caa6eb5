"""The PACSs of the configuration, made ready: how each is reached, by which ways, with which certificates."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from drimbox.box.services import credential
from drimbox.box.settings import Settings
from drimbox.box.settings.common import KeyPair
from drimbox.box.settings.pacs import PacsNode, PacsSection, PacsWeb
from drimbox.box.settings.source import SourceSection
from drimbox.foundation.clock import Clock
from drimbox.foundation.http_client import HttpClient
from drimbox.pacs.access import AnyFinder, AnySource, PacsAccess
from drimbox.pacs.contents import Contents
from drimbox.pacs.dicomweb import DicomWeb, WebService
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings
from drimbox.pacs.inbox import Inbox
from drimbox.pacs.nodes import Node
from drimbox.pacs.query import PacsStudyFinder, StudyFinder
from drimbox.pacs.retrieve import PacsGetSource, PacsSeriesSource, SeriesSource
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.ways import Ways
from drimbox.pacs.web_query import WebStudyFinder
from drimbox.pacs.web_retrieve import WebSeriesSource
from drimbox.trust.keystore import read_file
from drimbox.trust.tls import client_context, load_trust, server_context
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


def linked(section: PacsSection, trust: TrustWatch) -> PacsLink:
    """The link to it; to be closed. Raises ``Misconfigured`` for certificates that cannot be used."""
    return PacsLink(described(section), tls=_dicom_tls(section, trust))


def linked_for_echo(section: PacsSection, trust: TrustWatch) -> PacsLink:
    """A link for an echo now and then: one association, and little patience; to be closed. Raises ``Misconfigured``."""
    patience = min(section.answer_timeout, _ECHO_SECONDS)
    pacs = replace(described(section), answer_timeout=patience, max_associations=1, max_queries=1)
    return PacsLink(pacs, tls=_dicom_tls(section, trust))


def accessible(section: PacsSection, link: PacsLink, inbox: Inbox, destination_ae: str, services: Means) -> PacsAccess:
    """The PACS with every way to it that the configuration allows. Raises ``Misconfigured``."""
    contents = Contents()
    web = _web(section.dicomweb, section.id, services) if section.dicomweb is not None else None
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


def receiver_settings(section: SourceSection, pacs: tuple[PacsSection, ...]) -> ReceiverSettings:
    """The listener for what the PACSs move to us: who may associate, and by which certificate."""
    listener = section.dicom
    allowed = frozenset(listener.allowed_callers or (title for one in pacs for title in one.stores_as))
    names: dict[str, frozenset[str]] = {}
    for one in pacs if listener.client_roots else ():
        for title in one.stores_as:
            names[title] = names.get(title, frozenset()) | _certificate_names(one)
    return ReceiverSettings(
        destinations={listener.ae_title: uids.AS_STORED},
        allowed_callers=allowed,
        certificate_names=names if listener.client_roots else None,
        host=listener.host,
        port=listener.port,
        max_associations=listener.max_associations,
    )


def receiver_tls(section: SourceSection) -> ssl.SSLContext | None:
    """TLS of that listener. Raises ``Misconfigured``."""
    listener = section.dicom
    if listener.tls is None:
        return None
    return server_context(
        credential(listener.tls), load_trust(listener.client_roots) if listener.client_roots else None
    )


def _nodes(nodes: tuple[PacsNode, ...]) -> tuple[Node, ...]:
    return tuple(Node(node.host, node.port, node.ae_title) for node in nodes)


def _certificate_names(section: PacsSection) -> frozenset[str]:
    if section.certificate_names:
        return frozenset(section.certificate_names)
    named = (section.tls.name,) if section.tls is not None and section.tls.name else ()
    return frozenset((*named, *(node.host for node in section.nodes)))


def _web(section: PacsWeb, pacs_id: str, services: Means) -> WebService:
    password = ""
    if section.password_file is not None:
        password = read_file(section.password_file).decode("utf-8").strip()
    tls = _client_tls(section.roots, section.client, services.trust)
    return WebService(services.http, DicomWeb(section.url, tls, section.user, password), pacs_id)


def _dicom_tls(section: PacsSection, trust: TrustWatch) -> ssl.SSLContext | None:
    return _client_tls(section.tls.roots, section.tls.client, trust) if section.tls is not None else None


def _client_tls(roots: tuple[Path, ...], client: KeyPair | None, trust: TrustWatch) -> ssl.SSLContext:
    ours = credential(client) if client is not None else None
    return client_context(load_trust(roots), ours) if roots else trust.enrol(client_context(trust.trust, ours))


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
