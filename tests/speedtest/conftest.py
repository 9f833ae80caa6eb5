"""A configuration of a box, and a real PACS with two small studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from speedtest_site import PLAN, TEMPLATE, Configure, Held, free_port

from drimbox.bench.pixels import images, storing
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.peer import Destination
from drimbox.sandbox.pki import Profile, TestAuthority


@pytest.fixture
def configure(authority: TestAuthority, tmp_path: Path, dsn: str) -> Configure:
    """Writes a box's TOML file for a PACS; ``more`` are further lines of its section."""
    pair = authority.issue(
        Profile.SSL_SERV, "speedtest", common_name="DRIMbox", unit="1750803447", organisation="S", hosts=("localhost",)
    )

    (tmp_path / "database").write_text(dsn)

    def write(*, pacs_port: int, dicom_port: int, more: str = "") -> Path:
        file = tmp_path / "box.toml"
        named = TEMPLATE.replace("{pair}.pem", str(pair.certificate)).replace("{pair}.key", str(pair.key))
        file.write_text(
            named.format(roots=authority.roots, pacs_port=pacs_port, dicom_port=dicom_port, more=more), "utf-8"
        )
        return file

    return write


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    if not debian.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    folder, port = tmp_path_factory.mktemp("speedtest"), free_port()
    compressed = images.reference(folder / "reference", PLAN, None)
    native = images.ct(folder / "ct", PLAN)
    known = [Destination("DRIMBOX", "127.0.0.1", port)]
    config = debian.OrthancConfig(folder / "orthanc", "PACS_A", free_port(), free_port(), known)
    with debian.orthanc(config) as peer:
        for batch in (compressed, native):
            storing.send((peer.ae_title, peer.port), batch.files)
        yield Held(peer, port, compressed, native)
