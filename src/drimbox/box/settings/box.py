"""The box itself, its database, whom it believes, the structures that it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from drimbox.box.settings.common import KeyPair, Section, StructureId, WebUrl


class BoxSection(Section):
    """The box itself."""

    name: str = Field(description="name of this box, in logs and on its pages")
    environment: Literal["test", "production"] = Field(
        "test", description="range of INS and certificates that are accepted; the two never mix"
    )
    state_dir: Path = Field(Path("var"), description="folder of the embedded database, the image spool and the keys")
    device_id: str = Field("", description="identifier of this device (author of the KOS entry, LPS_ID of the VIHF)")
    homologation_number: str = Field("", description="CNDA homologation number (LPS_ID_HOMOLOGATION_DMP of the VIHF)")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level that is logged")


class DatabaseSection(Section):
    """PostgreSQL, the one store."""

    dsn_file: Path | None = Field(
        None, description="file that holds the DSN of the site's own PostgreSQL; none: an embedded one in state_dir"
    )
    tools_dir: Path | None = Field(
        None,
        description="folder of pg_dump and pg_restore of the version of that server; none: those of the embedded one",
    )
    pool_size: int = Field(10, ge=2, le=200, description="connections kept by this process")


class TrustSection(Section):
    """Whom the box believes (standards.md K)."""

    roots: tuple[Path, ...] = Field(description="PEM files of the pinned IGC-Sante root and intermediate CAs")
    revocation_lists: tuple[Path, ...] = Field(
        (),
        description="CRL files that the site renews by its own means, checked on each connection; an expired list "
        "refuses its issuer's certificates",
    )
    revocation_fetch: bool = Field(
        True,
        description="revocation lists are also fetched by the box itself, from the addresses that stand in the pinned "
        "CAs and in its own certificates (CRL distribution points), and kept in state_dir/revocation",
    )
    revocation_urls: tuple[WebUrl, ...] = Field(
        (),
        description="addresses of further complete CRLs to fetch, of the pinned CAs; `http://` is usual",
    )
    revocation_hours: float = Field(
        6, gt=0, le=24, description="hours between two fetches of a list; sooner where its end comes nearer"
    )
    public_revocation: Literal["known", "required", "off"] = Field(
        "known",
        description="revocation of servers of public authorities (ACME, Pro Santé Connect behind `[psc] roots`, SMTP, "
        "webhooks): their lists are fetched from the addresses in their certificates and judge each connection; "
        "`known`: a certificate without address, or whose list was never had, passes; `required`: it is refused; "
        "`off`, or without `revocation_fetch`: not checked",
    )

    @model_validator(mode="after")
    def _required_is_fetched(self) -> TrustSection:
        if self.public_revocation == "required" and not self.revocation_fetch:
            raise ValueError('public_revocation = "required" demande revocation_fetch')
        return self


class StructureSection(Section):
    """One imaging site (structure) that the box serves."""

    id: str = Field(description="short name of the structure in this file")
    name: str = Field(description="legal name, as in the certificates")
    identifier: StructureId = Field(description="Struct_IdNat: 1 + geographic FINESS (decision D.8), 3 + SIRET, ...")
    also_known_as: tuple[str, ...] = Field(
        (), description="other identifiers that messages carry for it (a former FINESS, the legal entity)"
    )
    legal_identifier: StructureId = Field(
        "", description="Struct_IdNat of the legal entity (FINESS EJ), for modes EJ and EJ/EG"
    )
    identification: Literal["EG", "EJ/EG", "EJ"] = Field(
        "EG", description="which FINESS stands in submission set and VIHF (ans-faq.md 3.1)"
    )
    vihf_finess: Literal["EG", "EJ"] = Field(
        "EG", description="which of the two stands in the VIHF in mode EJ/EG; the other modes have one only"
    )
    certificate_unit: StructureId = Field(
        "",
        description="OU of its certificates, a Struct_IdNat; none: `identifier` in mode EG, `legal_identifier` in the "
        "modes EJ and EJ/EG",
    )
    sector: str = Field("SA05", description="activity sector of the VIHF (JDV_J61), code of 1.2.250.1.71.4.2.4")
    auth: KeyPair = Field(description="IGC-Sante ORG AUTH_CLI: TLS client towards the DMP and other DRIMboxes")
    sign: KeyPair = Field(description="IGC-Sante ORG SIGN: signs the VIHF and the submission sets")
    pacs: tuple[str, ...] = Field((), description="ids of the PACSs that may hold its studies; none: all")
    senders: tuple[str, ...] = Field((), description="MSH-3 of the RISes that send for it; none: any")

    @property
    def unit(self) -> str:
        """The OU that its certificates must carry (ans-faq.md 3.1)."""
        return self.certificate_unit or (self.identifier if self.identification == "EG" else self.legal_identifier)
