"""The work on a study against a DMP that judges each message: our own client, over mutual TLS, on the loopback."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from publication_examples import NOW, World, letter_of, report_of, study_of, world_on

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Misconfigured, OutcomeUnknown, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.foundation.xml import Element, parse
from drimbox.manifest.compare import Change, compare
from drimbox.manifest.read import read_manifest
from drimbox.national.dmp.actor import Actor, DmpEndpoints, Software, VihfIdentity
from drimbox.national.dmp.client import DmpClient
from drimbox.national.dmp.metadata import Device
from drimbox.publication.kos import State
from drimbox.publication.ports import Site
from drimbox.publication.publish import Outcome, publish_study
from drimbox.publication.registry import DmpRegistry, DmpStructure
from drimbox.publication.triggers import Cause
from drimbox.reports.report import Person, Structure, Visibility
from drimbox.sandbox.dmp import Dmp, FaultKind, KnownPatient, KnownStructure, OrderedFault, dmp_app
from drimbox.sandbox.dmp.store import StoredEntry
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.sandbox.ris.letters import Identity
from drimbox.store.database import Pool
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.tls import client_context, load_trust, server_context

STUDY = "1.2.250.1.213.4.5.2.1.105"
STRUCTURE = "1750803447"
HIDDEN = frozenset({"DESTDMP", "INVISIBLE_PATIENT"})


@dataclass(frozen=True)
class Keys:
    """The certificates of both sides."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    sign: Credential


@pytest.fixture(scope="session")
def keys(authority: TestAuthority) -> Keys:
    def credential(pair: PemPair) -> Credential:
        return load_credential(pair.certificate, pair.key)

    def issue(profile: Profile, name: str, unit: str, hosts: tuple[str, ...] = ()) -> Credential:
        organisation = "CENTRE DE RADIOLOGIE AMBROISE"
        return credential(
            authority.issue(
                profile, f"publication-{name}", common_name=name, unit=unit, organisation=organisation, hosts=hosts
            )
        )

    trust = load_trust([authority.roots], authority.revocation_lists)
    return Keys(
        server=server_context(issue(Profile.SSL_SERV, "dmp", "318751275100020", ("127.0.0.1",)), trust),
        client=client_context(trust, issue(Profile.ORG_AUTH_CLI, "DRIMbox", STRUCTURE)),
        sign=issue(Profile.ORG_SIGN, "DRIMbox sign", STRUCTURE),
    )


@dataclass
class Scene:
    """A world whose DMP is the judging one."""

    world: World
    judge: Dmp
    registry: DmpRegistry

    def entries(self) -> list[StoredEntry]:
        """The KOS entries, in the order of registration."""
        return [e for e in self.judge.store.entries() if e.mime == "application/dicom"]

    def standing(self) -> list[bytes]:
        return [self.judge.store.content(e.unique_id) or b"" for e in self.entries() if e.status.endswith(":Approved")]

    def fault(self, kind: FaultKind, service: str = "repository") -> None:
        self.judge.faults.order(OrderedFault(kind, 1, service, 0.2))

    def refusals(self) -> list[str]:
        return [f"{v.rule} {v.detail}" for v in self.judge.store.verdicts() if v.verdict != "accepted"]


