"""The patient in the journal: a keyed hash, so that rows can be found by patient while they name nobody.

Why not the INS itself: the journal is read by more people (auditors, support), copied further (backups, the hospital's
own repository) and kept longer than the records it speaks of. Why not a plain hash: fifteen digits with a check key
are few enough to try them all. So the reference is HMAC-SHA-256 under a key that lives in the state folder and never in
the database: a copy of the journal alone identifies no one, and an authorised user who types an INS finds every row
(DB.CS.10).

The reference begins with a fingerprint of its key. After a restore without its key, or on a second node that made its
own, a search can then say so instead of answering "nothing" (see ``Journal.search``). Nodes that share a database must
share the key file, and a backup must hold it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path

from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.secret_file import own_secret
from drimbox.identity.ins import Ins


@dataclass(frozen=True, slots=True)
class PatientKey:
    """The key of the patient references. Get it with ``load_patient_key``."""

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Eight characters that tell keys apart and reveal nothing of them."""
        return hashlib.sha256(b"drimbox patient key\0" + self.secret).hexdigest()[:8]

    def reference(self, ins: Ins) -> str:
        """``<fingerprint>:<hash>``: the same for the same INS and authority, whoever computes it with this key."""
        text = f"{ins.oid}|{ins.matricule}".encode()
        return f"{self.fingerprint}:{hmac.new(self.secret, text, hashlib.sha256).hexdigest()}"

    @property
    def sealing(self) -> bytes:
        """The key under which the journal is sealed (``record.seals``): another one, made from this one."""
        return hmac.new(self.secret, b"drimbox journal seal", hashlib.sha256).digest()


def load_patient_key(path: Path) -> PatientKey:
    """The key in ``path``; made there, readable by the owner alone, the first time.

    Raises ``Misconfigured`` (``audit-key``) when the file cannot be read or made, or is not a key.
    """
    try:
        secret = own_secret(path)
    except ValueError as error:
        raise Misconfigured(
            f"Clé du journal d'audit abîmée : {path}. Restaurez-la depuis la sauvegarde.", code="audit-key"
        ) from error
    except OSError as error:
        raise Misconfigured(
            f"Clé du journal d'audit illisible ou impossible à créer : {path}. Restaurez-la depuis la sauvegarde.",
            code="audit-key",
        ) from error
    return PatientKey(secret)
