"""A one-page PDF: the body of the simulated reports."""

from __future__ import annotations

from collections.abc import Sequence


def one_page(lines: Sequence[str], *, link: str = "") -> bytes:
    """A4, Helvetica 11, one line of text per entry (Latin-1); ``link`` becomes a clickable line at the end."""
    text = ["BT /F1 11 Tf 14 TL 60 780 Td"]
    for line in [*lines, *(["", "Voir les images"] if link else [])]:
        escaped = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        text.append(f"({escaped}) Tj T*")
    text.append("ET")
    content = "\n".join(text).encode("latin-1", "replace")
    bottom = 780 - 14 * (len(lines) + 1) - 4
    annotation = (
        f"<</Type/Annot/Subtype/Link/Border[0 0 1]/Rect[56 {bottom} 160 {bottom + 16}]/A<</S/URI/URI({link})>>>>"
        if link
        else ""
    )
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>"
        + f"/Annots[{annotation}]>>".encode("latin-1"),
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
