"""The images' side of a source box, in a process of its own: WADO-RS over the cache and a PACS, without a database.

``python -m drimbox.bench.pixels.server FILE``: a JSON file says where everything is (``Place``). The same application
listens twice, with mutual TLS and in the clear. Once both accept, one JSON line tells the ports and the KOS of each
study. On the standard input, ``settle`` waits until all that was retrieved is in the cache, and ``forget UID`` empties
it of a study besides; ``OK`` answers. Its end ends the process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.types import ASGIApp, Receive, Scope, Send

from drimbox.cache import store
from drimbox.cache.limits import Limits
from drimbox.cache.sealing import own_key
from drimbox.cache.source import Cache, sharing
from drimbox.foundation import event_loop
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_server import CLIENT_CERTIFICATE, serving
from drimbox.foundation.memory import few_arenas
from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins
from drimbox.images.ports import Access
from drimbox.images.wado import wado_app
from drimbox.images.workers import worker_pool
from drimbox.manifest.build import encode
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.manifest.read import read_manifest
from drimbox.national.psc.introspection import INACTIVE, Introspection
from drimbox.national.whitelist import Domain, Whitelist
from drimbox.pacs import inbox
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsSeriesSource
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.study import Study
from drimbox.trust.keystore import load_credential
from drimbox.trust.names import written
from drimbox.trust.tls import load_trust, server_context

TOKEN = "bench"  # noqa: S105 - opens nothing but this server
BASE = "/dicom-web-rs"
_PACS = "banc"
_INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is; ``roots`` is the CA of both certificates, ``peer`` that of the caller."""

    state: str
    pacs_title: str
    pacs_port: int
    title: str
    dicom_port: int
    studies: tuple[str, ...]
    roots: str
    revocations: tuple[str, ...]
    certificate: str
    key: str
    peer: str


@dataclass(frozen=True, slots=True)
class Kos:
    """One study that may be asked for (``images.ports.ArchivedKos``)."""

    structure: str
    study_uid: str
    kos_uid: str
    state: str
    ins: Ins
    pacs: str
    kos: bytes


class _Archive:
    def __init__(self, held: Mapping[str, Kos]) -> None:
        self._held = held

    async def by_kos_uid(self, kos_uid: str) -> Kos | None:
        return self._held.get(kos_uid)


def main() -> None:
    """Serve until the standard input ends."""
    few_arenas()
    place = Place(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    event_loop.run(_serve(place))


def write_place(path: Path, place: Place) -> None:
    """For ``main``."""
    path.write_text(json.dumps(asdict(place)), "utf-8")


async def _serve(place: Place) -> None:
    state, clock = Path(place.state), SystemClock()
    peer = x509.load_pem_x509_certificate(Path(place.peer).read_bytes())  # noqa: ASYNC240 - nothing runs yet
    async with AsyncExitStack() as stack:
        desk = stack.enter_context(inbox.opened(state / "spool"))
        receiver = ReceiverSettings(
            {place.title: uids.AS_STORED}, frozenset((place.pacs_title,)), port=place.dicom_port
        )
        stack.enter_context(receiving(receiver, desk))
        link = PacsLink(Pacs(_PACS, "127.0.0.1", place.pacs_port, place.pacs_title))
        stack.callback(link.close)
        finder, source = PacsStudyFinder(link), PacsSeriesSource(link, desk, place.title)
        held = {one.kos_uid: one for one in [await _kos(finder, uid) for uid in place.studies]}
        cache = await _cache(stack, state, clock)
        transcoder = await stack.enter_async_context(worker_pool())
        await transcoder.warm()
        scratch = state / "scratch"
        scratch.mkdir()
        whitelist = Whitelist(clock.now(), (Domain("1", "localhost", "", "banc", written(peer.subject)),))

        async def current() -> Whitelist:
            return whitelist

        async def introspect(token: str) -> Introspection:
            return (
                Introspection(active=True, national_id="899700218896", profession="10") if token == TOKEN else INACTIVE
            )

        async def journal(access: Access) -> None:
            pass

        async def health() -> Mapping[str, bool]:
            return {}

        app = wado_app(
            base_path=BASE,
            archive=_Archive(held),
            read_manifest=read_manifest,
            choose_source=lambda kos: cache.source(kos, source, finder),
            choose_finder=lambda kos: finder,
            introspect=introspect,
            whitelist=current,
            professions=(),
            journal=journal,
            health=health,
            transcoder=transcoder,
            scratch=scratch,
            clock=clock,
        )
        trust = load_trust([Path(place.roots)], [Path(path) for path in place.revocations])
        tls = server_context(load_credential(Path(place.certificate), Path(place.key)), trust)
        secure = await stack.enter_async_context(serving(app, host="127.0.0.1", port=0, tls=tls))
        known = _Known(app, peer.public_bytes(Encoding.DER))
        clear = await stack.enter_async_context(serving(known, host="127.0.0.1", port=0, tls=None))
        _say({"tls": secure, "clear": clear, "kos": {kos.study_uid: kos.kos_uid for kos in held.values()}})
        await _obey(cache)


class _Known:
    """For the clear listener: the caller's certificate is taken as shown."""

    def __init__(self, app: ASGIApp, certificate: bytes) -> None:
        self._app = app
        self._certificate = certificate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {CLIENT_CERTIFICATE: {"der": self._certificate}}
        await self._app(scope, receive, send)


async def _cache(stack: AsyncExitStack, state: Path, clock: SystemClock) -> Cache:
    async def tell(code: str, reason: str) -> None:
        print(f"{code}: {reason}", file=sys.stderr)

    async def rejected(study_uid: str) -> Collection[str]:
        return ()

    folder = state / "cache"
    folder.mkdir()
    limits = Limits()
    kept = await stack.enter_async_context(
        store.opened(folder, own_key(folder / "key"), limits, clock, sealed=False, tell=tell)
    )
    return await stack.enter_async_context(sharing(kept, limits, clock, rejected))


async def _kos(finder: PacsStudyFinder, study_uid: str) -> Kos:
    study = await finder.find(study_uid)
    assert study is not None
    kos_uid = new_uid()
    return Kos("banc", study_uid, kos_uid, "current", _INS, _PACS, encode(_manifest(study, kos_uid)))


def _manifest(study: Study, kos_uid: str) -> Manifest:
    base = f"https://localhost{BASE}/studies/{study.study_uid}/series"
    series = tuple(
        ManifestSeries(one.series_uid, f"{base}/{one.series_uid}", one.modality, one.number, "", one.instances)
        for one in study.series
    )
    return Manifest(
        kos_uid=kos_uid,
        study_uid=study.study_uid,
        study_date=study.study_date,
        description="",
        ins=_INS,
        patient_name="PAT-TROIS^DOMINIQUE",
        birth_date="19790328",
        sex="F",
        birth_place="63220",
        requests=(),
        series=series,
        series_uid=new_uid(),
        created=SystemClock().now(),
    )


async def _obey(cache: Cache) -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := (await orders.readline()).decode().split():
        # What was just served may still be on its way into the cache.
        while cache.flights.count:  # noqa: ASYNC110 - a flight has no event for its end
            await asyncio.sleep(0.01)
        if order[0] == "forget":
            cache.forget(order[1])
            await cache.store.settle()
        _say("OK")


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
