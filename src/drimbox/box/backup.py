"""``drimbox backup`` and ``drimbox restore``: everything of a box that cannot be made again, as one file (DB.SO.24)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from drimbox import __version__
from drimbox.box.operator import on_dsn, shell_user
from drimbox.box.settings import Settings
from drimbox.box.state import alone, database_of
from drimbox.foundation.clock import SystemClock, iso_utc
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.record.audit import Event, Journal, Kind, Object, Thing
from drimbox.store import dumping
from drimbox.store.backup_file import DATABASE, KEY_NAME, Backup, read, writing

# Keys of caches: what they seal is fetched again.
_REMADE = frozenset({"cache.key", "consumer-cache.key"})


def made(settings: Settings, target: Path) -> str:
    """Back up a box, running or not; says what was written. Raises ``Refused``, ``Misconfigured``, ``Unavailable``."""
    clock = SystemClock()
    tools = _tools(settings)
    with database_of(settings) as dsn:
        told = {
            "product": "drimbox",
            "version": __version__,
            "box": settings.box.name,
            "environment": settings.box.environment,
            "schema": dumping.schema_of(dsn),
            "postgresql": dumping.server_version(dsn),
            "made_at": iso_utc(clock.now()),
        }
        with writing(target, clock.now().timestamp()) as file:
            file.add(DATABASE, dumping.dump(dsn, tools))
            # After the dump: a key is made before the first row that needs it.
            for name, content in _keys(settings).items():
                file.add(name, [content])
            digest = file.finish(told)
        _tell(dsn, Kind.BACKUP_MADE, target.name, digest)
    return f"Sauvegarde faite : {target.name}, {target.stat().st_size} octets\nempreinte {digest}"


def checked(path: Path) -> str:
    """Read a backup to its last octet; says what it is. Raises ``Refused``, ``Misconfigured``."""
    found = read(path)
    return f"Sauvegarde entière : {_described(found)}\nempreinte {found.digest}"


def restored(settings: Settings, path: Path) -> str:
    """A backup into a box that is not running and has nothing yet: all of it or nothing; says what was done.

    Raises ``Refused``: ``backup-altered``, ``backup-format``, ``backup-schema``, ``backup-environment``, and
    ``not-empty`` for a database or keys that are there. ``Misconfigured``, ``Unavailable``.
    """
    found = read(path)
    _check(settings, found)
    tools = _tools(settings)
    settings.box.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(alone(settings.box.state_dir))
        dsn = stack.enter_context(database_of(settings))
        if not dumping.is_empty(dsn):
            raise Refused("La base n'est pas vide : une restauration ne remplace rien", code="not-empty")
        placed = _place_keys(settings, found.keys())
        try:
            dumping.restore(dsn, tools, found.dump())
        except BaseException:
            for key in placed:
                key.unlink(missing_ok=True)
            raise
        _tell(dsn, Kind.BACKUP_RESTORED, path.name, found.digest)
    return (
        f"Restauré : {_described(found)}\n"
        "Avant de remettre la passerelle en service : docs/backup.md, « Après une restauration »."
    )


def _check(settings: Settings, found: Backup) -> None:
    if found.told.get("environment") != settings.box.environment:
        raise Refused(
            f"Cette sauvegarde est d'une DRIMbox de {found.told.get('environment')} : test et production ne se "
            "mélangent pas",
            code="backup-environment",
        )
    if found.told.get("schema") not in dumping.known_schemas():
        raise Refused(
            f"Cette sauvegarde vient d'un autre schéma ({found.told.get('schema')}) que ceux de ce programme : "
            f"installez drimbox {found.told.get('version')}",
            code="backup-schema",
        )


def _keys(settings: Settings) -> Mapping[str, bytes]:
    """The keys that the box made for itself, but those of its caches, by their path in the state folder."""
    folder = settings.box.state_dir / "keys"
    try:
        return {
            f"keys/{path.name}": path.read_bytes()
            for path in sorted(folder.glob("*.key"))
            if path.name not in _REMADE and KEY_NAME.fullmatch(f"keys/{path.name}")
        }
    except OSError as error:
        raise Misconfigured(f"Clé illisible dans {folder} : {error.strerror}", code="file") from error


def _place_keys(settings: Settings, keys: Mapping[str, bytes]) -> list[Path]:
    """Put each key in its place; those that were not there before. Raises ``Refused`` (``not-empty``)."""
    placed: list[Path] = []
    places = {settings.box.state_dir / name: content for name, content in keys.items()}
    if any(place.exists() and place.read_bytes() != content for place, content in places.items()):
        raise Refused("Le dossier d'état a déjà d'autres clés : une restauration ne remplace rien", code="not-empty")
    try:
        for place, content in places.items():
            if not place.exists():
                _write_key(place, content)
                placed.append(place)
    except OSError as error:
        for place in placed:
            place.unlink(missing_ok=True)
        raise Misconfigured(f"Clé impossible à écrire : {error.strerror}", code="file") from error
    return placed


def _write_key(place: Path, content: bytes) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = place.with_name(f"{place.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(place)


def _tools(settings: Settings) -> Path:
    return settings.database.tools_dir or dumping.bundled()


def _described(found: Backup) -> str:
    told: Mapping[str, Any] = found.told
    names = ", ".join(part.name for part in found.parts)
    return f"DRIMbox {told.get('box')}, faite le {told.get('made_at')} par drimbox {told.get('version')} ({names})"


def _tell(dsn: str, kind: Kind, name: str, digest: str) -> None:
    """In the journal, by whom and which: who has the file has everything."""
    event = Event(kind, shell_user(), (Object(Thing.SYSTEM, name, f"empreinte {digest}"),))
    on_dsn(dsn, lambda pool: Journal(pool).write(None, event))
