"""What the configuration says of a PACS, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from drimbox.box import pacs_links
from drimbox.box.settings.common import Section
from drimbox.box.settings.pacs import PacsSection
from drimbox.box.settings.source import DicomListener, Hl7Section, IocmSection
from drimbox.pacs.nodes import Node

LEAST: dict[str, Any] = {"id": "a", "host": "pacs.example", "port": 104, "ae_title": "PACS"}


def section(**values: Any) -> PacsSection:
    return PacsSection.model_validate(LEAST | values)


def test_the_least_is_a_plain_pacs_by_any_way() -> None:
    pacs = pacs_links.described(section())
    assert pacs.query_nodes == (Node("pacs.example", 104, "PACS"),)
    assert (pacs.retrieve_nodes, pacs.store_nodes, pacs.operations_per_minute, pacs.tls_name) == ((), (), 0, "")
    assert (section().find, section().retrieve) == ("auto", "auto")
    assert section().stores_as == ("PACS",)


def test_several_application_entities() -> None:
    def node(title: str, host: str = "b.example") -> dict[str, Any]:
        return {"host": host, "port": 11112, "ae_title": title}

    many = section(
        alternates=[node("PACS", "c.example")],
        retrieve_from=[node("MOVER")],
        store_to=[node("TAKER")],
        tls={"name": "pacs.example"},
    )
    pacs = pacs_links.described(many)
    assert pacs.query_nodes[1] == Node("c.example", 11112, "PACS")
    assert pacs.retrieve_nodes == (Node("b.example", 11112, "MOVER"),)
    assert pacs.store_nodes == (Node("b.example", 11112, "TAKER"),)
    assert pacs.tls_name == "pacs.example"
    assert many.stores_as == ("PACS", "MOVER", "TAKER")
    assert section(storing_ae_titles=["OUT"], alternates=[node("X")]).stores_as == ("OUT",)


@pytest.mark.parametrize(
    "values",
    [
        {"find": "dicomweb"},
        {"retrieve": "dicomweb"},
        {"retrieve": "post"},
        {"dicomweb": {"url": "ftp://pacs"}},
        {"dicomweb": {"url": "https://user:secret@pacs/dw"}},
        {"dicomweb": {"url": "https://pacs/dw?token=1"}},
        {"dicomweb": {"url": "https://pacs/dw", "user": "u"}},
        {"dicomweb": {"url": "https://pacs/dw", "password_file": "p"}},
        {"operations_per_minute": -1},
        {"alternates": [{"host": "b", "port": 104, "ae_title": "much too long a title"}]},
    ],
)
def test_what_cannot_work_is_a_mistake(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section(**values)


@pytest.mark.parametrize("listener", [DicomListener, IocmSection, Hl7Section])
def test_client_certificates_need_tls(listener: type[Section]) -> None:
    """Else who believes that it asks for certificates lets everybody in."""
    with pytest.raises(ValidationError, match="tls"):
        listener.model_validate({"port": 104, "client_roots": ["ca.pem"]})
    with pytest.raises(ValidationError, match="client_roots"):
        listener.model_validate({"port": 104, "client_revocation_lists": ["list.crl"]})


def test_each_title_goes_with_the_certificates_of_its_own_pacs() -> None:
    one = section(certificate_names=["one.example"])
    two = section(id="two", ae_title="TWO", host="two.example")
    names = pacs_links.certificate_names((one, two), frozenset({one.ae_title, "TWO", "ARCHIVE"}))
    assert names == {
        one.ae_title: {"one.example"},
        "TWO": {"two.example"},
        "ARCHIVE": {"one.example", "two.example"},
    }


def test_what_was_learnt_goes_with_the_settings_that_matter(tmp_path: Path) -> None:
    same = pacs_links._fingerprint(section())
    assert pacs_links._fingerprint(section(answer_timeout=5)) == same
    assert pacs_links._fingerprint(section(ae_title="OTHER")) != same
    assert pacs_links._fingerprint(section(dicomweb={"url": "https://pacs/dw"})) != same
    names = {pacs_links._file_name(name) for name in ("a", "A/b", "a b", "../../etc", "é")}
    assert len(names) == 5
    assert all("/" not in name and "." not in name for name in names)
