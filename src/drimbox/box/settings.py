"""Every setting of a box, typed and documented. ``docs/settings.md`` is written from this file.

A box is one TOML file; any value may be given by an environment variable ``DRIMBOX__SECTION__KEY`` instead; secrets are
named by file. Relative paths are taken from the folder of the TOML file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.uids import is_uid
from drimbox.reconciliation.hours import parse_ranges


def _oid(value: str) -> str:
    if value and not is_uid(value):
        raise ValueError("ce n'est pas un OID (chiffres et points, 64 caractères au plus)")
    return value


def _https(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError("une adresse https:// est attendue")
    return value.rstrip("/")


def _ae(value: str) -> str:
    if not 0 < len(value.strip()) <= 16 or not value.isascii() or "\\" in value:
        raise ValueError("ce n'est pas un AE title (1 à 16 caractères ASCII, sans barre oblique inverse)")
    return value.strip()


def _structure(value: str) -> str:
    if value and re.fullmatch(r"[0-9][0-9A-Za-z/-]{5,30}", value) is None:
        raise ValueError("ce n'est pas un Struct_IdNat (un chiffre de type puis le numéro : 1 + FINESS, 3 + SIRET…)")
    if len(value) == 9:
        raise ValueError("un Struct_IdNat commence par son chiffre de type : 1 devant un FINESS de neuf caractères")
    return value


def _order_control(value: str) -> str:
    if re.fullmatch(r"[A-Z]{2}", value) is None:
        raise ValueError("ce n'est pas un code ORC-1 (deux lettres majuscules, table HL7 0119)")
    return value


Oid = Annotated[str, AfterValidator(_oid)]
StructureId = Annotated[str, AfterValidator(_structure)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
OrderControl = Annotated[str, AfterValidator(_order_control)]
AeTitle = Annotated[str, AfterValidator(_ae)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A table of the configuration: unknown keys are mistakes, values cannot change after the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyPair(Section):
    """A certificate with its chain, and its private key, both PEM."""

    certificate: Path = Field(description="PEM file: the certificate, then its chain")
    key: Path = Field(description="PEM file of the private key, PKCS#8")
    password_file: Path | None = Field(None, description="file that holds the password of the private key")


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
    pool_size: int = Field(10, ge=2, le=200, description="connections kept by this process")


class TrustSection(Section):
    """Whom the box believes (standards.md K)."""

    roots: tuple[Path, ...] = Field(description="PEM files of the pinned IGC-Sante root and intermediate CAs")
    revocation_lists: tuple[Path, ...] = Field(
        (),
        description="CRL files checked on each connection; an expired list refuses its issuer's certificates",
    )


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


class PacsNode(Section):
    """One more DICOM application entity of a PACS."""

    host: str = Field(description="host name or address")
    port: Port = Field(description="port")
    ae_title: AeTitle = Field(description="AE title")


class PacsTls(Section):
    """TLS towards the DICOM service of a PACS; without this table, plain DICOM for a protected local network."""

    roots: tuple[Path, ...] = Field((), description="CAs of its certificate; none: `trust.roots`")
    name: str = Field("", description="name that its certificate must carry; none: the host that is called")
    client: KeyPair | None = Field(None, description="our certificate, where it asks for one")


class PacsWeb(Section):
    """The DICOMweb service of a PACS, where it has one: QIDO-RS and WADO-RS."""

    url: str = Field(description="base address, before `/studies`; `http://` for a protected local network only")
    user: str = Field("", description="user name (HTTP Basic); none: no name is given")
    password_file: Path | None = Field(None, description="file that holds its password")
    roots: tuple[Path, ...] = Field((), description="CAs of its certificate; none: `trust.roots`")
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


class TlsServer(Section):
    """A listener with TLS."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(description="port to listen on")
    public_url: HttpsUrl = Field(description="address by which others reach it")
    tls: KeyPair = Field(description="server certificate of this listener")


