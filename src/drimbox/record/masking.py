"""The safety net of everything that is written down: no identity number and no token survives it.

Code must not put such values in a message in the first place; this catches what slips through, a library's exception
text above all.
"""

from __future__ import annotations

import re

from drimbox.identity import ins

MASK = "[masqué]"

# An INS: sex, year, month, department, commune, order, key. In one run of characters it is masked whatever its key.
# Neither may a digit, a letter or an UID component come before it: UIDs and FINESS or SIRET in longer words stay whole.
_INS = re.compile(r"(?<![0-9A-Za-z])(?<![0-9]\.)[1-478][0-9]{5}[0-9AB][0-9]{8}(?![0-9A-Za-z]|\.[0-9])", re.IGNORECASE)
# The form that people write, in groups: masked when its key is right, since any list of numbers has that shape.
_SPACED_INS = re.compile(
    r"(?<![0-9A-Za-z.])[1-478][ -][0-9]{2}[ -][0-9]{2}[ -][0-9][0-9AB]"
    r"[ -][0-9]{3}[ -][0-9]{3}[ -][0-9]{2}(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(Bearer|Basic)(\s+|%20|\+)[A-Za-z0-9._~+/=%-]{6,}", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){1,4}")
_NAMED = re.compile(
    r"\b((?:access|refresh|id|logout|subject)_token|(?:id_token|login)_hint|client_secret|code_verifier|password|token"
    r"|(?<=[?&])code)"
    r"""(["']?\s*[=:]\s*["']?)([A-Za-z0-9._~+/%-]{12,}=*)""",
    re.IGNORECASE,
)
_STRUCTURE = re.compile(r"3[0-9]{14}|4[0-9]{14}")


def masked(text: str) -> str:
    """``text`` with every INS, bearer token, JWT and named secret replaced by ``[masqué]``."""
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _JWT.sub(MASK, text)
    text = _NAMED.sub(rf"\1\2{MASK}", text)
    text = _INS.sub(lambda found: found[0] if _is_structure(found[0]) else MASK, text)
    return _SPACED_INS.sub(lambda found: MASK if _key_is_right(found[0]) else found[0], text)


def _is_structure(fifteen: str) -> bool:
    """Is this a Struct_IdNat of 15 digits: ``3`` + SIRET or ``4`` + RPPS + rank (standards.md K.1), and no INS?

    Operators need structures in the log (certificates carry them). The check digit of SIREN and RPPS tells them from
    an INS, and a right INS key always wins.
    """
    if not _STRUCTURE.fullmatch(fifteen) or _key_is_right(fifteen):
        return False
    return _luhn(fifteen[1:10] if fifteen[0] == "3" else fifteen[1:12])


def _key_is_right(number: str) -> bool:
    bare = re.sub(r"[ -]", "", number).upper()
    return ins.key(bare[:13]) == bare[13:]


def _luhn(digits: str) -> bool:
    doubled = (int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(digits)))
    return sum(d // 10 + d % 10 for d in doubled) % 10 == 0
