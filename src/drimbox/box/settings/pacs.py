"""The PACSs of the site: how each is reached and what it may be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from drimbox.box.settings.common import AeTitle, KeyPair, Oid, Port, Seconds, Section


class PacsNode(Section):
    """One more DICOM application entity of a PACS."""

    host: str = Field(description="host name or address")
    port: Port = Field(description="port")
    ae_title: AeTitle = Field(description="AE title")


class PacsTls(Section):
    """TLS towards the DICOM service of a PACS; without this table, plain DICOM for a protected local network."""

    roots: tuple[Path, ...] = Field((), description="CAs of its certificate; none: `trust.roots`")
    revocation_lists: tuple[Path, ...] = Field(
        (),
        description="revocation lists (CRL) of those CAs, complete, one for each; none: those of "
        "`trust.revocation_lists` where the CAs are all among `trust.roots`, else revocation is not checked",
    )
    name: str = Field("", description="name that its certificate must carry; none: the host that is called")
    client: KeyPair | None = Field(None, description="our certificate, where it asks for one")


class PacsWeb(Section):
    """The DICOMweb service of a PACS, where it has one: QIDO-RS and WADO-RS."""

    url: str = Field(description="base address, before `/studies`; `http://` for a protected local network only")
    user: str = Field("", description="user name (HTTP Basic); none: no name is given")
    password_file: Path | None = Field(None, description="file that holds its password")
    roots: tuple[Path, ...] = Field((), description="CAs of its certificate; none: `trust.roots`")
    revocation_lists: tuple[Path, ...] = Field(
        (),
        description="revocation lists (CRL) of those CAs, complete, one for each; none: those of "
        "`trust.revocation_lists` where the CAs are all among `trust.roots`, else revocation is not checked",
    )
    client: KeyPair | None = Field(None, description="our certificate, where it asks for one")

    @field_validator("url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if not value.startswith(("https://", "http://")) or "@" in value or "?" in value:
            raise ValueError("une adresse http(s):// sans nom d'utilisateur ni paramètres est attendue")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _name_and_password(self) -> PacsWeb:
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user et password_file vont ensemble")
        return self


class PacsSection(Section):
    """One PACS of the site.

    A study is looked for in all PACSs of its structure, first in those that name the sender of the report, then in
    those that name the issuer of its accession numbers, then in those that name nobody, in the order of this file; the
    first that holds it with images is the one whose content is published and served.
    """

    id: str = Field(description="short name of the PACS in this file")
    host: str = Field(description="host name or address of its DICOM service")
    port: Port = Field(description="port of its DICOM service")
    ae_title: AeTitle = Field(description="its AE title")
    calling_ae_title: AeTitle = Field("DRIMBOX", description="our AE title, as the PACS knows us")
    accession_issuer: Oid = Field(
        "", description="OID of the issuer of its accession numbers, when its images name none"
    )
    patient_issuer: Oid = Field("", description="OID of the issuer of its patient numbers, when its images name none")
    senders: tuple[str, ...] = Field(
        (), description="MSH-3 of the RISes whose studies it holds: it is asked first about their reports (DB.SO.04)"
    )
    accession_issuers: tuple[Oid, ...] = Field(
        (),
        description="OIDs of the issuers of the accession numbers of its studies, besides `accession_issuer`: asked "
        "first, after those of the sender",
    )
    find: Literal["auto", "dimse", "dicomweb"] = Field(
        "auto",
        description="how it is asked what it holds: `dimse` (C-FIND), `dicomweb` (QIDO-RS), `auto`: C-FIND, else "
        "QIDO-RS where there is one",
    )
    retrieve: Literal["auto", "move", "get", "dicomweb"] = Field(
        "auto",
        description="how images are fetched: `move` (C-MOVE), `get` (C-GET), `dicomweb` (WADO-RS), `auto`: the first "
        "that works of WADO-RS where there is one, C-MOVE, C-GET; what was refused is remembered for an hour",
    )
    alternates: tuple[PacsNode, ...] = Field(
        (), description="other addresses of the same PACS, tried in order when the first cannot be reached"
    )
    retrieve_from: tuple[PacsNode, ...] = Field(
        (), description="where C-MOVE and C-GET are asked, first one first; none: where queries are"
    )
    store_to: tuple[PacsNode, ...] = Field(
        (), description="where images are stored to, first one first; none: where queries are asked"
    )
    storing_ae_titles: tuple[AeTitle, ...] = Field(
        (), description="AE titles under which it stores to us; none: `ae_title`, and those of its other addresses"
    )
    certificate_names: tuple[str, ...] = Field(
        (),
        description="names of which its certificate must carry one when it stores to us over TLS; none: its hosts, and "
        "`tls.name`",
    )
    tls: PacsTls | None = None
    dicomweb: PacsWeb | None = None
    max_associations: int = Field(8, ge=1, le=64, description="retrieves and exports at once")
    max_queries: int = Field(2, ge=1, le=32, description="questions at once, besides")
    operations_per_minute: int = Field(
        0, ge=0, le=6000, description="questions, retrieves and exports begun in a minute at the most; 0: no limit"
    )
    connect_timeout: Seconds = Field(5, description="seconds to open a connection and an association")
    answer_timeout: Seconds = Field(30, description="seconds without any answer before we give up")
    query_timeout: Seconds = Field(120, description="seconds that a question may take in all")
    retrieve_timeout: Seconds = Field(3600, description="seconds that a retrieve may take in all")
    queue_timeout: Seconds = Field(60, description="seconds that a request waits for its turn")

    @model_validator(mode="after")
    def _web_where_asked_for(self) -> PacsSection:
        if "dicomweb" in (self.find, self.retrieve) and self.dicomweb is None:
            raise ValueError("find ou retrieve vaut dicomweb : la table [pacs.dicomweb] manque")
        return self

    @property
    def nodes(self) -> tuple[PacsNode, ...]:
        """Every address that it is reached at."""
        first = PacsNode(host=self.host, port=self.port, ae_title=self.ae_title)
        return (first, *self.alternates, *self.retrieve_from, *self.store_to)

    @property
    def stores_as(self) -> tuple[str, ...]:
        """The AE titles under which it may store to us."""
        return self.storing_ae_titles or tuple(dict.fromkeys(node.ae_title for node in self.nodes))