class Hl7Section(Section):
    """The HL7 v2 listener (MLLP) for the RISes."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(description="port to listen on")
    tls: KeyPair | None = Field(
        None, description="server certificate; none: plain MLLP, for a protected local network only"
    )
    client_roots: tuple[Path, ...] = Field(
        (), description="CAs of the RISes' client certificates; with tls, requires one"
    )
    max_message_bytes: int = Field(
        64 * 2**20, ge=2**16, description="a longer message is refused and its connection closed"
    )
    max_connections: int = Field(64, ge=1, description="connections served at once")
    idle_timeout: Seconds = Field(3600, description="seconds without a byte before a connection is closed")
    message_timeout: Seconds = Field(60, description="seconds between the first and the last byte of a message")
    omi_answer: Literal["ORI", "ACK"] = Field(
        "ORI", description="answer to an order message (OMI^O23): `ORI^O24^ORI_O24`, or a plain `ACK^O23^ACK`"
    )
    omi_deletes: tuple[OrderControl, ...] = Field(
        ("CA",),
        description="ORC-1 of an order message that declare its studies deleted: they leave the DMP without the PACS "
        "being asked; with any other ORC-1 the study changed, and the PACS decides",
    )


class DicomListener(Section):
    """Where the PACS stores images to, when we ask it to move them."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(description="port to listen on")
    ae_title: AeTitle = Field("DRIMBOX", description="our AE title: the destination of our C-MOVE requests")
    allowed_callers: tuple[AeTitle, ...] = Field((), description="calling AE titles accepted; none: those of [[pacs]]")
    max_associations: int = Field(32, ge=1, le=256, description="associations served at once")
    tls: KeyPair | None = Field(
        None, description="server certificate; none: plain DICOM, for a protected local network only"
    )
    client_roots: tuple[Path, ...] = Field(
        (),
        description="CAs of the PACSs' client certificates; with tls, requires one, of a name that its PACS has "
        "(`certificate_names`)",
    )

    @model_validator(mode="after")
    def _certificates_hold_together(self) -> DicomListener:
        if self.client_roots and self.tls is None:
            raise ValueError("client_roots demande tls : sans TLS, aucun certificat n'est présenté")
        return self


