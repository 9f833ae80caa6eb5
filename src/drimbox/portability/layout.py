"""The names of an XDM archive, as the official sample has them (ans-faq.md 3.7; standards.md D.7).

::

    KA202401/                   one volume for each month
        INDEX.HTM  README.TXT
        IHE_XDM/
            SS000001/           one submission set
                METADATA.XML  KOS_1_1.DCM  SIGN_1.XML  CR.TXT

A set that several reports stand behind has several ``CR`` files: ``CR.TXT`` is the newest, ``CR_2.TXT`` the one before.
"""

from __future__ import annotations

import re
from typing import Final

from drimbox.foundation.errors import Refused

INDEX: Final = "INDEX.HTM"
README: Final = "README.TXT"
ROOT: Final = "IHE_XDM"
METADATA: Final = "METADATA.XML"
SIGNATURE: Final = "SIGN_1.XML"

# A set's folder has six digits.
MAX_SETS: Final = 999_999

# Limits of one set, of one file.
MAX_METADATA: Final = 16 * 2**20
MAX_SIGNATURE: Final = 4 * 2**20
MAX_REPORT_FILE: Final = 64 * 2**10
MAX_FILES: Final = 1000

_REPORT_FILE = re.compile(r"CR(?:[_-]?([0-9]{1,6}))?(?:[_-][0-9]{1,6})?\.TXT", re.IGNORECASE)
_SIGNATURE = re.compile(r"SIGN[0-9_-]{0,16}\.XML", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9._ -]{1,64}")


def volume(month: str, number: int) -> str:
    """``KA202401``; a month with more sets than a volume holds goes on in ``KA202401_2``."""
    return f"KA{month}" if number == 1 else f"KA{month}_{number}"


def set_folder(number: int) -> str:
    """``SS000001``."""
    return f"SS{number:06d}"


def kos_file(number: int) -> str:
    """The ``number``-th KOS of a set."""
    return f"KOS_1_{number}.DCM"


def report_file(number: int) -> str:
    """The ``number``-th report of a set, the newest first."""
    return "CR.TXT" if number == 1 else f"CR_{number}.TXT"


def report_number(name: str) -> int | None:
    """The place of a report file in its set, 1 for the newest; None for another file."""
    match = _REPORT_FILE.fullmatch(name)
    return None if match is None else int(match[1] or 1)


def is_signature(name: str) -> bool:
    """Is this the signature of a set, by its name?"""
    return _SIGNATURE.fullmatch(name) is not None


def uri(folder: str, name: str) -> str:
    """How METADATA.XML names a file of its set: ``SS000001/KOS_1_1.DCM``."""
    return f"{folder}/{name}"


def base_name(uri_text: str) -> str:
    """The file name at the end of a URI; the folders before it are never believed."""
    return re.split(r"[/\\]", uri_text.strip())[-1]


def label(parts: tuple[str, ...]) -> str:
    """How the operator names a set: ``KA202401/SS000001``; a name that is not plain is not repeated."""
    shown = [part if _PLAIN.fullmatch(part) else "…" for part in parts if part.upper() != ROOT]
    return "/".join(shown[-3:]) or "…"


def path_parts(name: str) -> tuple[str, ...] | None:
    """The folders and the file that a zip entry names; None for a path that leads outside, or is no path at all."""
    parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    harmless = all(part != ".." and ":" not in part and part.isprintable() for part in parts)
    if not parts or not harmless or len(name) > 300 or len(parts) > 8 or name.startswith(("/", "\\")):
        return None
    return parts


def hidden(name: str) -> bool:
    """Is this a draft of ours, or what a desktop leaves in a folder?"""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db")


def refused(reason: str, code: str) -> Refused:
    """What is wrong with a set, or with a whole archive."""
    return Refused(reason, code=f"archive-{code}")
