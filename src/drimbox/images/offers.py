"""What an image can be sent as, from what it is stored as and what its pixels are. Pure."""

from __future__ import annotations

from dataclasses import replace

from drimbox.dicom.pixels import Pixels
from drimbox.dicom.syntaxes import (
    DECODABLE,
    EXPLICIT_LE,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    NATIVE,
    NEVER_SENT,
    RELABELLED,
)
from drimbox.images.accept import Offer, Work

#: What we compress to without loss, best first.
_LOSSLESS = (
    (JPEG_LS, Work.ENCODE),
    (HTJ2K_LOSSLESS_RPCL, Work.ENCODE),
    (HTJ2K_LOSSLESS, Work.ENCODE),
    (HTJ2K, Work.ENCODE),
    (JPEG_LOSSLESS_SV1, Work.ENCODE),
    (JPEG_LOSSLESS, Work.ENCODE),
    (JPEG_2000, Work.ENCODE_SLOWLY),
    (JPEG_2000_LOSSLESS, Work.ENCODE_SLOWLY),
)
_HTJ2K = (HTJ2K_LOSSLESS_RPCL, HTJ2K_LOSSLESS, HTJ2K)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")


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
    coming = decoded(stored, pixels)
    encoded = tuple(Offer(s, work) for s, work in _LOSSLESS) if can_encode(coming) else ()
    taken = {offer.syntax for offer in cheap}
    return cheap + tuple(offer for offer in plain + encoded + _lossy(coming) if offer.syntax not in taken)


def can_decode(pixels: Pixels) -> bool:
    """Can frames of this description come out of a codec?"""
    whole = pixels.bits_allocated in (8, 16, 32) and not pixels.floating
    return whole and pixels.samples in (1, 3) and replace(pixels, photometric="").fits_native


def can_encode(pixels: Pixels) -> bool:
    """Can every lossless codec that we write take frames of this description?"""
    if pixels.floating:
        return False
    grey = pixels.photometric in (*_GREY, "PALETTE COLOR") and pixels.samples == 1 and pixels.bits_allocated in (8, 16)
    return grey or (pixels.photometric in _COLOUR and pixels.samples == 3 and pixels.bits_allocated == 8)


def _lossy(pixels: Pixels) -> tuple[Offer, ...]:
    """Lossy JPEG: of eight bits, or of twelve in grey. A palette's numbers are no colours: they must stay exact."""
    if pixels.signed or not can_encode(pixels) or pixels.photometric == "PALETTE COLOR":
        return ()
    if pixels.bits_allocated == 8:
        return (Offer(JPEG_BASELINE, Work.ENCODE, loses=True),)
    if 8 < pixels.bits_stored <= 12:
        return (Offer(JPEG_EXTENDED, Work.ENCODE, loses=True),)
    return ()


def decoded(stored: str, pixels: Pixels) -> Pixels:
    """The description of the frames once they are out of the stored syntax, samples of a pixel side by side.

    Colours of lossy JPEG and of JPEG 2000 come out of their codecs as RGB, all others as they are, at full resolution.
    """
    photometric = pixels.photometric
    transformed = stored in (JPEG_BASELINE, JPEG_EXTENDED) or photometric in ("YBR_RCT", "YBR_ICT")
    if transformed and pixels.samples == 3 and stored not in NATIVE:
        photometric = "RGB"
    if photometric == "YBR_FULL_422":
        photometric = "YBR_FULL"
    return replace(pixels, photometric=photometric, planar=False)


def encoded(pixels: Pixels, syntax: str) -> Pixels:
    """The description of frames, given those of ``decoded``, once they are in ``syntax``."""
    if syntax in _HTJ2K and pixels.photometric == "RGB":
        return replace(pixels, photometric="YBR_RCT")
    if syntax == JPEG_BASELINE and pixels.samples == 3:
        return replace(pixels, photometric="YBR_FULL")
    return pixels