@pytest.fixture
def on_stage(pool: Pool, tmp_path: Path, authority: TestAuthority, keys: Keys, shared: Path) -> Callable[..., object]:
    @asynccontextmanager
    async def open_scene(**settings: object) -> AsyncIterator[Scene]:
        app = dmp_app(
            state=tmp_path / "dmp",
            trust_roots=[authority.roots],
            revocation_lists=authority.revocation_lists,
            schema_dir=shared / "schemas",
            structures=[KnownStructure(STRUCTURE, "Centre de radiologie Ambroise")],
            patients=[KnownPatient("279035121518989", "1.2.250.1.213.1.4.10", "PAT-TROIS", "DOMINIQUE")],
        )
        async with HttpClient() as http, serving(app, host="127.0.0.1", port=0, tls=keys.server) as port:
            base = f"https://127.0.0.1:{port}/si-dmp-server/v2/services"
            client = DmpClient(
                http,
                DmpEndpoints(*(f"{base}/{s}" for s in ("repository", "registry", "patients", "habilitations"))),
                Software("drimbox", "0.1.0", "DRB-000000-tmp1", "drimbox-1"),
                SystemClock(),
                vihf_version="3.0",
                vihf_algorithm="rsa-sha256",
                signature_algorithm="rsa-sha256",
                source_id="1.2.250.1.999.1.1.9000",
                timeout=10,
                test=True,
            )

            def actor(identity: VihfIdentity, *, secret_connection: bool = False) -> Actor:
                return Actor(identity, keys.client, keys.sign, secret_connection)

            registry = DmpRegistry(
                client,
                {"ambroise": DmpStructure("SA08", actor)},
                device=Device("31750803447/drimbox-1", "drimbox"),
                **settings,  # type: ignore[arg-type]
            )
            world = world_on(pool)
            world.pacs.hold(study_of())
            world.services = replace(world.services, registry=registry, clock=SystemClock())
            yield Scene(world, app.state.dmp, registry)
            app.state.dmp.close()

    return open_scene


@pytest.mark.requirement("DB.SO.12", "DB.SO.19", "DB.SO.22", "DB.SO.97", "exam:E", "exam:G1", "exam:G1_MAJ", "exam:I")
async def test_the_life_of_a_kos_passes_the_judge(on_stage: Callable[..., object]) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        world, letter = scene.world, letter_of(flags=HIDDEN)
        assert await world.run(letter) is Outcome.PUBLISHED, scene.refusals()
        [entry] = scene.entries()
        current = await world.current()
        assert current is not None
        assert (current.kos_uid, current.entry_uuid) == (entry.unique_id, entry.uuid)
        assert current.metadata.startswith(b"<?xml")
        assert scene.standing() == [current.kos]

        changing = frozenset({"DESTDMP", "MODIF_CONF_CODE"})
        update = replace(letter.corrected("1.2.250.1.213.4.5.4.4052", "M2"), flags=changing)
        assert await world.run(update) is Outcome.PUBLISHED, scene.refusals()
        assert [e.status.rpartition(":")[2] for e in scene.entries()] == ["Deprecated", "Approved"]
        assert await world.run(replace(update, control_id="M3")) is Outcome.NOTHING

        world.pacs.hold(study_of(images=7))
        third = update.corrected("1.2.250.1.213.4.5.4.4053", "M4")
        assert await world.run(third) is Outcome.PUBLISHED, scene.refusals()
        assert [read_manifest(k).instance_count for k in scene.standing()] == [7]

        assert await world.run(replace(third, operation="delete", control_id="M5")) is Outcome.DEPUBLISHED
        assert scene.standing() == []
        assert [e.status.rpartition(":")[2] for e in scene.entries()] == ["Deprecated", "Deprecated", "Deleted"]
        assert await world.states() == ["replaced", "replaced", "depublished"]
        assert scene.refusals() == []


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.DROP])
async def test_a_wire_cut_in_the_publication_makes_no_double(on_stage: Callable[..., object], kind: FaultKind) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        world = scene.world
        report_id = await world.receive(letter_of())
        scene.fault(kind)
        with pytest.raises((OutcomeUnknown, Unavailable)):
            await publish_study(world.services, report_id, STUDY)
        await publish_study(world.services, report_id, STUDY)
        assert len(scene.entries()) == len(scene.standing()) == 1
        assert await world.states() == ["current"]
        # And in the depublication.
        deletion = await world.receive(letter_of(control_id="M2", operation="delete"))
        scene.judge.faults.order(OrderedFault(FaultKind.SLOW, 1, "registry", 0))
        scene.fault(kind, "registry")
        with pytest.raises((OutcomeUnknown, Unavailable)):
            await publish_study(world.services, deletion, STUDY)
        assert await publish_study(world.services, deletion, STUDY) is Outcome.DEPUBLISHED
        assert scene.standing() == []