class IocmSection(Section):
    """Where the PACSs tell what they rejected (IHE IOCM, RAD-66): Key Object Selections only; without it, closed."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(description="port to listen on, of its own")
    ae_title: AeTitle = Field("DRIMBOX", description="our AE title, as the PACSs know this listener")
    allowed_callers: tuple[AeTitle, ...] = Field((), description="calling AE titles accepted; none: those of [[pacs]]")
    tls: KeyPair | None = Field(
        None, description="server certificate; none: plain DICOM, for a protected local network only"
    )
    client_roots: tuple[Path, ...] = Field(
        (), description="CAs of the PACSs' client certificates; with tls, requires one"
    )
    max_note_bytes: int = Field(16 * 2**20, ge=2**16, le=16 * 2**20, description="a longer note is refused")
    max_associations: int = Field(8, ge=1, le=64, description="associations served at once")
    message_timeout: Seconds = Field(60, description="seconds between the first and the last byte of a note")

    @model_validator(mode="after")
    def _certificates_hold_together(self) -> IocmSection:
        if self.client_roots and self.tls is None:
            raise ValueError("client_roots demande tls : sans TLS, aucun certificat n'est présenté")
        return self


class WadoSection(TlsServer):
    """WADO-RS for other DRIMboxes (the ``db`` host), mutual TLS."""

    base_path: str = Field(
        "/dicom-web-rs", description="path under which studies/... is served; part of every RetrieveURL"
    )
    professions: tuple[str, ...] = Field(
        (
            "10",
            "21",
            "26",
            "28",
            "31",
            "40",
            "50",
            "60",
            "69",
            "70",
            "80",
            "86",
            "91",
            "92",
            "93",
            "94",
            "95",
            "96",
            "97",
            "98",
        ),
        description="profession codes (1.2.250.1.71.1.2.7) that may fetch images (DB.SO.34); others get 403",
    )
    cache_introspection: Annotated[float, Field(ge=0, le=60)] = Field(
        60, description="seconds to remember a positive token introspection, never past the token's end (decision 17)"
    )
    max_parallel: int = Field(32, ge=5, description="retrievals served at once; more wait (DB.SO.35 asks for five)")
    syntax_choice: Literal["quality", "least-work"] = Field(
        "quality",
        description="transfer syntax sent among those accepted: the highest q that can be made of the image, and among "
        "equals what costs least (`quality`); or what is stored before anything else, by q (`least-work`, DB.SO.85 "
        "read to the letter). Neither loses anything while the caller takes something lossless",
    )
    former_base_paths: tuple[str, ...] = Field(
        (),
        description="other paths answered like `base_path`, for links that are still about; those that this box itself "
        "had before are answered without being named here (DB.SO.31)",
    )

    @property
    def base(self) -> str:
        """The address that every RetrieveURL begins with, before `/studies`."""
        return f"{self.public_url}/{self.base_path.strip('/')}".rstrip("/")


class CacheSection(Section):
    """Images kept on this node's disk, and shared by all who ask for them at once (DB.SO.40, decision 25)."""

    max_gb: float = Field(
        20, ge=0, description="size of the cache in GiB; 0: nothing is kept, retrieves are shared all the same"
    )
    max_age_days: float = Field(14, gt=0, description="days that images stay after they came from the PACS")
    min_free_gb: float = Field(2, ge=0, description="GiB that must stay free on its disk, whatever max_gb says")
    cache_dir: Path | None = Field(
        None, description="folder of the cache, of this node alone; none: `cache` in state_dir"
    )
    encrypted: bool = Field(
        True,
        description="images lie encrypted on the disk (AES-256-GCM); `false`: in clear, for the box's account alone, "
        "and a little faster",
    )
    key_file: Path | None = Field(
        None,
        description="file of at least 32 random bytes from which the key is made, best on another disk; none: a key "
        "that the box makes for itself in state_dir/keys. With another key, the cache starts empty",
    )
    confirmation: Literal["find", "notes"] = Field(
        "find",
        description="what proves that cached images are still those of the PACS: `find`, its own list (C-FIND or "
        "QIDO-RS); `notes`, its rejection notes ([source.iocm]), for a PACS that surely sends them",
    )
    confirm_seconds: float = Field(60, ge=0, le=3600, description="seconds that the PACS's list of a study is believed")
    whole: bool = Field(
        True, description="a retrieve goes on when its last caller has left, so that the series is there for the next"
    )
    read_ahead_mb: int = Field(
        512, ge=16, description="MiB that a retrieve may be ahead of the fastest of its callers, on the disk"
    )
    warm_up: Literal["off", "metadata", "pixels"] = Field(
        "off",
        description="fetch each study when its KOS is published: `metadata` keeps the headers alone, `pixels` the "
        "images; one series at a time, while nobody else waits for that PACS",
    )
    warm_up_suspended: tuple[str, ...] = Field(
        (), description="hours without warm-up, in Paris time, written as in [source.reconciliation] suspended"
    )

    @field_validator("warm_up_suspended")
    @classmethod
    def _hours_can_be_read(cls, suspended: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_ranges(suspended)
        except Misconfigured as error:
            raise ValueError(error.reason) from error
        return suspended


class RetriesSection(Section):
    """When work on a study is tried again, after a PACS or the DMP could not be reached, or after a crash."""

    first: Seconds = Field(5, description="seconds before the first further try; each pause is `factor` times the last")
    longest: Seconds = Field(900, description="seconds that a pause never exceeds, whatever a peer asks for")
    factor: float = Field(2, ge=1, le=10, description="growth of the pauses")
    dead_after: float = Field(
        30, ge=3, description="seconds without a sign of life after which the work of a process that died is taken up"
    )


class ReconciliationSection(Section):
    """Walks through the archive, by the administrator's order: `drimbox reconcile` (DB.SO.28, DB.SO.31).

    Every current KOS is compared with PACS and DMP, one after the other.
    """

    mode: Literal["repair", "report"] = Field(
        "repair", description="`repair` updates or withdraws what differs; `report` only tells it"
    )
    rate: int = Field(30, ge=1, le=6000, description="studies a minute at the most: what the PACS can bear besides")
    suspended: tuple[str, ...] = Field(
        (),
        description='hours of rest in Paris time: "22:00-06:00", "lun-ven 07:30-19:00", "sam,dim 00:00-24:00"',
    )
    every_days: float = Field(0, ge=0, description="days between two walks that begin by themselves; 0: none does")
    address_rate: int = Field(
        60,
        ge=1,
        le=6000,
        description="KOS a minute at the most that are rewritten once this source has another address",
    )

    @field_validator("suspended")
    @classmethod
    def _hours_can_be_read(cls, suspended: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_ranges(suspended)
        except Misconfigured as error:
            raise ValueError(error.reason) from error
        return suspended


class SourceSection(Section):
    """The source function: publish and serve."""

    hl7: Hl7Section
    dicom: DicomListener
    wado: WadoSection
    iocm: IocmSection | None = None
    cache: CacheSection = CacheSection()
    retries: RetriesSection = RetriesSection()
    reconciliation: ReconciliationSection = ReconciliationSection()
    match_patient_name: bool = Field(
        True, description="the PACS's patient name must be the birth or the used name (decision 4)"
    )

    @field_validator("iocm")
    @classmethod
    def _notes_have_a_listener_of_their_own(cls, iocm: IocmSection | None, info: ValidationInfo) -> IocmSection | None:
        others = {name: info.data[name].port for name in ("hl7", "dicom", "wado") if name in info.data}
        taken = [name for name, port in others.items() if iocm is not None and port == iocm.port]
        if taken:
            raise ValueError(f"un port à elle seule est demandé : celui-ci est celui de [source.{taken[0]}]")
        return iocm


class ManifestSection(Section):
    """How a KOS is written (decisions 8 to 11)."""

    uid_root: Oid = Field("", description="root under which KOS UIDs are made; none: 2.25.<uuid>")
    manufacturer: str = Field("drimbox", description="Manufacturer (0008,0070) of the KOS")
    author: Literal["device", "radiologist"] = Field(
        "device", description="author of the KOS entry in the DMP (decision 9)"
    )
    modality_scheme: Oid = Field(
        "1.2.840.10008.2.16.4", description="coding scheme of modalities in eventCodeList (decision 10)"
    )
    region_scheme: Oid = Field(
        "2.16.840.1.113883.6.96", description="coding scheme of regions in eventCodeList (decision 10)"
    )
    key_notes: Literal["instance", "off"] = Field(
        "instance",
        description="key-object notes that the PACS holds: carried under the instance that they flag, rejection notes "
        "obeyed; `off`: never fetched (for a PACS that cannot C-MOVE to the box), neither carried nor obeyed",
    )


class DmpSection(Section):
    """The national record (DMP)."""

    repository: HttpsUrl = Field(description="address of the repository service (ITI-41, ITI-43)")
    registry: HttpsUrl = Field(description="address of the registry service (ITI-18, ITI-57)")
    patients: HttpsUrl = Field(description="address of the patients service (TD0.2)")
    habilitations: HttpsUrl = Field(description="address of the habilitations service (TD0.3)")
    source_id: Oid = Field(description="OID of this installation: sourceId of the submission sets")
    vihf_version: Literal["3.0", "4.0"] = Field("3.0", description="VIHF_Version (decision 12)")
    vihf_algorithm: Literal["rsa-sha256", "rsa-sha1"] = Field(
        "rsa-sha256", description="signature of the VIHF (decision 12)"
    )
    signature_algorithm: Literal["rsa-sha256", "rsa-sha1"] = Field(
        "rsa-sha256", description="XAdES signature of the submission set (decision 13)"
    )
    timeout: Seconds = Field(60, description="seconds without an answer before the outcome is held for unknown")


class PscSection(Section):
    """Pro Sante Connect."""

    discovery: HttpsUrl = Field(description="address of the wallet-openid-configuration document")
    client_id: str = Field(description="Client_ID of the DRIMbox")
    client_secret_file: Path | None = Field(
        None, description="file of the client secret; none: client certificate (RFC 8705)"
    )
    auth: KeyPair | None = Field(None, description="ORG AUTH_CLI of the DRIMbox for PSC; none: the first structure's")
    roots: tuple[Path, ...] = Field(
        (), description="PEM files of the CAs of its server certificate (a public one); none: those of [trust]"
    )
    acr: str = Field("eidas1", description="acr_values asked for (PSC.08)")
    scope: str = Field("openid scope_all", description="scope asked for")
    timeout: Seconds = Field(10, description="seconds without an answer before PSC is held for unreachable")


class WhitelistSection(Section):
    """The signed list of DRIMboxes (decision 16)."""

    url: HttpsUrl = Field(description="address of the signed list")
    signer_cn: str = Field("Liste Blanche DRIM-M", description="CN that the signer's certificate must carry")
    signer_ou: str = Field("318751275100020", description="OU that the signer's certificate must carry")
    max_age_days: float = Field(7, gt=0, description="days after which the last good list is no longer believed")
    refresh_hours: float = Field(24, gt=0, description="hours between two downloads")


class ConsumerSection(TlsServer):
    """The consumer function: contextual call, consultation, viewing."""

    call_paths: tuple[str, ...] = Field(
        ("/drim",), description="paths of the contextual call (POST); several are allowed (DB.CO.48)"
    )
    consent_values: dict[str, Literal["yes", "no", "unknown"]] = Field(
        {
            "yes": "yes",
            "oui": "yes",
            "O": "yes",
            "no": "no",
            "non": "no",
            "INC": "no",
            "NA": "no",
            "unknown": "unknown",
        },
        description="meaning of the values of the consent parameter; a value not listed means no consent (decision 18)",
    )
    session_hours: float = Field(4, gt=0, le=4, description="longest session (PSC: 4 hours)")
    idle_minutes: float = Field(30, gt=0, le=30, description="inactivity that ends a session (PSC: 30 minutes)")
    call_minutes: float = Field(10, gt=0, description="minutes within which a contextual call must be opened")
    viewer_dir: Path | None = Field(
        None, description="folder of the OHIF viewer; none: the one that `drimbox viewer install` made"
    )
    syntaxes_view: tuple[str, ...] = Field(
        (
            "1.2.840.10008.1.2.4.50 1.2.840.10008.1.2.4.51",
            "1.2.840.10008.1.2.4.70 1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.4.91",
            "1.2.840.10008.1.2.4.100 1.2.840.10008.1.2.4.101 1.2.840.10008.1.2.4.102 1.2.840.10008.1.2.4.103",
            "1.2.840.10008.1.2.1",
        ),
        description="transfer syntaxes asked for viewing, best first: lossy first (decision 24); those that stand in "
        "one text with blanks between are liked alike: a source then sends what it has, not what it would have to make",
    )
    fetch_timeout: Seconds = Field(60, description="seconds without a byte from a source before it is held for silent")
    max_series_bytes: int = Field(8 * 2**30, ge=2**20, description="a longer answer of a source is cut off and refused")


class ConsoleSection(TlsServer):
    """The operator's console: the queue, the archived studies, the accounts (`drimbox account add` makes the first)."""

    pro_sante_connect: bool = Field(
        False,
        description="accounts with a national id may log in with Pro Sante Connect, as the client of [psc]; PSC must "
        "know `<public_url>/connexion/retour` and, after logout, `<public_url>/au-revoir`",
    )
    idle_minutes: float = Field(15, gt=0, le=30, description="inactivity that ends a session")
    session_hours: float = Field(8, gt=0, le=12, description="longest session (4 hours with Pro Sante Connect)")
    password_length: int = Field(12, ge=10, le=64, description="least length of a password")
    admin_password_length: int = Field(15, ge=15, le=64, description="least length of an administrator's password")
    password_classes: int = Field(
        4, ge=3, le=4, description="how many of lower case, upper case, digits and other characters a password mixes"
    )
    former_passwords: int = Field(5, ge=0, le=24, description="earlier passwords that may not come back")
    password_days: float = Field(0, ge=0, description="age at which a password must be changed; 0: none")
    first_password_days: float = Field(7, gt=0, description="how long a provisional password may wait for its owner")
    lock_failures: int = Field(5, ge=3, le=10, description="failures in a row that lock an account")
    lock_minutes: float = Field(
        30, ge=1, description="how long the first lock lasts; each further failure doubles it, up to a day"
    )


class Settings(Section):
    """A box, whole."""

    box: BoxSection
    database: DatabaseSection = DatabaseSection()
    trust: TrustSection
    structures: tuple[StructureSection, ...] = Field(min_length=1)
    pacs: tuple[PacsSection, ...] = ()
    source: SourceSection | None = None
    manifest: ManifestSection = ManifestSection()
    consumer: ConsumerSection | None = None
    console: ConsoleSection | None = None
    dmp: DmpSection
    psc: PscSection
    whitelist: WhitelistSection

    @model_validator(mode="after")
    def _names_hold_together(self) -> Settings:
        known = {p.id for p in self.pacs}
        for structure in self.structures:
            unknown = set(structure.pacs) - known
            if unknown:
                raise ValueError(
                    f"la structure {structure.id} nomme un PACS absent de [[pacs]] : {', '.join(sorted(unknown))}"
                )
            if structure.identification != "EG" and not structure.legal_identifier:
                raise ValueError(
                    f"structure {structure.id} : identification {structure.identification} demande legal_identifier"
                )
        own = [s.identifier for s in self.structures]
        if twice := sorted({i for i in own if own.count(i) > 1}):
            raise ValueError(f"deux [[structures]] ont le même identifier : {', '.join(twice)}")
        for what, ids in (("structures", [s.id for s in self.structures]), ("pacs", [p.id for p in self.pacs])):
            if len(set(ids)) != len(ids):
                raise ValueError(f"deux [[{what}]] ont le même id")
        if self.source is None and self.consumer is None:
            raise ValueError("ni [source] ni [consumer] : la DRIMbox ne ferait rien")
        if self.source is not None and not self.pacs:
            raise ValueError("[source] demande au moins un [[pacs]]")
        return self
