"""The HTTP interface of the listener, described for a crawler (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

_HTML = {"text/html": {"schema": {"type": "string"}}}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_UID = {"type": "string", "maxLength": 70}


def _responses(*statuses: int, plain: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        str(status): {"description": "", "content": {**_HTML, **(_TEXT if status in (429, *plain) else {})}}
        for status in statuses
    }


def _query(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": {"type": "string", "maxLength": 300}} for name in names]


def _form(**fields: dict[str, Any]) -> dict[str, Any]:
    carried = {
        "jeton": {"type": "string"},
        "requestType": {"enum": ["STUDY", "SERIES", "study", "PATIENT"]},
        "studyUID": _UID,
        "accessionNumber": {"type": "string", "maxLength": 80},
        "idCDA": {"type": "string", "maxLength": 300},
        "seriesUID": _UID,
    }
    schema = {"type": "object", "properties": {**carried, **fields}, "required": ["jeton"]}
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
                    "requestBody": _form(visiteur={"enum": ["patient", "professional", "autre"]}),
                    "responses": _responses(200, 503, *refused),
                }
            },
            "/lien/identite": {
                "post": {
                    "requestBody": _form(naissance=text, sexe={"enum": ["F", "M", "X", ""]}, lieu=text),
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
