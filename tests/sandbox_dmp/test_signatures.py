"""What the judge takes for a right signature, the xmlsec1 command takes for one too, and the other way round."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lxml import etree

from drimbox.sandbox.dmp.mime import parse_media_type, split_parts
from sandbox_dmp.bending import edit
from sandbox_dmp.scene import Bends, Scene, Wire
from sandbox_dmp.signing import XADES, Bend

XMLSEC = "/usr/bin/xmlsec1"
pytestmark = pytest.mark.skipif(not Path(XMLSEC).exists(), reason="xmlsec1 is not installed")


def verified(scene: Scene, file: Path, *options: str) -> bool:
    root, organisations = (str(scene.authority.folder / f"{name}.ca.pem") for name in ("racine", "organisations"))
    command = [XMLSEC, "--verify", "--trusted-pem", root, "--untrusted-pem", organisations, *options]
    return subprocess.run([*command, str(file)], capture_output=True, check=False).returncode == 0


def attachment(wire: Wire, content_id: str) -> bytes:
    parts = split_parts(wire.body, parse_media_type(wire.content_type).get("boundary"))
    return next(p.content for p in parts if p.content_id == content_id)


def spaced(root: etree._Element) -> None:
    """Line breaks inside and around what is signed."""
    manifest = root.find("{*}Object/{*}Manifest")
    assert manifest is not None
    manifest.text = manifest.tail = "\n  "


def commented(root: etree._Element) -> None:
    """A comment in the Manifest, digested with it: a reference without transform drops comments."""
    manifest = root.find("{*}Object/{*}Manifest")
    assert manifest is not None
    manifest.append(etree.Comment(" said in passing "))


def changed_after(root: etree._Element) -> None:
    edit("ds:Object/ds:Manifest/ds:Reference[2]/ds:DigestValue", text="AAAA")(root)


@pytest.mark.parametrize(
    ("before", "after", "right"),
    [(None, None, True), (spaced, None, True), (commented, None, False), (None, changed_after, False)],
)
def test_set_signature(scene: Scene, tmp_path: Path, before: Bend | None, after: Bend | None, right: bool) -> None:
    wire = scene.publication(bends=Bends(xades=before, xades_signed=after))
    file = tmp_path / "signature.xml"
    file.write_bytes(attachment(wire, "0.3"))
    options = ("--ignore-manifests", "--id-attr:Id", "Manifest", "--id-attr:Id", f"{XADES}:SignedProperties")
    assert verified(scene, file, *options) is right
    assert scene.send(wire).broken == (("", "") if right else ("XADES.VALUE", "InvalidDocumentContent"))


@pytest.mark.parametrize("changed", [False, True])
def test_vihf_signature(scene: Scene, tmp_path: Path, changed: bool) -> None:
    bend = edit("saml:Subject/saml:NameID", text="899700367917") if changed else None
    wire = scene.existence(scene.caller(), Bends(assertion_signed=bend))
    file = tmp_path / "message.xml"
    file.write_bytes(wire.body)
    options = ("--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:assertion:Assertion")
    assert verified(scene, file, *options) is not changed
    assert (scene.send(wire).fault == ("", "", "")) is not changed
