"""Forms that carry a file. All of it stays in memory: what is sent may be a private key."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from drimbox.foundation.errors import Refused

MAX_BYTES = 128 * 1024
_MAX_FIELDS = 20


def is_upload(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


async def upload_fields(headers: Headers, body: bytes) -> dict[str, list[str]]:
    """The fields of the form; a file is one too, whose text ``content_of`` turns into its bytes again.

    Raises ``Refused`` (``form``).
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    # Parts this small are held in memory by the parser, which would write larger ones to a file.
    parser = MultiPartParser(headers, stream(), max_files=2, max_fields=_MAX_FIELDS, max_part_size=MAX_BYTES)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise Refused("Formulaire illisible", code="form") from error
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        content = (await value.read()).decode("latin-1") if isinstance(value, UploadFile) else value
        fields.setdefault(name, []).append(content)
    await form.close()
    return fields


def content_of(field: str) -> bytes:
    """The bytes of a file that was sent; none for a field that no file was chosen for."""
    try:
        return field.encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("Un fichier est attendu", code="form") from None
