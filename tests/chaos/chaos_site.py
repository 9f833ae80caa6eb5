"""What a chaos run is played on: the site's patients and studies, and everything that runs, in processes of its own.

National services, PACSs, PostgreSQL and the box are the real ones; between the box and its peers stand relays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos_model import Held, Person
from chaos_proxy import Relay, relaying

from drimbox.demo.processes import Running, started
from drimbox.sandbox.dmp.bench import KnownPatient
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, Faults, embedded_pacs
from drimbox.sandbox.pacs.exams import LocalPatient, SampleSeries, SampleStudy
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.pacs.samples import write_study
from drimbox.sandbox.services import Endpoints, endpoints_of
from drimbox.sandbox.sites import SITE_A, SITE_B, ServicesConfig, config_to_json
from drimbox.store.embedded import stop_abandoned

INS_OID = "1.2.250.1.213.1.4.10"
#: Struct_IdNat of the two structures that the box serves, and its short name of each.
STRUCTURES = {SITE_A.place.identifier: "ambroise", SITE_B.place.identifier: "cabinet"}
_FAMILIES = [
    "ARBRE",
    "BALCON",
    "CABANE",
    "DUNE",
    "ECLUSE",
    "FALAISE",
    "GRANGE",
    "HAMEAU",
    "ILOT",
    "JETEE",
    "LAGUNE",
    "MOULIN",
]
_GIVEN = ["ALIX", "BLANCHE", "CLAUDE", "DOMINIQUE", "EDEN", "FANNY", "GABIN", "HELOISE", "IRIS", "JULES"]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everybody and every study of the site. ``studies`` by UID; those of no PACS are reported all the same."""

    people: tuple[Person, ...]
    studies: dict[str, Held]

    def of(self, person: Person) -> list[Held]:
        return [s for s in self.studies.values() if s.person is person]


def catalogue(rng: random.Random, people: int, studies: int) -> Catalogue:
    """Patients and studies that are no one's."""
    persons = tuple(_person(number) for number in range(people))
    held: dict[str, Held] = {}
    for number in range(studies):
        # Everybody has one, some have many.
        person = persons[number] if number < people else rng.choice(persons)
        pacs = rng.choices(("orthanc", "stand-in", ""), (88, 8, 4))[0]
        sample = _sample(10_000 + number, person, rng.choice((1, 1, 1, 2)))
        instances = {uid for series in sample.series for uid in sample.instance_uids(series)}
        held[sample.study_uid] = Held(
            sample.number, sample.study_uid, sample.accession_number, person, pacs, frozenset(instances)
        )
    return Catalogue(persons, held)


def _person(number: int) -> Person:
    sex, year, month = "MF"[number % 2], 40 + number % 60, 1 + number % 12
    return Person(
        ins=_ins(sex, year, month, number),
        later_ins=_ins(sex, year, month, number + 500),
        family=f"{_FAMILIES[number % len(_FAMILIES)]} {_letters(number)}",
        given=_GIVEN[number % len(_GIVEN)],
        birth_date=f"19{year}{month:02d}17",
        sex=sex,
        ipp=f"IPP{7000 + number}",
        mixed=number % 4 == 0,
    )


def _letters(number: int) -> str:
    """No two patients have the same name."""
    return "".join("BCDFGHJKLM"[int(digit)] for digit in f"{number:03d}")


def _ins(sex: str, year: int, month: int, order: int) -> str:
    thirteen = f"{'1' if sex == 'M' else '2'}{year:02d}{month:02d}63220{order:03d}"
    return f"{thirteen}{97 - int(thirteen) % 97:02d}"


def sample_of(held: Held) -> SampleStudy:
    """The study as the sandbox makes its images."""
    return _sample(held.number, held.person, len(held.instances))


def _sample(number: int, person: Person, images: int) -> SampleStudy:
    series = SampleSeries(201, "ct", "Axiale", images, 16)
    local = LocalPatient(person.ipp, f"{person.family}^{person.given}", person.birth_date, person.sex)
    return SampleStudy(number, "CT", "Scanner", "HEAD", (series,), local)


