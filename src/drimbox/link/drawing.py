"""A link as a QR code, to be printed beside it in the report (ISO/IEC 18004)."""

from __future__ import annotations

import io

import segno

from drimbox.foundation.errors import Refused

_FORMS = (".svg", ".png")


def qr_code(url: str, form: str) -> bytes:
    """The picture, ``.svg`` or ``.png``, with the quiet zone that readers need. Raises ``Refused`` (``qr-form``).

    Level M: a fold or a stain of the paper leaves it readable, and a phone reads it at three centimetres.
    """
    if form.lower() not in _FORMS:
        raise Refused("Le code QR s'écrit dans un fichier .svg ou .png", code="qr-form")
    out = io.BytesIO()
    segno.make_qr(url, error="m").save(out, kind=form.lower().removeprefix("."), scale=6, border=4)
    return out.getvalue()
