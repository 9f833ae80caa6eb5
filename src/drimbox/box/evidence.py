"""``drimbox evidence``: what a habilitation file asks to see of a box, in one signed ZIP, without a secret.

Facts of the configuration, the flows (control point C17), the data of the PSC trust circle, every certificate by name,
what TLS the listeners speak, the state of the whitelist and of the revocation lists, the verification of the journal,
versions. ``SHA256SUMS`` covers every file, and ``SHA256SUMS.p7s`` (CMS, detached) is its signature by the seal (ORG
SIGN) of the first structure: ``openssl cms -verify -binary -inform DER -in SHA256SUMS.p7s -content SHA256SUMS ...``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
import platform
import secrets
import ssl
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from pydantic import BaseModel

from drimbox import __version__
from drimbox.box import journal, registration, trust_command, whitelist_command
from drimbox.box.console import setting_lines
from drimbox.box.flows import flows
from drimbox.box.operator import on_database, shell_user
from drimbox.box.services import credential
from drimbox.box.settings import Settings
from drimbox.box.settings.common import KeyPair
from drimbox.flows import Direction, Flow, showing
from drimbox.foundation.clock import PARIS, SystemClock
from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.record.audit import Event, Journal, Kind, Object, Thing
from drimbox.trust import names
from drimbox.trust.keystore import Credential, read_certificates, read_file
from drimbox.trust.probe import Probe, probed
from drimbox.trust.token import Tokens

_MAX_ATTACHED = 64 * 2**20
_SUMS = "SHA256SUMS"


def written(settings: Settings, target: Path, attached: Sequence[Path] = (), *, probe: bool = True) -> str:
    """Make the ZIP: whole, or not there. Raises ``Misconfigured`` (``file``, ``evidence-attached``)."""
    made_at = SystemClock().now()
    parts = dict(_parts(settings, made_at, probe=probe))
    for path in attached:
        parts[f"pieces/{_attached_name(path)}"] = _attached(path)
    sums = "".join(f"{hashlib.sha256(parts[name]).hexdigest()}  {name}\n" for name in sorted(parts)).encode()
    parts[_SUMS] = sums
    signature, told = _signed(settings, sums)
    if signature:
        parts[f"{_SUMS}.p7s"] = signature
    content = _zipped(parts, made_at)
    _store(target, content)
    digest = hashlib.sha256(content).hexdigest()
    event = Event(
        Kind.EVIDENCE_EXPORTED, shell_user(), (Object(Thing.DOCUMENT, f"sha256:{digest}", f"{len(parts)} files"),)
    )
    on_database(settings, lambda pool: Journal(pool).write(None, event))
    return f"{len(parts)} pièces dans {target} ; {told}\nSHA-256 du fichier : {digest}"


def _parts(settings: Settings, made_at: dt.datetime, *, probe: bool) -> Iterator[tuple[str, bytes]]:
    """Every piece by its name. One that cannot be made says why in its place: it is never left out in silence."""
    table = flows(settings)
    yield "LISEZMOI.txt", _readme(settings, made_at).encode()
    yield "versions.json", _json(_versions())
    yield "configuration.txt", "\n".join(_configuration(settings)).encode()
    yield "flux.md", showing.markdown(table).encode()
    yield "flux.json", showing.as_json(table).encode()
    yield "certificats.json", _json(list(certificates(settings)))
    yield "confiance.txt", _told(lambda: trust_command.shown(settings))
    yield "psc.json", registration.as_json(registration.registration(settings)).encode()
    yield "liste-blanche.json", _told(lambda: whitelist_command.shown(settings, as_json=True))
    yield "journal.txt", _told(lambda: journal.verified(settings, "")[0])
    if probe:
        yield "tls.json", _json(list(_tls(table)))


def _told(work: Any) -> bytes:
    try:
        return str(work()).encode()
    except DrimboxError as error:
        return f"Pièce impossible à établir : {error.reason} ({error.code})".encode()


def _configuration(settings: Settings) -> Iterator[str]:
    """Every setting in force. Secrets are files, of which only the path is known."""
    for line in setting_lines(settings):
        yield f"{line.section}.{line.name} = {line.value}"


def certificates(settings: Settings) -> Iterator[Mapping[str, str]]:
    """Every certificate of the configuration by its names, with the place that uses it; never a key."""
    tokens = Tokens()
    for place, value in _walk(settings, ""):
        if isinstance(value, KeyPair):
            yield from _named(place, partial(_of_pair, value, tokens))
        elif isinstance(value, Path) and place.rpartition(".")[2].rstrip("0123456789[]") in ("roots", "client_roots"):
            yield from _named(place, partial(read_certificates, value))


def _of_pair(pair: KeyPair, tokens: Tokens) -> tuple[x509.Certificate]:
    return (pair.source.read(tokens).certificate,)


def _named(place: str, read: Callable[[], Sequence[x509.Certificate]]) -> Iterator[Mapping[str, str]]:
    try:
        found = read()
    except DrimboxError as error:
        yield {"place": place, "problem": error.reason}
        return
    for certificate in found:
        yield {
            "place": place,
            "subject": names.written(certificate.subject),
            "issuer": names.written(certificate.issuer),
            "serial": f"{certificate.serial_number:X}",
            "not_before": certificate.not_valid_before_utc.isoformat(),
            "not_after": certificate.not_valid_after_utc.isoformat(),
            "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        }


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, KeyPair | Path):
        yield place, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name), f"{place}.{name}" if place else name)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _walk(item, f"{place}[{index}]")


def _tls(table: Sequence[Flow]) -> Iterator[Mapping[str, object]]:
    """What each encrypted listener of ours speaks now."""
    for flow in table:
        if flow.direction is not Direction.IN or not flow.encryption or not flow.port:
            continue
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(flow.host, flow.host)  # noqa: S104
        found: Probe = probed(host, flow.port)
        yield {
            "listener": flow.name,
            "where": flow.where,
            "versions": found.versions,
            "tls12_suites": found.suites,
            "tls13_suite": found.suite13,
            "error": found.error,
        }


def _versions() -> Mapping[str, object]:
    return {
        "drimbox": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {d.metadata["Name"]: d.version for d in sorted(distributions(), key=lambda d: d.metadata["Name"])},
    }


def _readme(settings: Settings, made_at: dt.datetime) -> str:
    return (
        f"Pièces techniques de la DRIMbox {settings.box.name} pour un dossier d'habilitation.\n"
        f"Établies le {made_at.astimezone(PARIS):%d/%m/%Y à %H:%M} par drimbox {__version__} "
        f"(python {sys.version_info.major}.{sys.version_info.minor}), environnement {settings.box.environment}.\n\n"
        "configuration.txt   réglages en vigueur ; les secrets n'y sont que des noms de fichiers\n"
        "flux.md, flux.json  tous les flux, leur chiffrement, le point de contrôle C17\n"
        "certificats.json    certificats par sujet, émetteur, dates et empreinte ; aucune clé\n"
        "confiance.txt       autorités reconnues et listes de révocation\n"
        "psc.json            données d'enregistrement Pro Santé Connect, rôles\n"
        "liste-blanche.json  liste blanche en service\n"
        "journal.txt         vérification de l'intégrité du journal\n"
        "tls.json            versions et suites TLS que les écoutes acceptent, au moment de l'export\n"
        "versions.json       versions des logiciels\n"
        "pieces/             rapports joints\n"
        "SHA256SUMS          empreinte de chaque pièce ; SHA256SUMS.p7s en est la signature (CMS)\n\n"
        "Aucune donnée de santé, aucun secret, aucune clé privée.\n"
    )


def _signed(settings: Settings, sums: bytes) -> tuple[bytes, str]:
    """The detached signature by the first structure's seal, and what to say of it; without a usable seal, why."""
    section = settings.structures[0]
    try:
        seal: Credential = credential(section.sign)
    except Misconfigured as error:
        return b"", f"NON SIGNÉ : {error.reason}"
    builder = PKCS7SignatureBuilder().set_data(sums).add_signer(seal.certificate, seal.key, hashes.SHA256())
    for issuer in seal.chain:
        builder = builder.add_certificate(issuer)
    options = [PKCS7Options.DetachedSignature, PKCS7Options.Binary]
    return builder.sign(Encoding.DER, options), f"signé par {seal.subject_dn}"


def _attached_name(path: Path) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in path.name)[:100]


def _attached(path: Path) -> bytes:
    data = read_file(path)
    if len(data) > _MAX_ATTACHED:
        raise Misconfigured(f"La pièce jointe {path.name} est démesurée (64 Mio au plus)", code="evidence-attached")
    if b"PRIVATE KEY-----" in data:
        raise Misconfigured(
            f"La pièce jointe {path.name} contient une clé privée : elle n'est pas prise", code="evidence-attached"
        )
    return data


def _zipped(parts: Mapping[str, bytes], made_at: dt.datetime) -> bytes:
    buffer = io.BytesIO()
    at = made_at.astimezone(PARIS).timetuple()[:6]
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(parts):
            archive.writestr(zipfile.ZipInfo(name, at), parts[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _store(target: Path, content: bytes) -> None:
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Misconfigured(f"Le fichier {target} ne peut pas être écrit : {error.strerror}", code="file") from error


def _json(content: object) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode()
