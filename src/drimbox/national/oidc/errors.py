"""What went wrong with a provider, told as the provider's and not as Pro Santé Connect's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drimbox.foundation.errors import Busy, DrimboxError, Misconfigured, OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.national.psc.jwt import BadToken

_WHO = "Le fournisseur d'identité des patients"


@contextmanager
def of_provider() -> Iterator[None]:
    """Whatever the pieces of ``national.psc`` raise, under the codes of this room.

    ``Refused`` (``oidc-token``), ``Rejected`` (``oidc-refused``), ``Busy`` or ``Unavailable`` (``oidc-unavailable``),
    ``Misconfigured`` (``oidc-registration``).
    """
    try:
        yield
    except DrimboxError as error:
        raise _told(error) from error


def _told(error: DrimboxError) -> DrimboxError:
    peer = error.peer_code
    match error:
        case BadToken():
            return Refused(f"Jeton du fournisseur d'identité refusé : {error.what}", code="oidc-token")
        case Busy():
            reason = f"{_WHO} est momentanément indisponible"
            return Busy(reason, code="oidc-unavailable", peer_code=peer, retry_after=error.retry_after)
        case Unavailable() | OutcomeUnknown():
            return Unavailable(f"{_WHO} ne répond pas comme attendu", code="oidc-unavailable", peer_code=peer)
        case Misconfigured():
            reason = f"{_WHO} refuse cette DRIMbox, ou ne se décrit pas comme attendu : vérifiez [link.oidc]"
            return Misconfigured(reason, code="oidc-registration", peer_code=peer or error.code)
        case Rejected():
            return Rejected(f"{_WHO} a refusé le code de connexion", code="oidc-refused", peer_code=peer)
        case _:
            return error
