"""An image in a form that the target takes: relabelled, decompressed or compressed, never with loss."""

from __future__ import annotations

from collections.abc import Sequence

from drimbox.dicom.syntaxes import EXPLICIT_LE, IMPLICIT_LE, NATIVE, RELABELLED
from drimbox.foundation.errors import Refused
from drimbox.images.threads import in_thread
from drimbox.importing.ports import LosslessTranscoder
from drimbox.importing.staging import Staging
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.header import outgoing


async def converted(
    transcoder: LosslessTranscoder, staging: Staging, uid: str, image: Outgoing, accepted: Sequence[str]
) -> Outgoing:
    """The image ``uid`` in the first of ``accepted`` that it can take, as a file with the local identity.

    Raises ``Refused`` (``context-refused``) when the target takes its class in none, or as the transcoder does;
    ``OSError``.
    """
    stored = image.transfer_syntax_uid
    if not accepted:
        raise Refused("Le PACS n'accepte pas ce type d'image (classe SOP)", code="context-refused")
    await in_thread(staging.make, uid, image)
    order = sorted((s for s in accepted if s != stored), key=lambda s: s not in RELABELLED.get(stored, ()))
    failure = Refused("Le PACS n'accepte cette image dans aucune forme sans perte", code="context-refused")
    for syntax in order:
        try:
            return await _one(transcoder, staging, uid, stored, syntax)
        except Refused as error:
            failure = error
    raise failure


async def _one(transcoder: LosslessTranscoder, staging: Staging, uid: str, stored: str, syntax: str) -> Outgoing:
    path = staging.made_of(uid)
    if syntax == IMPLICIT_LE:
        if stored not in NATIVE:
            await _transcoded(transcoder, staging, uid, EXPLICIT_LE)
        return await in_thread(staging.implicit, uid)
    await _transcoded(transcoder, staging, uid, syntax)
    return await in_thread(outgoing, path)


async def _transcoded(transcoder: LosslessTranscoder, staging: Staging, uid: str, syntax: str) -> None:
    path = staging.made_of(uid)
    part = path.with_suffix(".part")
    await in_thread(part.unlink, missing_ok=True)
    await transcoder.transcode(path, part, syntax)
    await in_thread(part.rename, path)
