"""The mesh on this machine: national services, two sites with PACS and RIS, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from drimbox.console import psc as console
from drimbox.consumer.app import BACKCHANNEL_PATH, FRONTCHANNEL_PATH
from drimbox.consumer.login import CALLBACK_PATH, GOODBYE_PATH
from drimbox.consumer.viewer_files import install_viewer
from drimbox.demo import consoles, sites
from drimbox.demo.order import both, in_thread, together
from drimbox.demo.places import Ports, ports
from drimbox.demo.processes import NotStarted, Running, memory_of, started
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.link import address, logouts, vouched
from drimbox.link import professionals as link
from drimbox.sandbox.citizens.app import Citizens, citizens_app
from drimbox.sandbox.citizens.services import Service
from drimbox.sandbox.issuing import service_certificate
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pacs import embedded, orthanc
from drimbox.sandbox.pacs.exams import EXAMS, OTHER_STUDY
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.pacs.samples import write_exam, write_study
from drimbox.sandbox.phone import phone_app
from drimbox.sandbox.pki import TestAuthority
from drimbox.sandbox.ris.app import Mllp, ris_app
from drimbox.sandbox.ris.exams import Exam, exam
from drimbox.sandbox.ris.letters import Identity
from drimbox.sandbox.services import Endpoints, endpoints_of
from drimbox.sandbox.sites import SITE_A, SITE_B, ServicesConfig, config_to_json
from drimbox.store.embedded import stop_abandoned

T = TypeVar("T")
Say = Callable[[str], None]
# The patient of the story, as site B's RIS knows them: the same person under the number of another site.
PATIENT_AT_B = replace(Identity(), ipp="IPP-B-4711", ipp_issuer="2.25.1740066")


@dataclass(frozen=True, slots=True)
class Mesh:
    """Everything that runs, and how to reach it. ``tls`` trusts the test CA; ``consoles``: accounts by site;
    ``patients``: how they are let in by the link."""

    state: Path
    ports: Ports
    national: Endpoints
    pacs_a: PacsPeer
    pacs_b: PacsPeer
    processes: tuple[Running, ...]
    tls: ssl.SSLContext
    tls_a: ssl.SSLContext
    tls_b: ssl.SSLContext
    http: HttpClient
    consoles: Mapping[str, tuple[consoles.Opener, ...]]
    patients: str = "code"

    @property
    def ris_a(self) -> str:
        return f"https://localhost:{self.ports.ris_a}/"

    @property
    def ris_b(self) -> str:
        return f"https://localhost:{self.ports.ris_b}/"

    @property
    def call_url(self) -> str:
        """The contextual call of site B."""
        return f"{sites.consumer_url(self.ports)}/drim"

    def memory(self) -> dict[str, int]:
        """Resident bytes of each process with its children, and of the PostgreSQL of each box."""
        found = {running.name: running.memory() for running in self.processes}
        for key in ("a", "b"):
            with suppress(OSError, ValueError, IndexError):
                # Line 1 is the process number (PostgreSQL, "postmaster.pid").
                pid = int((self.state / key / "postgres" / "postmaster.pid").read_text().splitlines()[0])
                found[f"PostgreSQL du site {key}"] = memory_of(pid)
        return found


@asynccontextmanager
async def running(
    state: Path, *, home: Path, say: Say, before_wado: int = 0, cached: bool = True, patients: str = "code"
) -> AsyncIterator[Mesh]:
    """The whole mesh until the block ends. Raises ``NotStarted``, ``Misconfigured``, ``OSError``.

    ``before_wado`` is a port in front of site A's WADO-RS, of a link that is measured: its KOS name that one. Not
    ``cached``: site B keeps no image beyond a session. ``patients``: how they are let in by the link of site A,
    ``code`` or ``oidc`` (an identity provider in the manner of FranceConnect+).
    """
    places = ports(state)
    (state / "endpoints.json").unlink(missing_ok=True)
    async with AsyncExitStack() as stack:
        viewer = await asyncio.to_thread(_viewer, home, say)
        say("Les services nationaux démarrent (bac à sable : DMP, Pro Santé Connect, liste blanche)…")
        config = _services(state, places)
        file = state / "services.json"
        file.write_text(config_to_json(config), "utf-8")
        services = await stack.enter_async_context(
            started("bac à sable", ["sandbox", "--config", str(file)], log=state / "logs" / "sandbox.log")
        )
        national = endpoints_of(config)
        say("Les PACS et les DRIMbox des deux sites démarrent…")
        sites.write_site_a(state / "site-a.toml", places, national, before_wado, patients=patients)
        sites.write_site_b(state / "site-b.toml", places, national, viewer, cached=cached)
        told = threading.Event()
        pacss = [
            in_thread(_pacs(state, "a", places.pacs_a, places.pacs_a_http, say, _nodes(places), told), told),
            in_thread(_pacs(state, "b", places.pacs_b, places.pacs_b_http, say, _nodes_b(places), told), told),
        ]
        # All start at once; the boxes stop first, for what they have in hand needs the PACSs.
        (pacs_a, pacs_b), boxes = await both(
            together(stack, *pacss), together(stack, *(_box(state, key) for key in ("a", "b")))
        )
        authority = TestAuthority(config.state / "pki")
        await _information_systems(stack, places, authority)
        http = await stack.enter_async_context(HttpClient())
        if patients == "oidc":
            await _identity_provider(stack, state, places, authority, http)
        openers = await consoles.accounts(state, national.logins)
        mesh = Mesh(
            state=state,
            ports=places,
            national=national,
            pacs_a=pacs_a,
            pacs_b=pacs_b,
            processes=(services, *boxes),
            tls=caller_context(authority),
            tls_a=caller_context(authority, national.sites["a"].certificates.auth),
            tls_b=caller_context(authority, national.sites["b"].certificates.auth),
            http=http,
            consoles=openers,
            patients=patients,
        )
        stack.enter_context(_told(state / "endpoints.json", _addresses(mesh)))
        yield mesh


@contextmanager
def _told(file: Path, content: dict[str, object]) -> Iterator[None]:
    """The file is there, whole, for as long as what it says is true."""
    whole = file.with_suffix(".new")
    whole.write_text(json.dumps(content, indent=2, ensure_ascii=False), "utf-8")
    whole.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


@asynccontextmanager
async def _box(state: Path, key: str) -> AsyncIterator[Running]:
    arguments = ["run", "--config", str(state / f"site-{key}.toml")]
    try:
        async with started(f"site {key}", arguments, log=state / "logs" / f"site-{key}.log") as box:
            yield box
    finally:
        # A box that was killed could not stop its database.
        await asyncio.to_thread(stop_abandoned, state / key / "postgres")


def _viewer(home: Path, say: Say) -> Path:
    folder = home / "var" / "viewer"
    say("La visionneuse OHIF est vérifiée, ou installée la première fois (quelques dizaines de secondes)…")
    install_viewer(folder)
    return folder


def _services(state: Path, places: Ports) -> ServicesConfig:
    consumer, viewer = sites.consumer_url(places), sites.viewer_url(places)
    console_a, console_b = (sites.console_url(places, key) for key in ("a", "b"))
    site_a = replace(
        SITE_A,
        redirect_uris=(console_a + console.CALLBACK_PATH, viewer + link.CALLBACK_PATH),
        post_logout_redirect_uris=(console_a + console.GOODBYE_PATH, viewer + link.GOODBYE_PATH),
        backchannel_logout=viewer + logouts.BACKCHANNEL_PATH,
        frontchannel_logout=viewer + logouts.FRONTCHANNEL_PATH,
    )
    site_b = replace(
        SITE_B,
        redirect_uris=(consumer + CALLBACK_PATH, console_b + console.CALLBACK_PATH),
        post_logout_redirect_uris=(consumer + GOODBYE_PATH, console_b + console.GOODBYE_PATH),
        backchannel_logout=consumer + BACKCHANNEL_PATH,
        frontchannel_logout=consumer + FRONTCHANNEL_PATH,
        db_host="site-b.localhost",
    )
    return ServicesConfig(
        state=state / "national",
        sites=(site_a, site_b),
        psc_port=places.psc,
        dmp_port=places.dmp,
        whitelist_port=places.whitelist,
        wallet_port=places.wallet,
        view_port=places.view,
        poll_seconds=2,
    )


def _nodes(places: Ports) -> tuple[Destination, ...]:
    """Who may ask site A's PACS: its DRIMbox, and outside clients of a demonstration."""
    return (
        Destination("DRIMBOX_A", "127.0.0.1", places.dicom_a),
        Destination(sites.IOCM_AE, "127.0.0.1", places.iocm_a),
        Destination("DEMO_CLIENT", "127.0.0.1", places.dicom_client),
    )


