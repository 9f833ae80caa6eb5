"""The files of the OHIF viewer: fetched once from npm, verified, reduced to what is used, then served as they are.

The registry's package holds the viewer already built. Its integrity is pinned here, so that nothing else is ever served
to a browser; the neural-network runtime and the microscopy viewer, which the consumer does not use, are left out.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import mimetypes
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drimbox.foundation.errors import Misconfigured

PACKAGE = "@ohif/app@3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="

_MARK = ".installed"
_MAX_BYTES = 512 * 2**20
_MAX_FILES = 2000
_UNUSED_FOLDERS = ("ort/", "dicom-microscopy-viewer/", "customizations/")
# Pages, workers and settings of the stand-alone viewer: the consumer brings its own page and its own settings.
_UNUSED_FILES = re.compile(
    r"index\.html|app-config\.js|.*\.json|sw\.js|init-service-worker\.js|google\.js|oidc-client\.min\.js"
    r"|silent-refresh\.html|polyfill\.min\.js|es6-shim\.min\.js|_headers|_redirects|assets/(?!images/).*"
)
# The names by which our French finds OHIF's translation.
_TRANSLATION = (b"rspackChunk", b"i18nextLng", b"addLocales")
_COMPRESSED = frozenset({".js", ".css", ".wasm", ".svg"})
_MEDIA_TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".woff2": "font/woff2", ".css": "text/css"}
_HASHED = re.compile(r"(^|\.)[0-9a-f]{16}\.(js|wasm|woff2)$")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file to serve; ``compressed`` is its gzip form; ``lasting`` says that its name changes with its content."""

    path: Path
    media_type: str
    compressed: Path | None
    lasting: bool


@dataclass(frozen=True, slots=True)
class ViewerFiles:
    """The installed viewer: its files by URL path below the root, and its entry points."""

    files: Mapping[str, StaticFile]
    script: str
    style: str


def install_viewer(folder: Path, *, npm: str = "npm", timeout: float = 600) -> bool:
    """Put the viewer's files in ``folder``; False when they were there already.

    Raises ``Misconfigured``: ``viewer-npm`` when npm is missing or cannot fetch, ``viewer-integrity`` when what it
    fetched is not the pinned package, ``viewer-language`` when our French would not take hold of it.
    """
    if _installed(folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".viewer-", dir=folder.parent) as scratch:
        package = _fetched(Path(scratch), npm, timeout)
        _verify(package)
        fresh = Path(scratch) / "viewer"
        _extract(package, fresh)
        _translatable(fresh)
        _compress(fresh)
        (fresh / _MARK).write_text(f"{PACKAGE}\n{INTEGRITY}\n", "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    return True


def load_viewer(folder: Path) -> ViewerFiles:
    """The files of an installed viewer. Raises ``Misconfigured`` (``viewer-missing``) when they are not there."""
    scripts = sorted(p.name for p in folder.glob("app.bundle.*.js")) if _installed(folder) else []
    if len(scripts) != 1 or not (folder / "app.bundle.css").is_file():
        raise Misconfigured(
            f"La visionneuse n'est pas installée dans {folder} : lancez « drimbox viewer install »",
            code="viewer-missing",
        )
    files: dict[str, StaticFile] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".gz" and path.name != _MARK:
            compressed = path.with_name(f"{path.name}.gz")
            files[path.relative_to(folder).as_posix()] = StaticFile(
                path=path,
                media_type=_MEDIA_TYPES.get(path.suffix)
                or mimetypes.guess_type(path.name)[0]
                or "application/octet-stream",
                compressed=compressed if compressed.is_file() else None,
                lasting=_HASHED.search(path.name) is not None,
            )
    return ViewerFiles(files, f"/{scripts[0]}", "/app.bundle.css")


def _installed(folder: Path) -> bool:
    try:
        return INTEGRITY in (folder / _MARK).read_text("utf-8").split()
    except OSError:
        return False


def _fetched(scratch: Path, npm: str, timeout: float) -> Path:
    command = [npm, "pack", PACKAGE, "--pack-destination", str(scratch)]
    try:
        # No shell, a fixed argument list; npm is looked up in PATH as every tool of the operator is.
        subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=timeout, env=_npm_env())  # noqa: S603
    except FileNotFoundError as error:
        raise Misconfigured("npm est introuvable : installez-le (apt-get install npm)", code="viewer-npm") from error
    except (subprocess.SubprocessError, OSError) as error:
        raise Misconfigured(
            f"npm n'a pas pu télécharger {PACKAGE} : vérifiez l'accès au registre npm", code="viewer-npm"
        ) from error
    found = list(scratch.glob("*.tgz"))
    if len(found) != 1:
        raise Misconfigured(f"npm n'a pas livré {PACKAGE}", code="viewer-npm")
    return found[0]


def _npm_env() -> dict[str, str]:
    return {**os.environ, "npm_config_ignore_scripts": "true", "npm_config_update_notifier": "false"}


def _verify(package: Path) -> None:
    with package.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        raise Misconfigured(
            f"{PACKAGE} téléchargé n'est pas celui attendu (empreinte différente)", code="viewer-integrity"
        )


def _extract(package: Path, folder: Path) -> None:
    """Write the wanted regular files, and nothing outside ``folder``, whatever the names in the archive."""
    total = count = 0
    with tarfile.open(package, "r:gz") as archive:
        for member in archive:
            name = _wanted(member.name)
            if name is None or not member.isreg():
                continue
            total, count = total + member.size, count + 1
            if total > _MAX_BYTES or count > _MAX_FILES:
                raise Misconfigured(f"{PACKAGE} est plus gros qu'attendu", code="viewer-integrity")
            source = archive.extractfile(member)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source is not None:
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)


def _translatable(folder: Path) -> None:
    """Our French takes hold of OHIF's own translation (``ohif-french.js``): it must be where that looks for it."""
    bundle = b"".join(path.read_bytes() for path in folder.glob("app.bundle.*.js"))
    if not all(name in bundle for name in _TRANSLATION):
        raise Misconfigured(f"{PACKAGE} ne peut pas être mis en français : il a changé", code="viewer-language")


def _wanted(name: str) -> str | None:
    """The path below ``dist/`` of a member that is served; None for every other one, absolute and ``..`` included."""
    if name == "package/LICENSE":
        return "LICENSE"
    parts = PurePosixPath(name).parts
    if len(parts) < 3 or parts[:2] != ("package", "dist") or ".." in parts or "\\" in name or name.startswith("/"):
        return None
    inside = "/".join(parts[2:])
    if inside.startswith(_UNUSED_FOLDERS) or _UNUSED_FILES.fullmatch(inside):
        return None
    return inside


def _compress(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix in _COMPRESSED and path.stat().st_size > 1024:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 6, mtime=0))
