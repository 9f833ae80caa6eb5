"""The HTTP interface of the listener, described for a crawler (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

_HTML = {"text/html": {"schema": {"type": "string"}}}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_UID = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-2](\.[1-9][0-9]{0,5}){1,6}$"},
        {"type": "string", "maxLength": 70},
    ]
}
_LINK: dict[str, Any] = {
    # Half of what is generated is what a RIS could have written: the crawl is to get beyond the first look.
    "requestType": {"enum": ["STUDY", "SERIES", "study", "PATIENT"]},
    "studyUID": _UID,
    "accessionNumber": {
        "anyOf": [{"type": "string", "pattern": "^[A-Z0-9]{1,16}$"}, {"type": "string", "maxLength": 80}]
    },
    "idCDA": _UID,
    "seriesUID": _UID,
}


_WHOLE = ("requestType", "studyUID", "accessionNumber", "idCDA")


def _responses(*statuses: int, plain: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        str(status): {"description": "", "content": {**_HTML, **(_TEXT if status in (429, *plain) else {})}}
        for status in statuses
    }


def _query(*names: str) -> list[dict[str, Any]]:
    text = {"type": "string", "maxLength": 300}
    return [
        {"name": name, "in": "query", "schema": _LINK.get(name, text), "required": name in _WHOLE} for name in names
    ]


def _form(*, whole: bool = False, **fields: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"jeton": {"type": "string"}, **_LINK, **fields},
        "required": ["jeton", *(_WHOLE if whole else ())],
    }
    return {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}


def description() -> dict[str, Any]:
    """Every address before a visit, and those around it."""
    key = [{"name": "key", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}]
    text = {"type": "string", "maxLength": 300}
    refused = (400, 404, 413, 429)
    return {
        "openapi": "3.1.0",
        "info": {"title": "the link in a report", "version": "1"},
        "paths": {
            "/IHEInvokeImageDisplay": {
                "get": {
                    "parameters": _query(
                        "requestType", "studyUID", "accessionNumber", "idCDA", "seriesUID", "viewerType", "patientID"
                    ),
                    "responses": _responses(200, 404, 429),
                }
            },
            "/lien/visiteur": {
                "post": {
                    "requestBody": _form(whole=True, visiteur={"enum": ["patient", "professional", "autre"]}),
                    "responses": _responses(200, 503, *refused),
                }
            },
            "/lien/identite": {
                "post": {
                    "requestBody": _form(whole=True, naissance=text, sexe={"enum": ["F", "M", "X", ""]}, lieu=text),
                    "responses": _responses(200, 422, *refused),
                }
            },
            "/lien/code": {
                "post": {
                    "requestBody": _form(billet=text, code=text),
                    "responses": _responses(303, 403, *refused),
                }
            },
            "/connexion/retour": {
                "get": {
                    "parameters": _query("state", "code", "error", "iss"),
                    "responses": _responses(303, 400, 403, 404, 429),
                }
            },
            "/lien/identite/retour": {
                "get": {
                    "parameters": _query("state", "code", "error", "iss"),
                    "responses": _responses(303, 400, 403, 404, 429),
                }
            },
            "/lien/cles.json": {"get": {"responses": _responses(200, 404, 429)}},
            "/psc/deconnexion": {
                "post": {
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/x-www-form-urlencoded": {
                                "schema": {"type": "object", "properties": {"logout_token": text}}
                            }
                        },
                    },
                    "responses": _responses(200, 400, 413, 429),
                }
            },
            "/psc/deconnexion-navigateur": {
                "get": {"parameters": _query("iss", "sid"), "responses": _responses(200, 400, 429)}
            },
            "/lien/au-revoir": {"get": {"responses": _responses(200)}},
            "/au-revoir": {"get": {"responses": _responses(200)}},
            "/visite/{key}": {"get": {"parameters": key, "responses": _responses(200, 404, plain=(404,))}},
            "/visite/{key}/fin": {
                "get": {"parameters": key, "responses": _responses(200, 404, plain=(404,))},
                "post": {
                    "parameters": key,
                    "requestBody": _form(),
                    "responses": _responses(200, 400, 404, 413, plain=(400, 404, 413)),
                },
            },
        },
    }
