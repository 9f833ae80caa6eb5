"""What an image can be sent as, from what it is stored as and what its pixels are. Pure."""

from __future__ import annotations

from dataclasses import replace

from drimbox.images.accept import Offer, Work
from drimbox.images.pixels import Pixels
from drimbox.images.syntaxes import (
    DECODABLE,
    EXPLICIT_LE,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    NATIVE,
    NEVER_SENT,
    RELABELLED,
)

#: What we compress to, best first.
_ENCODERS = (
    (JPEG_LS, Work.ENCODE),
    (JPEG_LOSSLESS_SV1, Work.ENCODE),
    (JPEG_2000, Work.ENCODE_SLOWLY),
    (JPEG_2000_LOSSLESS, Work.ENCODE_SLOWLY),
)


def header_offers(stored: str) -> tuple[Offer, ...]:
    """What an image stored in this syntax can be sent as without a look at its pixels."""
    if stored in NEVER_SENT:
        return (Offer(EXPLICIT_LE, Work.NONE),)
    return tuple(Offer(syntax, Work.NONE) for syntax in (stored, *RELABELLED.get(stored, ())))


def offers(stored: str, pixels: Pixels | None) -> tuple[Offer, ...]:
    """All that an image can be sent as. ``pixels``: None for an object without pixels."""
    cheap = header_offers(stored)
    if pixels is None or not (stored in NATIVE or (stored in DECODABLE and can_decode(pixels))):
        return cheap
    plain = () if stored in NATIVE else (Offer(EXPLICIT_LE, Work.DECODE),)
    encoded = tuple(Offer(s, work) for s, work in _ENCODERS) if can_encode(decoded(stored, pixels)) else ()
    taken = {offer.syntax for offer in cheap}
    return cheap + tuple(offer for offer in plain + encoded if offer.syntax not in taken)


def can_decode(pixels: Pixels) -> bool:
    """Can frames of this description come out of a codec?"""
    return pixels.bits_allocated in (8, 16, 32) and pixels.samples in (1, 3) and pixels.fits_native


def can_encode(pixels: Pixels) -> bool:
    """Can every lossless codec that we write take frames of this description?"""
    known = pixels.photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR") and pixels.samples == 1
    colour = pixels.photometric in ("RGB", "YBR_FULL") and pixels.samples == 3 and pixels.bits_allocated == 8
    return (known and pixels.bits_allocated in (8, 16)) or colour


def decoded(stored: str, pixels: Pixels) -> Pixels:
    """The description of the frames once they are out of the stored syntax."""
    if stored in NATIVE:
        return pixels
    return replace(pixels, photometric=_photometric(stored, pixels), planar=False)


def _photometric(syntax: str, pixels: Pixels) -> str:
    """Colours of lossy JPEG and of JPEG 2000 come out of their codecs as RGB, all others as they are."""
    transformed = syntax in (JPEG_BASELINE, JPEG_EXTENDED) or pixels.photometric in ("YBR_RCT", "YBR_ICT")
    return "RGB" if transformed and pixels.samples == 3 else pixels.photometric
