"""Debian's Orthanc as the PACS of a sandbox site: configured, started, filled once, stopped.

Its settings are the defaults but for what names it, its neighbours and its folder: it must behave as a hospital's own.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.sandbox.pacs.peer import Destination, PacsPeer

_PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
_USER = "sandbox"


@dataclass(frozen=True, slots=True)
class OrthancTls:
    """TLS for DICOM, both ways and with client certificates; PEM files.

    HTTP stays in clear: Debian's Orthanc 1.10.1 does not survive its first HTTPS request.
    """

    certificate: Path
    key: Path
    authorities: Path


@dataclass(frozen=True, slots=True)
class OrthancConfig:
    """``state`` is a folder of its own, kept from start to start; ``known`` may ask it and be moved to."""

    state: Path
    ae_title: str
    dicom_port: int
    http_port: int
    known: Sequence[Destination] = ()
    start_timeout: float = 30.0
    tls: OrthancTls | None = None


def installed() -> bool:
    """Are Orthanc and its DICOMweb plugin on this machine?"""
    return _program() is not None and _dicomweb() is not None


@contextmanager
def orthanc(config: OrthancConfig, studies: Iterable[Path] = ()) -> Iterator[PacsPeer]:
    """Orthanc for the time of the block; ``studies`` are the files that it is given at its first start.

    Raises ``Misconfigured`` where it is not installed or a port is taken, ``Unavailable`` where it does not start.
    """
    program = _program()
    if program is None or _dicomweb() is None:
        raise Misconfigured("Orthanc n'est pas installé (paquets orthanc et orthanc-dicomweb).", code="orthanc-missing")
    config.state.mkdir(parents=True, exist_ok=True)
    stop_leftover(config.state)
    peer = PacsPeer(
        ae_title=config.ae_title,
        host="127.0.0.1",
        port=config.dicom_port,
        rest_url=f"http://127.0.0.1:{config.http_port}",
        rest_user=_USER,
        rest_password=secrets.token_urlsafe(18),
    )
    with _process(program, config, peer) as process:
        _wait_ready(process, peer, config)
        _fill_once(config.state, peer, studies)
        yield peer


def rest(peer: PacsPeer, method: str, path: str, body: bytes | None = None, timeout: float = 60.0) -> bytes:
    """One call of Orthanc's REST interface. Raises ``Unavailable``."""
    host, port = peer.rest_url.removeprefix("http://").split(":")
    with closing(HTTPConnection(host, int(port), timeout=timeout)) as connection:
        return _call(connection, peer, method, path, body)


def _call(connection: HTTPConnection, peer: PacsPeer, method: str, path: str, body: bytes | None) -> bytes:
    token = b64encode(f"{peer.rest_user}:{peer.rest_password}".encode()).decode()
    try:
        connection.request(method, path, body, {"Authorization": f"Basic {token}"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, HTTPException) as error:
        raise Unavailable(f"Orthanc ({peer.ae_title}) ne répond pas.", code="orthanc-silent") from error
    if response.status != 200:
        reason = f"Orthanc ({peer.ae_title}) répond {response.status} à {method} {path.split('?')[0]}."
        raise Unavailable(reason, code="orthanc-refuses", peer_code=str(response.status))
    return answer


def _program() -> str | None:
    # Debian puts it where only root's PATH looks.
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")


def _dicomweb() -> Path | None:
    found = (path for folder in _PLUGINS for path in sorted(folder.glob("libOrthancDicomWeb.so*")))
    return next(found, None)


def _settings(config: OrthancConfig, peer: PacsPeer) -> dict[str, Any]:
    return {
        "Name": config.ae_title,
        "StorageDirectory": str(config.state / "storage"),
        "IndexDirectory": str(config.state / "storage"),
        "Plugins": [str(_dicomweb())],
        "DicomAet": config.ae_title,
        "DicomPort": config.dicom_port,
        "DicomModalities": {
            node.ae_title: {
                "AET": node.ae_title,
                "Host": node.host,
                "Port": node.port,
                "UseDicomTls": config.tls is not None,
            }
            for node in config.known
        },
        "DicomCheckModalityHost": True,
        "HttpPort": config.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {peer.rest_user: peer.rest_password},
        **(_tls_settings(config.tls) if config.tls is not None else {}),
    }


def _tls_settings(tls: OrthancTls) -> dict[str, Any]:
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(tls.certificate),
        "DicomTlsPrivateKey": str(tls.key),
        "DicomTlsTrustedCertificates": str(tls.authorities),
        "DicomTlsRemoteCertificateRequired": True,
    }


@contextmanager
def _process(program: str, config: OrthancConfig, peer: PacsPeer) -> Iterator[subprocess.Popen[bytes]]:
    file = config.state / "orthanc.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(_settings(config, peer), indent=2))
    # Faster with TCP_NODELAY, but a hospital's would not have it.
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    with (config.state / "orthanc.log").open("wb") as log:
        # A session of its own: the Ctrl-C of a terminal is for us, and we stop it in order.
        process = subprocess.Popen(
            [program, str(file)], cwd=config.state, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    pid = config.state / "orthanc.pid"
    pid.write_text(str(process.pid))
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        pid.unlink(missing_ok=True)


def stop_leftover(state: Path) -> None:
    """An Orthanc of an earlier start that was not stopped (its parent was killed) holds the folder and the ports."""
    file = state / "orthanc.pid"
    if not file.exists():
        return
    pid = int(file.read_text() or 0)
    if _is_ours(pid, state):
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            if not _is_ours(pid, state):
                break
            time.sleep(0.1)
    file.unlink(missing_ok=True)


def _is_ours(pid: int, state: Path) -> bool:
    """Is this process number still that of the Orthanc of this folder, and not someone else's by now?"""
    try:
        return str(state / "orthanc.json").encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _wait_ready(process: subprocess.Popen[bytes], peer: PacsPeer, config: OrthancConfig) -> None:
    end = time.monotonic() + config.start_timeout
    while time.monotonic() < end:
        if process.poll() is not None:
            log = config.state / "orthanc.log"
            reason = f"Orthanc ne démarre pas (ports {config.dicom_port} et {config.http_port} libres ? voir {log})."
            raise Misconfigured(reason, code="orthanc-start")
        with suppress(Unavailable):
            rest(peer, "GET", "/system", timeout=2)
            return
        time.sleep(0.05)
    raise Unavailable("Orthanc ne répond pas après son démarrage.", code="orthanc-silent")


def _fill_once(state: Path, peer: PacsPeer, studies: Iterable[Path]) -> None:
    """Gives it the files, unless an earlier start has done so to the end."""
    done = state / "filled"
    if done.exists():
        return
    host, port = peer.rest_url.removeprefix("http://").split(":")
    with closing(HTTPConnection(host, int(port), timeout=60)) as connection:
        for path in studies:
            _call(connection, peer, "POST", "/instances", path.read_bytes())
    done.touch()
