"""The accounts and the settings, for administrators. Nobody changes their own rights."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from drimbox.console.account import Account, Role, normal_login
from drimbox.console.passwords import provisional
from drimbox.console.web.desk import Desk, Forbidden, NotHere, Visitor, desk_of, number, page, see_other
from drimbox.foundation.errors import Refused

ROLE_LABELS = {
    Role.OPERATOR: "Opérateur : la file, les examens archivés",
    Role.ADMINISTRATOR: "Administrateur : les comptes, les réglages",
    Role.AUDITOR: "Auditeur : le journal des traces",
    Role.MESSAGES: "Lecture des messages bruts (données de santé), en plus du rôle d'opérateur",
}


async def listed(request: Request, visitor: Visitor) -> Response:
    return await _list_page(request, visitor)


async def add(request: Request, visitor: Visitor) -> Response:
    """A new account; its first password, if it has one, is shown this once."""
    desk = desk_of(request)
    national_id = visitor.field("national").strip()
    password = provisional() if visitor.field("avec_mot_de_passe") else None
    try:
        account = await desk.accounts.add(
            login=normal_login(visitor.field("identifiant")),
            name=visitor.field("nom"),
            roles=visitor.fields.get("role", ()),
            national_id=national_id,
            password=await desk.passwords.hasher.hashed(password) if password else None,
            by=visitor.actor,
        )
    except Refused as error:
        return await _list_page(request, visitor, message=error.reason, typed=visitor)
    return _account_page(request, visitor, account, password=password or "")


async def shown(request: Request, visitor: Visitor) -> Response:
    return _account_page(request, visitor, await _account(desk_of(request), request))


async def set_roles(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    account = await _someone_else(desk, request, visitor)
    try:
        account = await desk.accounts.set_roles(account.id, visitor.fields.get("role", ()), visitor.actor)
    except Refused as error:
        return _account_page(request, visitor, account, message=error.reason, status=400)
    visitor.session.tell(f"Droits de {account.name} enregistrés. Ses sessions ouvertes sont fermées.")
    return see_other(f"/comptes/{account.id}")


async def set_identity(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    account = await _someone_else(desk, request, visitor)
    try:
        account = await desk.accounts.set_identity(
            account.id, visitor.field("nom"), visitor.field("national"), visitor.actor
        )
    except Refused as error:
        return _account_page(request, visitor, account, message=error.reason, status=400)
    visitor.session.tell(f"Identité de {account.name} enregistrée.")
    return see_other(f"/comptes/{account.id}")


async def lock(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    account = await _someone_else(desk, request, visitor)
    await desk.accounts.lock(account.id, visitor.actor)
    visitor.session.tell(f"Compte de {account.name} verrouillé. Ses sessions ouvertes sont fermées.")
    return see_other(f"/comptes/{account.id}")


async def unlock(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    account = await _someone_else(desk, request, visitor)
    await desk.accounts.unlock(account.id, visitor.actor)
    visitor.session.tell(f"Compte de {account.name} déverrouillé.")
    return see_other(f"/comptes/{account.id}")


async def new_password(request: Request, visitor: Visitor) -> Response:
    """A provisional password in the place of the one that was, shown this once."""
    desk = desk_of(request)
    account = await _someone_else(desk, request, visitor)
    password = provisional()
    account = await desk.accounts.set_password(
        account.id,
        await desk.passwords.hasher.hashed(password),
        visitor.actor,
        former=desk.passwords.rules.former,
        must_change=True,
    )
    return _account_page(request, visitor, account, password=password)


async def settings(request: Request, visitor: Visitor) -> Response:
    """The settings in force, to read."""
    return page(request, "settings.html", visitor=visitor, lines=desk_of(request).settings)


async def _list_page(
    request: Request, visitor: Visitor, *, message: str = "", typed: Visitor | None = None
) -> Response:
    desk = desk_of(request)
    return page(
        request,
        "accounts.html",
        visitor=visitor,
        status=400 if message else 200,
        accounts=await desk.accounts.all(),
        message=message,
        typed=typed,
        roles=ROLE_LABELS,
        locking=desk.passwords.locking,
    )


def _account_page(
    request: Request, visitor: Visitor, account: Account, *, message: str = "", password: str = "", status: int = 200
) -> Response:
    desk = desk_of(request)
    return page(
        request,
        "account.html",
        visitor=visitor,
        status=status,
        account=account,
        message=message,
        password=password,
        own=account.id == visitor.account.id,
        roles=ROLE_LABELS,
        locking=desk.passwords.locking,
        first_days=desk.passwords.rules.first_days,
    )


async def _account(desk: Desk, request: Request) -> Account:
    account_id = number(request.path_params["account"])
    account = await desk.accounts.by_id(account_id) if account_id is not None else None
    if account is None:
        raise NotHere("Ce compte n'existe pas")
    return account


async def _someone_else(desk: Desk, request: Request, visitor: Visitor) -> Account:
    account = await _account(desk, request)
    if account.id == visitor.account.id:
        raise Forbidden("Personne ne change ses propres droits : demandez à un autre administrateur")
    return account
