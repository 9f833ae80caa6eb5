"""The measured box and what stands beside it, started for the time of a block."""

from __future__ import annotations

import json
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drimbox.bench.pixels import peers
from drimbox.bench.pixels.bare_http import Offered, write_offered
from drimbox.bench.pixels.client import Address
from drimbox.bench.pixels.images import Batch
from drimbox.bench.pixels.server import BASE, TOKEN, Place, write_place
from drimbox.bench.usage import family
from drimbox.foundation.errors import Misconfigured
from drimbox.images.media import KOS_HEADER
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust

TITLE = "DRIMBOX"
_PACS_TITLE = "PACS_A"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A default Orthanc, and the ports of those that it can move images to."""

    peer: PacsPeer
    state: Path
    box_port: int
    storescp_port: int
    bare_port: int

    @property
    def dimse(self) -> tuple[str, int]:
        return self.peer.ae_title, self.peer.port

    @property
    def pids(self) -> Sequence[int]:
        return (int((self.state / "orthanc.pid").read_text()),)

    @property
    def dicomweb(self) -> Address:
        token = b64encode(f"{self.peer.rest_user}:{self.peer.rest_password}".encode()).decode()
        port = int(self.peer.rest_url.rpartition(":")[2])
        return Address(port, "/dicom-web", (("Authorization", f"Basic {token}"),))

    def forget(self, batch: Batch) -> None:
        """Have it hold nothing of a study."""
        asked = json.dumps({"Level": "Study", "Query": {"StudyInstanceUID": batch.study_uid}}).encode()
        for one in json.loads(orthanc.rest(self.peer, "POST", "/tools/find", asked)):
            orthanc.rest(self.peer, "DELETE", f"/studies/{one}", timeout=600)


@contextmanager
def neighbours(folder: Path) -> Iterator[Neighbours]:
    """Orthanc as Debian ships it, empty. Raises ``Misconfigured``, ``Unavailable``."""
    ours, theirs, bare = (peers.free_port() for _ in range(3))
    known = (
        Destination(TITLE, "127.0.0.1", ours),
        Destination("STORESCP", "127.0.0.1", theirs),
        Destination("BARE", "127.0.0.1", bare),
        Destination("MOVESCU", "127.0.0.1", bare),
    )
    config = orthanc.OrthancConfig(folder, _PACS_TITLE, peers.free_port(), peers.free_port(), known)
    with orthanc.orthanc(config) as peer:
        yield Neighbours(peer, folder, ours, theirs, bare)


class Keys:
    """Certificates of both sides, from an authority made for this in a folder."""

    def __init__(self, folder: Path) -> None:
        self.authority = TestAuthority(folder)
        unit, name = "318751275100020", "BANC"
        self.server = self.authority.issue(
            Profile.SSL_SERV, "server", common_name="localhost", unit=unit, organisation=name, hosts=("localhost",)
        )
        self.peer = self.authority.issue(
            Profile.ORG_AUTH_CLI, "peer", common_name="db7.example", unit=unit, organisation=name
        )
        trust = load_trust([self.authority.roots], self.authority.revocation_lists)
        self._context = client_context(trust, load_credential(self.peer.certificate, self.peer.key))

    def context(self) -> ssl.SSLContext:
        return self._context


class Box:
    """The images' side of a box, running."""

    def __init__(self, process: subprocess.Popen[bytes], told: dict[str, object], keys: Keys) -> None:
        self._process = process
        self._told = told
        self._keys = keys

    @property
    def pid(self) -> int:
        return self._process.pid

    def pids(self) -> Sequence[int]:
        """It and its workers."""
        return family(self.pid)

    def address(self, batch: Batch, *, tls: bool) -> Address:
        """Where a study is asked for."""
        kos = self._told["kos"]
        assert isinstance(kos, dict)
        headers = (("Authorization", f"Bearer {TOKEN}"), (KOS_HEADER, kos[batch.study_uid]))
        port = self._told["tls" if tls else "clear"]
        assert isinstance(port, int)
        return Address(port, BASE, headers, self._keys.context() if tls else None)

    def forget(self, batch: Batch) -> None:
        """Empty its cache of a study."""
        self._order(f"forget {batch.study_uid}")

    def settle(self) -> None:
        """Wait until all that it retrieved is in its cache."""
        self._order("settle")

    def _order(self, order: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n".encode())
        self._process.stdin.flush()
        self._process.stdout.readline()


@contextmanager
def box(folder: Path, near: Neighbours, keys: Keys, batches: Sequence[Batch]) -> Iterator[Box]:
    """A box that may serve these studies, which the PACS holds. Raises ``Misconfigured``."""
    folder.mkdir(parents=True)
    place = Place(
        state=str(folder),
        pacs_title=_PACS_TITLE,
        pacs_port=near.peer.port,
        title=TITLE,
        dicom_port=near.box_port,
        studies=tuple(batch.study_uid for batch in batches),
        roots=str(keys.authority.roots),
        revocations=tuple(map(str, keys.authority.revocation_lists)),
        certificate=str(keys.server.certificate),
        key=str(keys.server.key),
        peer=str(keys.peer.certificate),
    )
    write_place(folder / "place.json", place)
    with _started("server", folder, folder / "place.json") as (process, told):
        yield Box(process, told, keys)


@dataclass(frozen=True, slots=True)
class Bare:
    """The bare server of files, running: its ports."""

    clear: int
    secure: int
    keys: Keys

    def address(self, *, tls: bool) -> Address:
        return Address(self.secure, "", (), self.keys.context()) if tls else Address(self.clear, "")


@contextmanager
def bare(folder: Path, keys: Keys, files: Mapping[str, Sequence[Path]]) -> Iterator[Bare]:
    """What sends files as they lie, those of each path. Raises ``Misconfigured``."""
    offered = Offered(
        files={path: tuple(map(str, some)) for path, some in files.items()},
        roots=str(keys.authority.roots),
        revocations=tuple(map(str, keys.authority.revocation_lists)),
        certificate=str(keys.server.certificate),
        key=str(keys.server.key),
    )
    folder.mkdir(parents=True)
    write_offered(folder / "offered.json", offered)
    with _started("bare_http", folder, folder / "offered.json") as (_, told):
        ports = {name: int(str(port)) for name, port in told.items()}
        yield Bare(ports["clear"], ports["tls"], keys)


@contextmanager
def _started(module: str, folder: Path, file: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, object]]]:
    """A process of ours that tells in one line where it is, and ends with its standard input."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            peers.ours(module, file),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=peers.environment(),
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Misconfigured(f"La passerelle mesurée ne démarre pas (voir {folder / 'log'}).", code="bench-box")
        yield process, json.loads(line)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