def _nodes_b(places: Ports) -> tuple[Destination, ...]:
    """Who may ask site B's PACS: its DRIMbox."""
    return (Destination("DRIMBOX_B", "127.0.0.1", places.dicom_b),)


@contextmanager
def _pacs(
    state: Path,
    key: str,
    port: int,
    http_port: int,
    say: Say,
    known: tuple[Destination, ...],
    stop: threading.Event,
) -> Iterator[PacsPeer]:
    """The PACS of a site: Orthanc where it can be had, else the embedded one. Site A's holds the official exams.

    Raises ``NotStarted`` once ``stop`` is set.
    """
    folder = state / f"pacs-{key}"
    title = f"PACS_{key.upper()}"
    studies = _unless(stop, _studies(state, folder, stop) if key == "a" else [])
    if orthanc.installed():
        config = orthanc.OrthancConfig(folder, title, port, http_port, known)
        with orthanc.orthanc(config, studies) as peer:
            yield peer
        return
    say("Orthanc n'est pas installé : un PACS embarqué le remplace.")
    if key == "a":
        # It serves a folder of files as they lie.
        folder = state / "samples"
    with embedded.embedded_pacs(embedded.EmbeddedConfig(folder, title, port, known)) as peer:
        yield peer


def _studies(state: Path, folder: Path, stop: threading.Event) -> list[Path]:
    """The sample images, made at the first start only."""
    made = state / "samples"
    if not made.exists() or not folder.exists():
        exams = [path for letter in _unless(stop, EXAMS) for path in write_exam(letter, made)]
        return exams + write_study(OTHER_STUDY, made / "other")
    return sorted(made.rglob("*.dcm"))