class Machine:
    """One of our processes, that can be killed and started again."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self._arguments = arguments
        self._log = log
        self._stack = AsyncExitStack()
        self.running: Running | None = None

    async def start(self) -> None:
        self.running = await self._stack.enter_async_context(started(self.name, self._arguments, log=self._log))

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.process.pid

    @property
    def alive(self) -> bool:
        return self.running is not None and self.running.alive

    def tell(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Until it is gone."""
        if self.running is not None:
            self.tell(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(40):
                    await self.running.process.wait()
        await self._stack.aclose()
        self.running = None


class Orthanc:
    """The PACS that holds most studies; its process, killed and started again on what it kept."""

    def __init__(self, state: Path, port: int, http_port: int, drimbox_port: int) -> None:
        self._state = state
        known = (Destination("DRIMBOX_A", "127.0.0.1", drimbox_port),)
        self._config = orthanc.OrthancConfig(state, "PACS_A", port, http_port, known)
        self._process: subprocess.Popen[bytes] | None = None
        self._command: list[bytes] = []
        self.peer: PacsPeer | None = None

    async def fill(self, files: Sequence[Path]) -> None:
        """Start it for the first time, give it its images, and take over its process."""

        def filled() -> None:
            with orthanc.orthanc(self._config, files) as peer:
                pid = int((self._state / "orthanc.pid").read_text())
                self._command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                self.peer = peer

        await asyncio.to_thread(filled)

    async def start(self) -> None:
        with (self._state / "orthanc-again.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - the start of a process, in a test
                [*_bound_to_us(), *self._command], cwd=self._state, stdout=log, stderr=log, start_new_session=True
            )
        assert self.peer is not None
        for _ in range(200):
            with contextlib.suppress(Exception):
                await asyncio.to_thread(orthanc.rest, self.peer, "GET", "/system", None, 2.0)
                return
            await asyncio.sleep(0.05)
        raise AssertionError("Orthanc does not start again")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        await asyncio.to_thread(self._process.wait)
        self._process = None

    def tell(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def _bound_to_us() -> tuple[str, ...]:
    """Where the system can, what we start ends with us, however we end."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


@dataclass(slots=True)
class Site:
    """Everything that runs. ``relays`` are by the name of the peer behind them."""

    state: Path
    catalogue: Catalogue
    national: Endpoints
    services: Machine
    box: Machine
    orthanc: Orthanc
    stand_in: Faults
    relays: dict[str, Relay]
    mllp: int
    iocm: int
    view: str

    @property
    def postgres(self) -> Path:
        return self.state / "box" / "postgres"

    def postmaster(self) -> int | None:
        """The process of PostgreSQL, None while there is none."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((self.postgres / "postmaster.pid").read_text().splitlines()[0])
            if Path(f"/proc/{pid}").exists():
                return pid
        return None

    @property
    def dsn(self) -> str:
        # Line 5 is the folder of the server's socket (PostgreSQL, "postmaster.pid").
        return f"postgresql://postgres:@/postgres?host={(self.postgres / 'postmaster.pid').read_text().splitlines()[4]}"


@asynccontextmanager
async def playing(state: Path, known: Catalogue) -> AsyncIterator[Site]:
    """The whole site in ``state``, until the block ends."""
    names = [
        "psc",
        "dmp",
        "whitelist",
        "view",
        "dmp_relay",
        "pacs",
        "pacs_http",
        "pacs_relay",
        "stand_in",
        "stand_in_relay",
        "mllp",
        "dicom",
        "wado",
        "iocm",
    ]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    config = ServicesConfig(
        state=state / "national",
        psc_port=ports["psc"],
        dmp_port=ports["dmp"],
        whitelist_port=ports["whitelist"],
        view_port=ports["view"],
        published_reports="",
        patients=tuple(
            KnownPatient(ins, INS_OID, p.family, p.given, p.birth_date, p.sex)
            for p in known.people
            for ins in (p.ins, p.later_ins)
        ),
    )
    (state / "services.json").write_text(config_to_json(config), "utf-8")
    national = endpoints_of(config)
    toml = state / "box.toml"
    toml.write_text(_settings(state, ports, national), "utf-8")
    logs = state / "logs"
    services = Machine("services", ["sandbox", "--config", str(state / "services.json")], logs / "services.log")
    box = Machine("box", ["run", "--config", str(toml)], logs / "box.log")
    pacs = Orthanc(state / "pacs", ports["pacs"], ports["pacs_http"], ports["dicom"])
    faults = Faults()
    async with AsyncExitStack() as stack:
        files = await asyncio.to_thread(_images, state, known)
        known_to = (Destination("DRIMBOX_A", "127.0.0.1", ports["dicom"]),)
        small = EmbeddedConfig(state / "stand-in", "PACS_B", ports["stand_in"], known_to)
        stack.enter_context(embedded_pacs(small, faults))
        stack.push_async_callback(pacs.stop, signal.SIGKILL)
        await asyncio.gather(pacs.fill(files), services.start())
        stack.push_async_callback(services.stop)
        await pacs.start()
        relays = {
            "DMP": await stack.enter_async_context(relaying(ports["dmp_relay"], ports["dmp"])),
            "PACS": await stack.enter_async_context(relaying(ports["pacs_relay"], ports["pacs"])),
            "stand-in": await stack.enter_async_context(relaying(ports["stand_in_relay"], ports["stand_in"])),
        }
        stack.callback(stop_abandoned, state / "box" / "postgres")
        await box.start()
        stack.push_async_callback(box.stop)
        view = national.dmp_view.removesuffix("/dmp")
        yield Site(state, known, national, services, box, pacs, faults, relays, ports["mllp"], ports["iocm"], view)


def _images(state: Path, known: Catalogue) -> list[Path]:
    """The images of every study, written; those of Orthanc are returned, the stand-in reads its folder."""
    files: list[Path] = []
    for held in known.studies.values():
        sample = sample_of(held)
        if held.pacs == "orthanc":
            files += write_study(sample, state / "images")
        elif held.pacs:
            write_study(sample, state / "stand-in")
    return files


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _settings(state: Path, ports: dict[str, int], national: Endpoints) -> str:
    """The box of the run: two structures, two PACSs, everything behind relays, short pauses."""
    dmp = f"https://localhost:{ports['dmp_relay']}/si-dmp-server/v2/services"
    lists = ", ".join(_q(path) for path in national.revocation_lists)
    certificates = national.sites["a"].certificates
    text = f"""[box]
name = "chaos"
environment = "test"
state_dir = {_q(state / "box")}
device_id = "31750803447/drimbox-1"
homologation_number = "DRIMBOX-BAC-A-SABLE"

[trust]
roots = [{_q(national.roots)}]
revocation_lists = [{lists}]

[dmp]
repository = "{dmp}/repository"
registry = "{dmp}/registry"
patients = "{dmp}/patients"
habilitations = "{dmp}/habilitations"
source_id = "2.25.1740099"
timeout = 5

[psc]
discovery = {_q(national.psc_discovery)}
client_id = "drimbox-site-a"
auth = {_pair(certificates.psc)}

[whitelist]
url = {_q(national.whitelist)}
signer_cn = {_q(national.whitelist_signer_cn)}
signer_ou = {_q(national.whitelist_signer_ou)}

[source.hl7]
port = {ports["mllp"]}

[source.dicom]
port = {ports["dicom"]}
ae_title = "DRIMBOX_A"

[source.iocm]
port = {ports["iocm"]}
ae_title = "DRIMBOX_N"

[source.wado]
port = {ports["wado"]}
public_url = "https://localhost:{ports["wado"]}"
tls = {_pair(certificates.db)}

[source.retries]
first = 0.3
longest = 3
dead_after = 6
"""
    for key, name in (("a", "ambroise"), ("b", "cabinet")):
        place, own = national.sites[key].site.place, national.sites[key].certificates
        text += f"""
[[structures]]
id = "{name}"
name = {_q(place.name)}
identifier = {_q(place.identifier)}
sector = {_q(place.sector)}
auth = {_pair(own.auth)}
sign = {_pair(own.sign)}
"""
    for name, port, title in (
        ("orthanc", ports["pacs_relay"], "PACS_A"),
        ("stand-in", ports["stand_in_relay"], "PACS_B"),
    ):
        text += f"""
[[pacs]]
id = "{name}"
host = "127.0.0.1"
port = {port}
ae_title = "{title}"
calling_ae_title = "DRIMBOX_A"
connect_timeout = 2
answer_timeout = 4
"""
    return text


def _pair(pair: object) -> str:
    return f"{{ certificate = {_q(pair.certificate)}, key = {_q(pair.key)} }}"  # type: ignore[attr-defined]


def _q(value: object) -> str:
    # A JSON string is a TOML basic string.
    return json.dumps(str(value), ensure_ascii=False)