@pytest.mark.parametrize("kind", [FaultKind.BUSY, FaultKind.UNAVAILABLE, FaultKind.FAULT])
async def test_a_dmp_that_cannot_now_is_tried_again(on_stage: Callable[..., object], kind: FaultKind) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        world = scene.world
        report_id = await world.receive(letter_of())
        scene.fault(kind)
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await publish_study(world.services, report_id, STUDY)
        assert [i.code for i in await world.queue()] == ["waiting"]
        await publish_study(world.services, report_id, STUDY)
        assert len(scene.standing()) == 1
        assert await world.queue() == ()


async def test_a_partial_success_that_holds_the_kos(on_stage: Callable[..., object]) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        scene.fault(FaultKind.PARTIAL)
        assert await scene.world.run(letter_of()) is Outcome.PUBLISHED
        assert [(i.code, i.severity) for i in await scene.world.queue()] == [("dmp-partial", "warning")]


async def test_a_patient_without_a_dmp_is_for_the_operator(on_stage: Callable[..., object]) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        assert await scene.world.run(letter_of(identity=Identity(ins="162018885045327"))) is Outcome.STOPPED
        [incident] = await scene.world.queue()
        assert incident.code == "dmp-rejected"
        assert incident.peer_code
        assert await scene.world.states() == [State.ABANDONED]


def identity_of(scene: Scene, **changes: object) -> VihfIdentity:
    site = Site("ambroise", Structure(STRUCTURE, "Centre"), ())
    return VihfIdentity.from_json(scene.registry.identity(site, report_of(**changes), NOW))


@pytest.mark.requirement("DB.SO.19")
async def test_who_acts_at_the_dmp(on_stage: Callable[..., object]) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        plain = identity_of(scene)
        assert (plain.subject_id, plain.subject_name) == ("801234560801", "Jacques BIDEAULT")
        assert plain.speciality is not None
        assert (plain.profession.code, plain.speciality.code) == ("10", "SM44")
        assert (plain.structure_id, plain.sector, plain.mode) == (STRUCTURE, "SA08", "INDIRECTE")
        assert plain.authenticated_at == NOW
        # Without a sender, the signatory; a bare RPPS number gets its type digit.
        report = report_of()
        unsaid = identity_of(
            scene, sender=replace(report.sender, person=None), signatory=Person("10001234567", "A", "B")
        )
        assert (unsaid.subject_id, unsaid.subject_name, unsaid.speciality) == ("810001234567", "B A", None)
        assert unsaid.profession.code == "10"
        with pytest.raises(Misconfigured) as error:
            scene.registry.identity(Site("elsewhere", Structure("1", "x"), ()), report, NOW)
        assert error.value.code == "structure-keys"


@pytest.mark.requirement("D9")
async def test_the_radiologist_may_be_the_author(on_stage: Callable[..., object]) -> None:
    async with on_stage(author="radiologist") as scene:  # type: ignore[attr-defined]
        assert await scene.world.run(letter_of()) is Outcome.PUBLISHED, scene.refusals()
        current = await scene.world.current()
        assert current is not None
        assert b"drimbox-1" not in current.metadata
        assert b"801234560801^BIDEAULT^Jacques" in current.metadata
        assert current.visibility == Visibility()


async def imported(scene: Scene) -> None:
    """Forget what only this box knows of its versions: as if they came in an archive of another product."""
    async with scene.world.pool.connection() as connection:
        await connection.execute("UPDATE publication SET report_id = NULL, fingerprint = '', entry_uuid = NULL")
        await connection.execute("UPDATE reported_study SET last_report_id = NULL, reports = '{}'")


