"""The roots that browsers believe, as a system ships them: one that is odd must not stop a box."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from drimbox.foundation.errors import Misconfigured
from drimbox.trust.keystore import UNREADABLE, read_file

_BLOCK = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL)


def read_roots(paths: Sequence[Path]) -> tuple[x509.Certificate, ...]:
    """Every root of these PEM files that can be read. Raises ``Misconfigured`` (``market-roots``) without any."""
    read = (_read(block) for path in paths for block in _BLOCK.findall(read_file(path)))
    found = dict.fromkeys(certificate for certificate in read if certificate is not None)
    if not found:
        raise Misconfigured(
            "Aucune racine de marché lisible : installez le paquet ca-certificates, ou donnez le réglage roots",
            code="market-roots",
        )
    return tuple(found)


def _read(block: bytes) -> x509.Certificate | None:
    try:
        with warnings.catch_warnings():
            # A list that is in use for decades has some that break newer rules.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            certificate = x509.load_pem_x509_certificate(block)
            _ = (certificate.subject, certificate.public_key(), certificate.extensions)
            return certificate if certificate.serial_number > 0 else None
    except UNREADABLE:
        return None
