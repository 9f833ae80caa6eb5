"""MTOM: what is written is read again; what others write is read; what is cut or ambiguous is refused."""

from __future__ import annotations

import base64
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import parse
from drimbox.national.dmp import mtom
from drimbox.national.dmp.codes import XDSB, XOP

# Octets that look like packaging, more often than chance would have it.
_OCTETS = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n", b"\n", b"--", b"--drimbox-", b"\r\n--", b"\r\n\r\n"])),
    max_size=8,
).map(b"".join)


@settings(deadline=None)
@given(_OCTETS, st.lists(_OCTETS, max_size=3))
def test_any_octets_come_back_as_they_went(envelope: bytes, contents: list[bytes]) -> None:
    attachments = [mtom.Attachment(f"0.{n}", content) for n, content in enumerate(contents, 2)]
    content_type, body = mtom.write(envelope, attachments, "urn:action")
    package = mtom.read(content_type, body)
    assert package.root == envelope
    assert dict(package.parts) == {a.content_id: a.content for a in attachments}


def test_the_header_is_that_of_the_standard() -> None:
    content_type, body = mtom.write(b"<a/>", [mtom.Attachment("0.2", b"\x00\r\n\xff")], "urn:action")
    assert content_type.startswith("multipart/related; ")
    assert mtom.parameters_of(content_type) | {"boundary": ""} == {
        "type": "application/xop+xml",
        "boundary": "",
        "start": "<0.1>",
        "start-info": "application/soap+xml",
        "action": "urn:action",
    }
    # Another reader, of another house, finds the same parts.
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body, policy=policy.HTTP)
    root, kos = message.iter_parts()  # type: ignore[attr-defined]
    assert root["Content-ID"] == "<0.1>"
    assert root.get_content_type() == "application/xop+xml"
    assert kos["Content-Transfer-Encoding"] == "binary"
    assert body.count(b"\x00\r\n\xff\r\n--") == 1


def multipart(*parts: str | bytes, boundary: str = "b", end: str = "--b--", line: str = "\r\n") -> bytes:
    body = b""
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        body += f"--{boundary}{line}".encode() + raw + line.encode()
    return body + end.encode() + line.encode()


ROOT = "Content-ID: <root>\r\n\r\n<a/>"


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/related; boundary="b"; start="<root>"; type="application/xop+xml"',
        "multipart/related; boundary=b; start=<root>; type=application/xop+xml",
        "Multipart/Related;BOUNDARY=b;Start=root",
        'multipart/related; type="a;b=\\"c\\""; boundary=b',
        "multipart/related; charset=utf-8 ; boundary = b ; start = <root>",
    ],
)
def test_parameters_may_be_written_in_many_ways(content_type: str) -> None:
    assert mtom.read(content_type, multipart(ROOT)).root == b"<a/>"


def test_the_answer_of_a_cxf_server_is_read() -> None:
    boundary = "uuid:ac95cc6e-f93f-413d-950c-4bf9dc273d8a"
    root = (
        'Content-Type: application/xop+xml; charset=UTF-8; type="application/soap+xml"\r\n'
        "Content-Transfer-Encoding: binary\r\nContent-ID: <root.message@cxf.apache.org>\r\n\r\n<a/>"
    )
    other = "Content-Type: application/octet-stream\r\nContent-ID: <8f-1@urn%3Aihe>\r\n\r\nDICM"
    body = multipart(other, root, boundary=boundary, end=f"--{boundary}--")
    content_type = (
        f'multipart/related; type="application/xop+xml"; boundary="{boundary}"; '
        'start="<root.message@cxf.apache.org>"; start-info="application/soap+xml"'
    )
    package = mtom.read(content_type, body)
    assert package.root == b"<a/>"
    assert package.parts == {"8f-1@urn%3Aihe": b"DICM"}


@pytest.mark.parametrize("line", ["\r\n", "\n"])
def test_both_line_ends_and_a_preamble_are_read(line: str) -> None:
    part = f"Content-ID: <r>{line}Content-Type: text/xml;{line} charset=utf-8{line}{line}<a/>"
    body = f"preamble{line}".encode() + multipart(part, line=line) + b"epilogue"
    assert mtom.read("multipart/related; boundary=b", body).root == b"<a/>"


