"""Structured reports as they are shown: known parts become elements, everything else is text, nothing is run."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html
from markupsafe import Markup

from drimbox.consumer.narrative import Kind, Narrative, Node, plain_narrative, read_narrative
from drimbox.consumer.report_document import read_report
from drimbox.consumer.web.desk import _TEMPLATES
from drimbox.foundation import xml
from drimbox.foundation.errors import Refused
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import exam

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32


def narrative(text: str, more: str = "") -> Narrative:
    body = (
        '<structuredBody xmlns="urn:hl7-org:v3"><component><section><title>Résultats</title>'
        f"<text>{text}</text>{more}</section></component></structuredBody>"
    )
    return read_narrative(xml.parse(body.encode()))


def shown(found: Narrative) -> str:
    class Report:
        body = found

    class Named:
        id = key = "x"

    template = _TEMPLATES.get_template("narrative.html")
    return str(Markup(template.render(report=Report, call=Named, document=Named)))


def kinds(nodes: tuple[Node, ...]) -> set[Kind]:
    return {node.kind for node in nodes} | {kind for node in nodes for kind in kinds(node.children)}


@pytest.mark.requirement("DB.CO.58", "CDA/VISU.01")
def test_everything_that_a_narrative_may_hold() -> None:
    page = shown(
        narrative(
            'Avant <content styleCode="BoldItalics">gras</content><br/>ligne'
            "<paragraph>Un <sub>2</sub><sup>3</sup></paragraph>"
            '<list listType="ordered"><caption>Liste</caption><item>A<list><item>A1</item></list></item></list>'
            '<table><caption>T</caption><thead><tr><th colspan="2">Titre</th></tr></thead><tbody>'
            '<tr><td rowspan="2">1</td><td><content revised="delete">2</content></td></tr></tbody></table>'
            '<linkHtml href="https://vi.example/x?y=1&amp;z=2">lien</linkHtml>'
        )
    )
    tree = html.fromstring(f"<div>{page}</div>")
    assert [h.text for h in tree.xpath(".//h2")] == ["Résultats"]
    assert tree.xpath(".//strong//text()|.//em//text()") == ["gras"]
    assert tree.xpath("count(.//ol/li/ul/li)") == 1
    assert tree.xpath(".//th/@colspan") == ["2"]
    assert tree.xpath(".//td/@rowspan") == ["2"]
    assert tree.xpath(".//s//text()") == ["2"]
    assert tree.xpath(".//a/@href") == ["https://vi.example/x?y=1&z=2"]
    assert tree.xpath(".//a/@rel") == ["noopener noreferrer"]


@pytest.mark.requirement("DB.CO.58", "CDA/VISU.01")
@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        '<paragraph onclick="alert(1)" style="x:y">a</paragraph>',
        '<linkHtml href="javascript:alert(1)">a</linkHtml>',
        '<linkHtml href="https://u:p@x/">a</linkHtml>',
        '<linkHtml href="data:text/html,x">a</linkHtml>',
        '<content styleCode="&quot;&gt;&lt;img src=x onerror=alert(1)&gt;">a</content>',
        '<x:img xmlns:x="http://www.w3.org/1999/xhtml" src="https://x/" onerror="alert(1)">a</x:img>',
        '<table><tr><td colspan="&quot; onload=&quot;x">a</td></tr></table>',
        '<renderMultiMedia referencedObject="&quot;&gt;&lt;script&gt;"/>',
    ],
)
def test_hostile_markup_is_text_or_nothing(hostile: str) -> None:
    tree = html.fromstring(f"<div>{shown(narrative(hostile + 'fin'))}</div>")
    assert tree.xpath(".//script|.//img|.//iframe|.//style") == []
    assert tree.xpath(".//a") == []
    assert [name for e in tree.iter() for name in e.attrib if name.startswith("on") or name == "style"] == []
    assert "fin" in tree.text_content()


def test_pictures_are_those_that_the_document_holds() -> None:
    entry = (
        '<entry><observationMedia ID="m1"><value mediaType="text/html" representation="B64">'
        f"{base64.b64encode(PNG).decode()}</value></observationMedia></entry>"
        '<entry><observationMedia ID="m2"><value representation="B64">'
        f"{base64.b64encode(b'<svg onload=x>').decode()}</value></observationMedia></entry>"
    )
    found = narrative(
        '<renderMultiMedia referencedObject="m1"><caption>Coupe</caption></renderMultiMedia>'
        '<renderMultiMedia referencedObject="m2"/><renderMultiMedia referencedObject="m1"/>',
        entry,
    )
    # Its type is told from its octets, whatever the document says; what is no picture is said to be absent.
    assert [p.media_type for p in found.pictures] == ["image/png"]
    page = shown(found)
    assert page.count('src="/appel/x/compte-rendu/x/image/0"') == 2
    assert 'alt="Coupe"' in page
    assert "image absente" in page


def test_what_is_too_long_or_too_deep_is_refused_not_cut() -> None:
    for text in ("<paragraph>a</paragraph>" * 30_000, "<content>" * 60 + "a" + "</content>" * 60):
        with pytest.raises(Refused) as caught:
            narrative(text)
        assert caught.value.code == "report-body"
    with pytest.raises(Refused):
        plain_narrative("a\n" * 50_000)


def test_rows_of_a_table_within_a_table_are_not_told_twice() -> None:
    page = shown(narrative("<table><tr><td>a<table><tr><td>b</td></tr></table></td></tr></table>"))
    assert page.count("b</p>") == 1


_ELEMENTS = st.sampled_from(
    [
        "paragraph",
        "content",
        "list",
        "item",
        "table",
        "tr",
        "td",
        "th",
        "br",
        "linkHtml",
        "sub",
        "caption",
        "script",
        "x",
    ]
)


@given(st.recursive(
    st.text(alphabet="abc<>&\"' \né", max_size=12).map(lambda t: t.replace("&", "&amp;").replace("<", "&lt;")),
    lambda inner: st.tuples(_ELEMENTS, st.lists(inner, max_size=4)).map(lambda p: f"<{p[0]}>{''.join(p[1])}</{p[0]}>"),
    max_leaves=25,
))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_narrative_keeps_its_words_and_makes_no_strange_element(text: str) -> None:
    try:
        page = shown(narrative(text + "fin"))
    except Refused:
        return
    tree = html.fromstring(f"<div>{page}</div>")
    blocks = {"div", "h2", "p", "ul", "ol", "li", "table", "tbody", "tr", "td", "th", "caption", "figure", "img"}
    lines = {"strong", "em", "u", "s", "sub", "sup", "a", "br", "figcaption", "span"}
    assert {str(e.tag) for e in tree.iter()} <= blocks | lines
    assert "fin" in tree.text_content()


@pytest.mark.requirement("DB.CO.58")
def test_the_official_structured_report(samples: object) -> None:
    (original,) = samples.rglob("IMG_CR_IMG_2024.01.xml")  # type: ignore[attr-defined]
    report = read_report(original.read_bytes())
    assert {Kind.HEADING, Kind.TABLE, Kind.LIST} <= kinds(report.body.nodes)
    names = {line.name for line in report.header}
    assert {"Auteur", "Responsable du document", "Étude (Study Instance UID)"} <= names
    assert "Justification de la demande d’examen" in html.fromstring(f"<div>{shown(report.body)}</div>").text_content()


@pytest.mark.requirement("CDA/VISU.01")
def test_a_picture_or_a_text_as_the_whole_body() -> None:
    plain = letters.clinical_document(letters.Letter(exam("E"), "1"))
    start, end = plain.index(b"<nonXMLBody>"), plain.index(b"</nonXMLBody>")

    def with_body(text: str) -> bytes:
        return plain[:start] + b"<nonXMLBody>" + text.encode() + plain[end:]

    picture = with_body(f'<text mediaType="image/jpeg" representation="B64">{base64.b64encode(PNG).decode()}</text>')
    assert read_report(picture).body.pictures[0].media_type == "image/png"
    assert kinds(read_report(with_body('<text mediaType="text/plain">Un\nDeux</text>')).body.nodes) == {
        Kind.PARAGRAPH,
        Kind.TEXT,
    }
    for wrong in (
        '<text mediaType="text/rtf">x</text>',
        '<text mediaType="image/tiff" representation="B64">AAAA</text>',
    ):
        with pytest.raises(Refused):
            read_report(with_body(wrong))
