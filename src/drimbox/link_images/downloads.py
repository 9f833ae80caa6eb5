"""The address at which the patient takes the exam home."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response

from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, Refused
from drimbox.link_images.desk import Desk, Form, address_of
from drimbox.link_images.drawing import Drawer
from drimbox.link_images.sending import Sent
from drimbox.link_images.standing import Gone
from drimbox.link_images.taking import Taken
from drimbox.link_images.visits import OpenStudy

_NAMES = {Form.DICOM: "examen-dicom.zip", Form.JPEG: "examen-images.zip"}


async def download(desk: Desk, request: Request, opened: OpenStudy) -> Response:
    """The exam as a ZIP. Whatever goes wrong before the first image has its own page; after it, the download is cut.

    Raises ``Gone`` where it is not offered to this visitor, ``Busy``, ``Unavailable``, ``Refused``.
    """
    form = next((each for each in desk.offered(opened.visit) if each.value == request.path_params["form"]), None)
    if form is None:
        raise Gone
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused("Demande d'un autre site", code="cross-site")
    for series in opened.images.series.values():
        if isinstance(series.failure, IdentityMismatch):
            # Another patient's image was among them: known, so that nothing of the exam sets out.
            raise series.failure
    if desk.downloads.locked():
        raise Busy("Trop de téléchargements en cours", code="downloads-open", retry_after=60)
    await desk.traces.taken(opened.visit, opened.standing, address_of(request), form.value)
    pieces = _written(desk, opened, form)
    try:
        first = await anext(pieces)
    except DrimboxError as error:
        await desk.traces.not_taken(opened.visit, opened.standing, address_of(request), form.value, error)
        raise

    async def cut(error: DrimboxError) -> None:
        await desk.traces.not_taken(opened.visit, opened.standing, address_of(request), form.value, error)

    disposition = {"Content-Disposition": f'attachment; filename="{_NAMES[form]}"'}
    return Sent(first, pieces, media_type="application/zip", headers=disposition, cut=cut)


async def _written(desk: Desk, opened: OpenStudy, form: Form) -> AsyncGenerator[bytes, None]:
    async def still() -> None:
        if (await desk.register.of(opened.visit)).kos.kos_uid != opened.standing.kos.kos_uid:
            raise Gone

    taken = Taken(opened.standing, opened.images.source, opened.images.looker, still, desk.clock, desk.max_download)
    async with desk.downloads:
        ways = {
            Form.DICOM: lambda: taken.dicom(desk.renderer),
            Form.JPEG: lambda: taken.jpeg(Drawer(desk.transcoder, desk.scratch)),
        }
        pieces = ways[form]()
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()
