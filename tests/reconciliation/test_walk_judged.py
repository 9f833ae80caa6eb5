"""Walks over the wire: a PACS that speaks DICOM, a DMP that judges each message, the real queue of jobs."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pydicom
import pytest
from walk_world import ADMINISTRATOR

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.manifest.read import read_manifest
from drimbox.national.dmp.actor import Actor, DmpEndpoints, Software, VihfIdentity
from drimbox.national.dmp.client import DmpClient
from drimbox.national.dmp.metadata import Device
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.publication.jobs import Pauses, working
from drimbox.publication.ports import Site, SitePacs, Sites
from drimbox.publication.publish import Outcome
from drimbox.publication.registry import DmpRegistry, DmpStructure
from drimbox.reconciliation.acts import WalkActs
from drimbox.reconciliation.driver import Conduct, Driver, walking
from drimbox.reconciliation.examine import Examiner
from drimbox.reconciliation.walk import Kind, Mode, State, Walk
from drimbox.reconciliation.walks import Walks
from drimbox.sandbox.dmp import Dmp, KnownPatient, KnownStructure, dmp_app
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, embedded_pacs
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.peer import Destination
from drimbox.sandbox.pacs.samples import write_study
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.store.database import Pool
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.tls import client_context, load_trust, server_context
from publication.publication_examples import AMBROISE, World, letter_of, world_on

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:pynetdicom")
STRUCTURE = "1750803447"
LETTERS = ("S", "U", "V", "W", "Z")
MOVED = "https://db9.test.mesimagesmedicales.fr/dicom"


@dataclass
class LocalPacs:
    """A PACS on a folder, that can be taken down and changed."""

    folder: Path
    port: int
    running: ExitStack = field(default_factory=ExitStack)

    def up(self) -> None:
        known = (Destination("DRIMBOX", "127.0.0.1", 9),)
        self.running.enter_context(embedded_pacs(EmbeddedConfig(self.folder, "PACS_W", self.port, known)))

    def down(self) -> None:
        self.running.close()

    def study(self, letter: str) -> list[Path]:
        study = EXAMS[letter][0]
        wanted = set(study.instance_uids(study.series[0]))
        headers = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in self.folder.rglob("*.dcm")}
        return sorted(path for path, header in headers.items() if header.SOPInstanceUID in wanted)


@dataclass
class Stage:
    """The site, and what stands around it."""

    dsn: str
    world: World
    judge: Dmp
    pacs: LocalPacs

    def standing(self) -> dict[str, list[str]]:
        """What a reader of the DMP sees: for each study the addresses of its KOS, or its number of images."""
        found: dict[str, list[str]] = {}
        for entry in self.judge.store.entries():
            if entry.mime == "application/dicom" and entry.status.endswith(":Approved"):
                manifest = read_manifest(self.judge.store.content(entry.unique_id) or b"")
                letter = next(k for k, v in EXAMS.items() if v[0].study_uid == manifest.study_uid)
                base = manifest.series[0].retrieve_url.partition("/studies/")[0]
                found.setdefault(letter, []).append(f"{manifest.instance_count} {base}")
        return found

    def counts(self) -> dict[str, list[int]]:
        return {k: [int(v.split()[0]) for v in values] for k, values in self.standing().items()}

    def refusals(self) -> list[str]:
        return [f"{v.rule} {v.detail}" for v in self.judge.store.verdicts() if v.verdict != "accepted"]

    @asynccontextmanager
    async def box(self, base: str = "") -> AsyncIterator[Driver]:
        """The box runs: jobs and walks."""
        services = self.world.services
        if base:
            services = replace(services, rules=replace(services.rules, retrieve_base=base))
        pauses = Pauses(first=0.1, longest=0.3)
        conduct = Conduct(rate=6000, poll=0.05, first_pause=0.1, longest_pause=0.3, put_off=3)
        drivers = [
            Driver(
                kind=kind,
                dsn=self.dsn,
                examine=Examiner(services, self.world.pool),
                incidents=self.world.incidents,
                journal=self.world.journal,
                clock=SystemClock(),
                base=services.rules.retrieve_base,
                conduct=conduct,
            )
            for kind in Kind
        ]
        async with working(self.dsn, services, pauses=pauses, dead_after=3), walking(drivers):
            yield drivers[0]

    async def walk(self, mode: Mode) -> Walk:
        """Order a reconciliation and wait for its end."""
        acts = WalkActs(self.world.pool, self.world.journal, SystemClock(), "")
        await acts.start(Kind.RECONCILIATION, mode, 6000, ADMINISTRATOR)
        return await self.ended()

    async def ended(self, kind: Kind = Kind.RECONCILIATION) -> Walk:
        return await self.until(lambda walk: walk.kind is kind and not walk.active)

    async def until(self, reached: Callable[[Walk], bool]) -> Walk:
        walks = Walks(self.world.pool)
        async with asyncio.timeout(60):
            while not (found := [w for w in (await walks.latest())[:1] if reached(w)]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return found[0]


@pytest.fixture
async def stage(dsn: str, pool: Pool, tmp_path: Path, authority: TestAuthority, shared: Path) -> AsyncIterator[Stage]:
    def issue(profile: Profile, name: str, unit: str, hosts: tuple[str, ...] = ()) -> Credential:
        pair: PemPair = authority.issue(
            profile, f"walk-{name}", common_name=name, unit=unit, organisation="CENTRE AMBROISE", hosts=hosts
        )
        return load_credential(pair.certificate, pair.key)

    trust = load_trust([authority.roots], authority.revocation_lists)
    tls = client_context(trust, issue(Profile.ORG_AUTH_CLI, "DRIMbox", STRUCTURE))
    sign = issue(Profile.ORG_SIGN, "DRIMbox sign", STRUCTURE)
    server = server_context(issue(Profile.SSL_SERV, "dmp", "318751275100020", ("127.0.0.1",)), trust)
    app = dmp_app(
        state=tmp_path / "dmp",
        trust_roots=[authority.roots],
        revocation_lists=authority.revocation_lists,
        schema_dir=shared / "schemas",
        structures=[KnownStructure(STRUCTURE, "Centre de radiologie Ambroise")],
        patients=[KnownPatient("279035121518989", "1.2.250.1.213.1.4.10", "PAT-TROIS", "DOMINIQUE")],
    )
    for letter in LETTERS:
        write_study(EXAMS[letter][0], tmp_path / "pacs")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        local = LocalPacs(tmp_path / "pacs", probe.getsockname()[1])
    local.up()
    link = PacsLink(Pacs(id="pacs", host="127.0.0.1", port=local.port, ae_title="PACS_W", answer_timeout=5.0))
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(HttpClient())
        port = await stack.enter_async_context(serving(app, host="127.0.0.1", port=0, tls=server))
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
            return Actor(identity, tls, sign, secret_connection)

        registry = DmpRegistry(
            client, {"ambroise": DmpStructure("SA08", actor)}, device=Device("31750803447/drimbox-1", "drimbox")
        )
        world = world_on(pool)
        site = Site("ambroise", AMBROISE, (SitePacs("pacs", PacsStudyFinder(link)),))
        sites = Sites([(site, [STRUCTURE])])
        world.services = replace(world.services, registry=registry, clock=SystemClock(), sites=sites)
        yield Stage(dsn, world, app.state.dmp, local)
    app.state.dmp.close()
    link.close()
    local.down()


async def published(stage: Stage, *letters: str) -> None:
    for letter in letters:
        outcome = await stage.world.run(letter_of(letter, f"M-{letter}"))
        assert outcome is Outcome.PUBLISHED, stage.refusals()


@pytest.mark.requirement("DB.SO.28", "DB.SO.31", "DB.SO.88", "D6", "D7")
async def test_an_archive_is_kept_true_over_the_wire(stage: Stage, tmp_path: Path) -> None:
    await published(stage, *LETTERS)
    pacs, world = stage.pacs, stage.world
    assert stage.counts() == {"S": [8], "U": [10], "V": [8], "W": [8], "Z": [8]}
    entries = len(stage.judge.store.entries())

    # Nothing is wrong.
    async with stage.box():
        for mode in Mode:
            walk = await stage.walk(mode)
            assert (walk.state, walk.done, walk.findings) == (State.DONE, 5, {}), await world.queue()

    # S leaves the PACS, U loses two images, somebody takes V out of the DMP.
    pacs.down()
    kept = tmp_path / "kept"
    kept.mkdir()
    for number, file in enumerate([*pacs.study("S"), *pacs.study("U")[:2]]):
        shutil.move(file, kept / f"kept{number}.dcm")
    pacs.up()
    gone = await world.archive.current(EXAMS["V"][0].study_uid)
    assert gone is not None
    registry, site = world.services.registry, world.services.sites.named("ambroise")
    assert site is not None
    entry = await registry.inspect(site, gone.ins, gone.vihf_identity, gone.kos_uid)
    assert entry is not None
    await registry.delete(site, gone.ins, gone.vihf_identity, entry, await world.services.reports.load(1))

    # Only told.
    async with stage.box():
        walk = await stage.walk(Mode.REPORT)
    assert walk.findings == {"gone": 1, "content": 1, "missing": 1}
    lines = await Walks(world.pool).found(walk.id)
    studies = {v[0].study_uid: k for k, v in EXAMS.items()}
    assert [(studies[line.study_uid], line.kind, line.detail) for line in lines] == [
        ("S", "gone", ""),
        ("U", "content", "images (+0, -2)"),
        ("V", "missing", ""),
    ]
    assert stage.counts() == {"S": [8], "U": [10], "W": [8], "Z": [8]}
    assert len(stage.judge.store.entries()) == entries
    assert [i.code for i in await world.queue()] == ["resync-difference"] * 3

    # Set right; what was told is settled by it.
    async with stage.box():
        walk = await stage.walk(Mode.REPAIR)
    assert walk.findings == {"depublished": 1, "replaced": 2}
    assert stage.counts() == {"U": [8], "V": [8], "W": [8], "Z": [8]}
    assert [i.code for i in await world.queue() if i.code == "resync-difference"] == []

    # S comes back.
    pacs.down()
    for file in kept.iterdir():
        shutil.move(file, pacs.folder / file.name)
    pacs.up()
    async with stage.box():
        assert (await stage.walk(Mode.REPORT)).findings == {"back": 1, "content": 1}
        assert (await stage.walk(Mode.REPAIR)).findings == {"published": 1, "replaced": 1}
    assert stage.counts() == {"S": [8], "U": [10], "V": [8], "W": [8], "Z": [8]}

    # The box gets another address: at its start, by itself.
    async with stage.box(MOVED):
        walk = await stage.ended(Kind.ADDRESS)
        assert (walk.done, walk.findings) == (5, {"replaced": 5})
        assert {v.split()[1] for values in stage.standing().values() for v in values} == {MOVED}
        assert (await stage.walk(Mode.REPAIR)).findings == {}
    async with stage.box(MOVED):
        await asyncio.sleep(0.3)
    assert [w.kind for w in await Walks(world.pool).latest() if w.kind is Kind.ADDRESS] == [Kind.ADDRESS]
    assert stage.counts() == {"S": [8], "U": [10], "V": [8], "W": [8], "Z": [8]}
    assert stage.refusals() == []


@pytest.mark.requirement("DB.SO.28", "D7")
@pytest.mark.parametrize("mode", Mode)
async def test_a_pacs_down_and_a_box_killed_half_way_lose_nothing(stage: Stage, mode: Mode) -> None:
    await published(stage, *LETTERS)
    stage.pacs.down()
    async with stage.box():
        acts = WalkActs(stage.world.pool, stage.world.journal, SystemClock(), "")
        await acts.start(Kind.RECONCILIATION, mode, 6000, ADMINISTRATOR)
        walk = await stage.until(lambda w: bool(w.note))
        await asyncio.sleep(0.5)
    # The box stops, and starts again while the PACS is still away.
    async with stage.box():
        await asyncio.sleep(1)
        walk = (await Walks(stage.world.pool).latest())[0]
        assert (walk.state, walk.done, walk.findings) == (State.RUNNING, 0, {})
        assert "injoignable" in walk.note
        assert len(stage.counts()) == 5
        stage.pacs.up()
        walk = await stage.ended()
    assert (walk.state, walk.done, walk.findings) == (State.DONE, 5, {})
    assert stage.counts() == {"S": [8], "U": [10], "V": [8], "W": [8], "Z": [8]}
    assert [i for i in await stage.world.queue() if i.closed_at is None] == []
    assert stage.refusals() == []
