"""Fetching the viewer: only the pinned package, only wanted files, nowhere but in its folder."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from consumer_world import Site
from hypothesis import given, settings
from hypothesis import strategies as st

from drimbox.consumer import viewer_files
from drimbox.consumer.viewer_files import install_viewer, load_viewer
from drimbox.foundation.errors import Misconfigured


def npm(tmp_path: Path, package: bytes | None, status: int = 0) -> str:
    """A stand-in for npm that delivers ``package``."""
    tool = tmp_path / "npm"
    (tmp_path / "package").write_bytes(package or b"")
    deliver = f'cp "{tmp_path}/package" "$4/ohif-app.tgz"' if package is not None else "true"
    tool.write_text(f"#!/bin/sh\n{deliver}\nexit {status}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return str(tool)


def test_what_is_not_the_pinned_package_is_never_installed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/dist/app.bundle.0123456789abcdef.js"), io.BytesIO())
    with pytest.raises(Misconfigured) as caught:
        install_viewer(tmp_path / "viewer", npm=npm(tmp_path, buffer.getvalue()))
    assert caught.value.code == "viewer-integrity"
    assert not (tmp_path / "viewer").exists()


def test_a_viewer_that_our_french_would_not_take_hold_of_is_never_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        bundle = b"globalThis.rspackChunk; i18nextLng"
        member = tarfile.TarInfo("package/dist/app.bundle.0123456789abcdef.js")
        member.size = len(bundle)
        archive.addfile(member, io.BytesIO(bundle))
    digest = base64.b64encode(hashlib.sha512(buffer.getvalue()).digest()).decode()
    monkeypatch.setattr(viewer_files, "INTEGRITY", f"sha512-{digest}")
    with pytest.raises(Misconfigured) as caught:
        install_viewer(tmp_path / "viewer", npm=npm(tmp_path, buffer.getvalue()))
    assert caught.value.code == "viewer-language"
    assert not (tmp_path / "viewer").exists()


@pytest.mark.parametrize(("package", "status"), [(None, 0), (None, 1), (b"x", 1)])
def test_an_npm_that_fails_is_told_so(tmp_path: Path, package: bytes | None, status: int) -> None:
    with pytest.raises(Misconfigured) as caught:
        install_viewer(tmp_path / "viewer", npm=npm(tmp_path, package, status))
    assert caught.value.code == "viewer-npm"
    with pytest.raises(Misconfigured, match="npm est introuvable"):
        install_viewer(tmp_path / "viewer", npm=str(tmp_path / "nowhere"))


def test_a_viewer_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="drimbox viewer install"):
        load_viewer(tmp_path / "viewer")


def test_the_installed_viewer_is_whole_and_lean(viewer_dir: Path) -> None:
    viewer = load_viewer(viewer_dir)
    assert install_viewer(viewer_dir) is False
    viewer_files._translatable(viewer_dir)
    assert viewer.files[viewer.script.removeprefix("/")].lasting
    assert sum(f.path.stat().st_size for f in viewer.files.values()) < 60 * 2**20
    names = set(viewer.files)
    assert any(name.endswith(".wasm") for name in names)
    assert not any(name.startswith(("ort/", "dicom-microscopy-viewer/")) for name in names)
    for unwanted in ("index.html", "app-config.js", "sw.js", "google.js", "oidc-client.min.js"):
        assert unwanted not in names


@settings(deadline=None)
@given(st.text(st.sampled_from("ab./\\-_"), max_size=20))
def test_no_name_in_an_archive_leads_out_of_the_folder(name: str) -> None:
    for prefix in ("", "package/", "package/dist/", "/package/dist/", "package/dist/../", "package//dist/"):
        wanted = viewer_files._wanted(prefix + name)
        if wanted is not None:
            assert os.path.normpath(os.path.join("/root", wanted)).startswith("/root/")


async def test_only_installed_files_are_served_and_compressed_ones_when_wanted(site: Site) -> None:
    browser = site.browser()
    viewer = load_viewer_of(site)
    plain = await browser.get(viewer.script, Accept_Encoding="identity")
    squeezed = await browser.get(viewer.script, Accept_Encoding="gzip")
    assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert squeezed.headers["Content-Encoding"] == "gzip"
    assert len(squeezed.body) < len(plain.body) / 3
    style = await browser.get(viewer.style)
    again = await browser.get(viewer.style, If_None_Match=style.headers["ETag"])
    assert again.status == 304
    for path in (
        "/.installed",
        "/../settings.py",
        "/%2e%2e/settings.py",
        "/index.html",
        "/app.bundle.css.gz",
        "/statique/x",
    ):
        assert (await browser.get(path)).status == 404, path


def load_viewer_of(site: Site) -> viewer_files.ViewerFiles:
    desk = site.app._app.state.desk  # type: ignore[attr-defined]
    viewer: viewer_files.ViewerFiles = desk.viewer
    return viewer