def test_base64_parts_are_decoded() -> None:
    text = base64.encodebytes(b"\x00KOS" * 50).decode()
    part = f"Content-ID: <0.2>\r\nContent-Transfer-Encoding: BASE64\r\n\r\n{text}"
    assert mtom.read("multipart/related; boundary=b", multipart(ROOT, part)).parts["0.2"] == b"\x00KOS" * 50


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("multipart/related", multipart(ROOT), "mtom-boundary"),
        ('multipart/related; boundary=""', multipart(ROOT), "mtom-boundary"),
        ('multipart/related; boundary="b "', multipart(ROOT), "mtom-boundary"),
        (f"multipart/related; boundary={'b' * 71}", multipart(ROOT), "mtom-boundary"),
        ("multipart/related; boundary=b" + " " * 20000, multipart(ROOT), "mtom-boundary"),
        ("multipart/related; boundary=b", multipart(ROOT)[:-8], "mtom-truncated"),
        ("multipart/related; boundary=b", multipart(ROOT, end="--b"), "mtom-truncated"),
        ("multipart/related; boundary=b", multipart(ROOT, end="--b--x"), "mtom-truncated"),
        ("multipart/related; boundary=b", b"", "mtom-truncated"),
        ("multipart/related; boundary=other", multipart(ROOT), "mtom-truncated"),
        ("multipart/related; boundary=b", multipart(), "mtom-root"),
        ("multipart/related; boundary=b; start=<none>", multipart(ROOT), "mtom-root"),
        ("multipart/related; boundary=b", multipart(ROOT, ROOT), "mtom-duplicate"),
        ("multipart/related; boundary=b", multipart("no header at all"), "mtom-header"),
        ("multipart/related; boundary=b", multipart("not a header\r\n\r\n<a/>"), "mtom-header"),
        ("multipart/related; boundary=b", multipart("X: " + "y" * 20000 + "\r\n\r\n<a/>"), "mtom-header"),
        (
            "multipart/related; boundary=b",
            multipart(ROOT, "Content-Transfer-Encoding: base64\r\n\r\nAAA*"),
            "mtom-encoding",
        ),
        (
            "multipart/related; boundary=b",
            multipart(ROOT, "Content-Transfer-Encoding: base64\r\n\r\nAAA"),
            "mtom-encoding",
        ),
        (
            "multipart/related; boundary=b",
            multipart(ROOT, "Content-Transfer-Encoding: x-gzip\r\n\r\nAAA"),
            "mtom-encoding",
        ),
        ("multipart/related; boundary=b", multipart(*["\r\n"] * 300), "mtom-limits"),
    ],
)
def test_what_cannot_be_read_whole_is_refused(content_type: str, body: bytes, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        mtom.read(content_type, body)
    assert refusal.value.code == code


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [b"--b", b"--b--", b"\r\n", b"\n", b"Content-ID: <r>", b"Content-ID: x", b":", b" ", b"<a/>"]
            ),
            st.binary(max_size=6),
        ),
        max_size=25,
    ).map(b"".join)
)
def test_hostile_bodies_are_read_or_refused_never_worse(body: bytes) -> None:
    try:
        package = mtom.read("multipart/related; boundary=b; start=<r>", body)
    except Refused:
        return
    assert b"--b--" in body
    assert b"\n--b" not in package.root


@settings(deadline=None)
@given(st.text(max_size=200))
def test_hostile_content_types_are_read_or_refused(content_type: str) -> None:
    mtom.parameters_of(content_type)
    with pytest.raises(Refused):
        mtom.read(f"multipart/related; {content_type}; boundary=zzz", multipart(ROOT))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_message_cut_anywhere_is_never_taken_for_a_whole_one(cut: int) -> None:
    content_type, body = mtom.write(b"<a/>" * 10, [mtom.Attachment("0.2", bytes(range(256)))], "urn:action")
    # The last line end says nothing; everything before it does.
    shorter = body[: cut % (len(body) - 2)]
    with pytest.raises(Refused):
        mtom.read(content_type, shorter)


# --- xop:Include ------------------------------------------------------------------------------------------------------


def document(content: str) -> etree._Element:
    return parse(f'<Document xmlns="{XDSB}" id="d">{content}</Document>'.encode())


def included(href: str) -> etree._Element:
    return document(f'<xop:Include xmlns:xop="{XOP}" href="{href}"/>')


@pytest.mark.parametrize(
    ("href", "content_id"),
    [
        ("cid:0.2", "0.2"),
        ("CID:0.2", "0.2"),
        ("cid:8f-1%40urn%3Aihe", "8f-1@urn:ihe"),
        ("cid:8f%2B1@x", "8f+1@x"),
        ("cid:8f-1%40urn%253Aihe", "8f-1@urn%3Aihe"),
        ("cid:a%40b", "a%40b"),
    ],
)
def test_a_cid_is_decoded(href: str, content_id: str) -> None:
    assert mtom.document_bytes(included(href), {content_id: b"x", "else": b"y"}) == b"x"


def test_inlined_documents_are_read() -> None:
    assert mtom.document_bytes(document("AAEC\n  /w=="), {}) == b"\x00\x01\x02\xff"
    assert mtom.document_bytes(document(""), {}) == b""


@pytest.mark.parametrize(
    ("element", "code"),
    [
        (included("cid:none"), "xop-missing"),
        (included("https://elsewhere/"), "xop-href"),
        (included(""), "xop-href"),
        (document("AAE"), "document-base64"),
        (document("é"), "document-base64"),
        (document("AAAA<other/>BBBB"), "document-base64"),
        (document("AAAA<!-- -->BBBB"), "document-base64"),
        (document(f'<xop:Include xmlns:xop="{XOP}" href="cid:0.2"/><other/>'), "document-base64"),
    ],
)
def test_a_document_that_is_not_there_is_refused(element: etree._Element, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        mtom.document_bytes(element, {"0.2": b"x"})
    assert refusal.value.code == code


def test_the_official_publication_is_read(samples: Path) -> None:
    """Its copy was indented as a whole, delimiters too: those lines are put back to the margin."""
    lines = (samples / "xds" / "publication.xml").read_bytes().split(b"\n")
    body = b"\n".join(line.strip() if b"MIMEBoundary" in line or b"Content-" in line else line for line in lines)
    content_type = (
        'multipart/related;boundary="MIMEBoundary_Bound"; type="application/xop+xml"; start="<0.1>"; '
        'start-info="application/soap+xml"; action="urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b"'
    )
    package = mtom.read(content_type, body)
    envelope = parse(package.root.strip())
    kos, signature = (mtom.document_bytes(d, package.parts) for d in envelope.iter(f"{{{XDSB}}}Document"))
    assert kos == (samples / "kos" / "publication_KOS.dcm").read_bytes()
    assert parse(signature.strip()).get("Id") == "2.25.253872960909518376796861585574417771331"