@pytest.mark.requirement("DB.SO.13", "DB.SO.22", "DB.SO.26", "DB.SO.27", "D6", "D7", "exam:U", "exam:W")
async def test_the_changes_of_a_study_pass_the_judge(on_stage: Callable[..., object]) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        world = scene.world
        assert await world.run(letter_of(flags=HIDDEN)) is Outcome.PUBLISHED, scene.refusals()
        assert await world.resync(Cause.RECONCILIATION) is Outcome.NOTHING

        world.pacs.hold(study_of(images=5))
        assert await world.resync(Cause.ORDER_CHANGED) is Outcome.PUBLISHED, scene.refusals()
        assert [e.status.rpartition(":")[2] for e in scene.entries()] == ["Deprecated", "Approved"]
        current = await world.current()
        assert current is not None
        assert current.visibility.hidden_from_patient
        assert b"INVISIBLE_PATIENT" in current.metadata

        await world.note("1.2.9.1", "113001", "1.2.250.1.213.4.5.2.3.105.201.30")
        assert await world.resync() is Outcome.PUBLISHED, scene.refusals()
        assert [read_manifest(k).instance_count for k in scene.standing()] == [4]

        world.pacs.studies.clear()
        assert await world.resync() is Outcome.DEPUBLISHED, scene.refusals()
        assert scene.standing() == []
        world.pacs.hold(study_of(images=6))
        assert await world.resync() is Outcome.PUBLISHED, scene.refusals()
        assert [read_manifest(k).instance_count for k in scene.standing()] == [5]

        await world.order("CA")
        assert await world.resync(Cause.ORDER_DELETED) is Outcome.DEPUBLISHED, scene.refusals()
        assert scene.standing() == []
        assert scene.refusals() == []
        assert await world.states() == ["replaced", "replaced", "depublished", "depublished"]


@pytest.mark.requirement("DB.SO.30", "DB.SO.13", "DB.SO.31")
async def test_an_imported_version_is_kept_true_and_passes_the_judge(on_stage: Callable[..., object]) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        world = scene.world
        await world.run(letter_of(flags=HIDDEN))
        await imported(scene)
        first = await world.current()
        assert first is not None
        assert await world.resync(Cause.RECONCILIATION) is Outcome.NOTHING

        world.pacs.hold(study_of(images=5))
        assert await world.resync() is Outcome.PUBLISHED, scene.refusals()
        second = await world.current()
        assert second is not None
        assert (second.report_id, second.document_ids) == (None, first.document_ids)
        told, was = read_manifest(second.kos), read_manifest(first.kos)
        assert compare(was, told).changes == {Change.IMAGES}
        assert [c.attrib for c in codes_of(second.metadata)] == [c.attrib for c in codes_of(first.metadata)]
        assert await world.resync() is Outcome.NOTHING

        rules = replace(world.services.rules, retrieve_base="https://db9.test.mesimagesmedicales.fr/rs")
        world.services = replace(world.services, rules=rules)
        assert await world.resync(Cause.ADDRESS) is Outcome.PUBLISHED, scene.refusals()
        assert await world.resync(Cause.ADDRESS) is Outcome.NOTHING

        # Gone, and back again: from the archive alone.
        world.pacs.studies.clear()
        assert await world.resync() is Outcome.DEPUBLISHED
        world.pacs.hold(study_of())
        assert await world.resync() is Outcome.PUBLISHED, scene.refusals()
        assert scene.refusals() == []
        assert (await world.current() or first).visibility.hidden_from_patient
        # The next report takes over.
        assert await world.run(letter_of(control_id="M2")) is Outcome.PUBLISHED, scene.refusals()
        assert await world.states() == ["replaced", "replaced", "depublished", "replaced", "current"]


def codes_of(metadata: bytes) -> list[Element]:
    """The classifications that say what a KOS is about, whoever made it and whenever."""
    kos = next(e for e in parse(metadata).iter() if e.get("mimeType") == "application/dicom")
    return [c for c in kos.iterchildren() if c.get("nodeRepresentation")]


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.DROP])
async def test_a_wire_cut_in_a_resynchronisation_makes_no_double(
    on_stage: Callable[..., object], kind: FaultKind
) -> None:
    async with on_stage() as scene:  # type: ignore[attr-defined]
        world = scene.world
        await world.run(letter_of())
        world.pacs.hold(study_of(images=5))
        scene.fault(kind)
        with pytest.raises((OutcomeUnknown, Unavailable)):
            await world.resync()
        await world.resync()
        assert len(scene.entries()) == 2
        assert [read_manifest(k).instance_count for k in scene.standing()] == [5]
        assert await world.queue() == ()