def _unless(stop: threading.Event, items: Iterable[T]) -> Iterator[T]:
    """The items, as long as we are not told to stop."""
    for item in items:
        if stop.is_set():
            raise NotStarted("arrêt demandé pendant le démarrage")
        yield item


async def _information_systems(stack: AsyncExitStack, places: Ports, authority: TestAuthority) -> None:
    pair = service_certificate(authority, "ris-serveur", "localhost")
    tls = listener_context(pair, authority, ClientCertificate.UNASKED)
    viewer = sites.viewer_url(places)
    site_a = ris_app("RIS du site A", mllp=Mllp("127.0.0.1", places.mllp_a), link=lambda exam: link_of(viewer, exam))
    call = f"{sites.consumer_url(places)}/drim"
    site_b = ris_app("RIS du site B", call_url=call, identity=PATIENT_AT_B)
    await stack.enter_async_context(serving(site_a, host="127.0.0.1", port=places.ris_a, tls=tls))
    await stack.enter_async_context(serving(site_b, host="127.0.0.1", port=places.ris_b, tls=tls))
    await stack.enter_async_context(serving(phone_app(), host="127.0.0.1", port=places.phone, tls=tls))


async def _identity_provider(
    stack: AsyncExitStack, state: Path, places: Ports, authority: TestAuthority, http: HttpClient
) -> None:
    """The identity provider of patients; the official test patient may log in."""
    viewer, believing = sites.viewer_url(places), caller_context(authority)

    async def keys() -> dict[str, Any]:
        reply = await http.send("GET", viewer + vouched.KEYS_PATH, tls=believing, timeout=10, max_bytes=65536)
        found: dict[str, Any] = json.loads(reply.body)
        return found

    service = Service(
        sites.CITIZENS_CLIENT,
        SITE_A.place.name,
        (viewer + vouched.CALLBACK_PATH,),
        (viewer + vouched.GOODBYE_PATH,),
        keys,
        secret=(state / "identity-secret.txt").read_text("ascii"),
    )
    provider = Citizens(sites.citizens_url(places), {service.client_id: service}, SystemClock())
    pair = service_certificate(authority, "identite-serveur", "localhost")
    tls = listener_context(pair, authority, ClientCertificate.UNASKED)
    await stack.enter_async_context(serving(citizens_app(provider), host="127.0.0.1", port=places.citizens, tls=tls))


