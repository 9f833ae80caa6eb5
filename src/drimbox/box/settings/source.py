"""The source function: its listeners, its cache, its retries, what its manifests say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from drimbox.box.settings.common import AeTitle, KeyPair, Oid, OrderControl, Port, Seconds, Section, TlsServer
from drimbox.foundation.errors import Misconfigured
from drimbox.reconciliation.hours import parse_ranges


def _client_certificates(tls: KeyPair | None, roots: tuple[Path, ...], lists: tuple[Path, ...]) -> None:
    if roots and tls is None:
        raise ValueError("client_roots demande tls : sans TLS, aucun certificat n'est présenté")
    if lists and not roots:
        raise ValueError("client_revocation_lists demande client_roots : sans elles, aucun certificat n'est demandé")


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
    client_revocation_lists: tuple[Path, ...] = Field(
        (),
        description="revocation lists (CRL) of those CAs, complete, one for each; none: those of "
        "`trust.revocation_lists` where the CAs are all among `trust.roots`, else revocation is not checked",
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

    @model_validator(mode="after")
    def _certificates_hold_together(self) -> Hl7Section:
        _client_certificates(self.tls, self.client_roots, self.client_revocation_lists)
        return self


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
    client_revocation_lists: tuple[Path, ...] = Field(
        (),
        description="revocation lists (CRL) of those CAs, complete, one for each; none: those of "
        "`trust.revocation_lists` where the CAs are all among `trust.roots`, else revocation is not checked",
    )

    @model_validator(mode="after")
    def _certificates_hold_together(self) -> DicomListener:
        _client_certificates(self.tls, self.client_roots, self.client_revocation_lists)
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
        (),
        description="CAs of the PACSs' client certificates; with tls, requires one, of a name that its PACS has "
        "(`certificate_names`)",
    )
    client_revocation_lists: tuple[Path, ...] = Field(
        (),
        description="revocation lists (CRL) of those CAs, complete, one for each; none: those of "
        "`trust.revocation_lists` where the CAs are all among `trust.roots`, else revocation is not checked",
    )
    max_note_bytes: int = Field(16 * 2**20, ge=2**16, le=16 * 2**20, description="a longer note is refused")
    max_associations: int = Field(8, ge=1, le=64, description="associations served at once")
    message_timeout: Seconds = Field(60, description="seconds between the first and the last byte of a note")

    @model_validator(mode="after")
    def _certificates_hold_together(self) -> IocmSection:
        _client_certificates(self.tls, self.client_roots, self.client_revocation_lists)
        return self


class WadoSection(TlsServer):
    """WADO-RS for other DRIMboxes (the ``db`` host), mutual TLS."""

    certificate_of: Literal["igc-sante", "market", "other"] = Field(
        "igc-sante",
        description="who issued the certificate of this listener (decision 15): IGC-Sante (its chain ends at "
        "`trust.roots`), a market authority (one name, chain to the system's roots), or another one, that is not "
        "looked into (behind a server that ends TLS)",
    )
    db_host: str = Field(
        "",
        description="`db` name given by the agency, the one name that the certificate may have; none: the host of "
        "public_url where that is a name of mesimagesmedicales.fr, else any name",
    )
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
        False,
        description="a retrieve goes on when its last caller has left, so that the series is there for the next; "
        "`false`: it is cancelled at the PACS",
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
    transit_dir: Path | None = Field(
        None,
        description="folder of images on their way, in clear: from a PACS until the cache has taken them, or until "
        "they are sent, and while they are transcoded; emptied at each start. Where nothing may ever lie in clear on a "
        "disk: a folder of a memory file system (tmpfs) of some gigabytes; none: in `box.state_dir`",
    )
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
