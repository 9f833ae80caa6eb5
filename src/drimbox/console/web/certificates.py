"""The market certificate of the viewer host, for administrators: order, install, revoke, see when it is renewed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from drimbox.certificates import words
from drimbox.certificates.acts import REASONS, CertificateActs, CertificateRefused, pem_of
from drimbox.certificates.requests import KEY_KINDS, OV_ORDER
from drimbox.certificates.rules import RulesBroken
from drimbox.console.web.desk import NotHere, Visitor, desk_of, number, page, see_other
from drimbox.foundation.errors import DrimboxError

PLACE = "/certificats"


async def shown(request: Request, visitor: Visitor) -> Response:
    return await _page(request, visitor)


async def order(request: Request, visitor: Visitor) -> Response:
    """A new one now, whether it is the first or not."""
    acts = _acts(request)
    try:
        visitor.session.tell(await acts.renew(visitor.actor))
    except DrimboxError as error:
        return await _page(request, visitor, error=error)
    return see_other(PLACE)


async def request_one(request: Request, visitor: Visitor) -> Response:
    kind = visitor.field("cle")
    organisation = " ".join(visitor.field("organisme").split())[:64]
    if kind not in KEY_KINDS or not organisation.isprintable():
        raise NotHere("Ce type de clé n'existe pas")
    try:
        kept = await _acts(request).request(visitor.actor, key_kind=kind, organisation=organisation)
    except DrimboxError as error:
        return await _page(request, visitor, error=error)
    visitor.session.tell(f"Demande n° {kept.id} faite : téléchargez-la et donnez-la à l'autorité. Sa clé reste ici.")
    return see_other(PLACE)


async def install(request: Request, visitor: Visitor) -> Response:
    typed = visitor.field("certificat")
    if "PRIVATE KEY" in typed:
        # It goes no further, and is not shown again.
        return await _page(
            request,
            visitor,
            error=CertificateRefused(
                "Une clé privée a été collée : elle n'a pas été gardée. Demandez un autre certificat avec une "
                "autre clé, et ne donnez ici que le certificat et sa chaîne",
                "market-private-key",
            ),
        )
    try:
        visitor.session.tell(await _acts(request).install(typed.encode("utf-8", "replace"), visitor.actor))
    except DrimboxError as error:
        return await _page(request, visitor, error=error, typed=typed)
    return see_other(PLACE)


async def revoke(request: Request, visitor: Visitor) -> Response:
    chosen = number(visitor.field("numero"))
    if chosen is None:
        raise NotHere("Ce certificat n'existe pas")
    if visitor.field("confirme") != "oui":
        raise NotHere("La révocation n'est pas confirmée : elle ne peut pas être défaite")
    try:
        visitor.session.tell(
            await _acts(request).revoke(
                chosen,
                visitor.field("motif"),
                visitor.actor,
                with_certificate_key=visitor.field("par") == "certificat",
            )
        )
    except DrimboxError as error:
        return await _page(request, visitor, error=error)
    return see_other(PLACE)


async def change_account_key(request: Request, visitor: Visitor) -> Response:
    try:
        visitor.session.tell(await _acts(request).change_account_key(visitor.field("autorite"), visitor.actor))
    except DrimboxError as error:
        return await _page(request, visitor, error=error)
    return see_other(PLACE)


async def withdraw(request: Request, visitor: Visitor) -> Response:
    chosen = number(request.path_params["request"]) or 0
    visitor.session.tell(await _acts(request).withdraw(chosen, visitor.actor))
    return see_other(PLACE)


async def download(request: Request, visitor: Visitor) -> Response:
    """A request (CSR) as it is given to an authority; it holds no secret."""
    acts, chosen = _acts(request), number(request.path_params["request"])
    found = next((r for r in (await acts.state()).requests if r.id == chosen), None)
    if found is None:
        raise NotHere("Cette demande n'existe pas, ou n'attend plus")
    headers = {"Content-Disposition": f'attachment; filename="{acts.host}-{found.id}.csr"'}
    return Response(pem_of(found), media_type="application/pkcs10", headers=headers)


async def _page(request: Request, visitor: Visitor, *, error: DrimboxError | None = None, typed: str = "") -> Response:
    acts = _acts(request)
    state = await acts.state()
    messages = [b.text for b in error.breaches] if isinstance(error, RulesBroken) else [error.reason] if error else []
    return page(
        request,
        "certificates.html",
        visitor=visitor,
        status=400 if error is not None else 200,
        messages=messages,
        peer=error.peer_code if error is not None else None,
        typed=typed,
        acts=acts,
        state=state,
        accounts={kept.directory: kept for kept in state.accounts},
        words=words,
        reasons=REASONS,
        kinds=KEY_KINDS,
        ov_order=OV_ORDER,
    )


def _acts(request: Request) -> CertificateActs:
    acts = desk_of(request).certificates
    if acts is None:
        raise NotHere("Le certificat de la visionneuse n'est pas configuré ici ([market_certificate])")
    return acts