def link_of(origin: str, known: Exam) -> str:
    """The link that site A's RIS puts in the report of an exam: to its first study."""
    _, accession = known.orders[0]
    found = address.Link(known.studies[0], accession, address.ReportId.of(known.document_id))
    return address.whole(origin, found)


def _addresses(mesh: Mesh) -> dict[str, object]:
    """``endpoints.json``: whatever an outside client needs to join in."""
    places, national = mesh.ports, mesh.national
    certificates = national.as_json()["sites"]
    return {
        "mllp": {"host": "127.0.0.1", "port": places.mllp_a, "tls": False},
        "dicom": {
            "pacs_a": {"ae_title": mesh.pacs_a.ae_title, "host": "127.0.0.1", "port": places.pacs_a},
            "pacs_b": {"ae_title": mesh.pacs_b.ae_title, "host": "127.0.0.1", "port": places.pacs_b},
            "drimbox_a": {"ae_title": "DRIMBOX_A", "host": "127.0.0.1", "port": places.dicom_a},
            "iocm_a": {"ae_title": sites.IOCM_AE, "host": "127.0.0.1", "port": places.iocm_a},
            "client": {"ae_title": "DEMO_CLIENT", "host": "127.0.0.1", "port": places.dicom_client},
            "pacs_a_rest": {
                "url": mesh.pacs_a.rest_url,
                "user": mesh.pacs_a.rest_user,
                "password_in": str(mesh.state / "pacs-a" / "orthanc.json"),
            },
        },
        "wado_rs": {"base": sites.wado_base(places), "health": f"https://localhost:{places.wado_a}/health"},
        "consumer": {
            "contextual_call": mesh.call_url,
            "viewer": f"{sites.consumer_url(places)}/visionneuse",
            "home": sites.consumer_url(places),
        },
        "consoles": {
            key: {"url": sites.console_url(places, key), "accounts": [asdict(one) for one in openers]}
            for key, openers in mesh.consoles.items()
        },
        "ris": {"a": mesh.ris_a, "b": mesh.ris_b},
        "link": {
            "invoke": f"{sites.viewer_url(places)}{address.PATH}",
            "template": address.template(sites.viewer_url(places)),
            "example": link_of(sites.viewer_url(places), exam("E")),
            "phone": sites.phone_url(places),
        },
        "dmp": {
            "repository": national.dmp_repository,
            "registry": national.dmp_registry,
            "patients": national.dmp_patients,
            "habilitations": national.dmp_habilitations,
            "view": national.dmp_view,
        },
        "psc": {
            "discovery": national.psc_discovery,
            "issuer": national.psc_issuer,
            "helpers": national.psc_helpers,
        },
        "whitelist": national.whitelist,
        "certificates": {
            "ca": str(national.roots),
            "revocation_lists": [str(path) for path in national.revocation_lists],
            "sites": {key: value["certificates"] for key, value in certificates.items()},
        },
        "logins": [
            {
                "login": user.login,
                "national_id": user.national_id,
                "name": f"{user.given} {user.family}",
                "practices": sum(len(exercise.activities) for exercise in user.exercises),
            }
            for user in national.logins
        ],
        "patient": {"ins": PATIENT_AT_B.ins, "ins_oid": PATIENT_AT_B.ins_oid, "ipp_b": PATIENT_AT_B.ipp},
        "processes": {running.name: running.process.pid for running in mesh.processes},
    }
