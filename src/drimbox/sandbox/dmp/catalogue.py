"""Every rule of the judge, in one list: for its documentation, and for the test that each one is really kept."""

from __future__ import annotations

from typing import Any

from drimbox.sandbox.dmp import (
    access,
    association_rules,
    documents,
    door,
    entry_rules,
    habilitations,
    kos_entry_rules,
    kos_rules,
    packaging,
    patients,
    provide,
    queries,
    query_slots,
    registry_rules,
    retrieve,
    service,
    set_rules,
    signature_entry_rules,
    soap,
    update,
    vihf_claims,
    vihf_token,
    xades,
)
from drimbox.sandbox.dmp.rules import Rule


def catalogue() -> tuple[Rule[Any], ...]:
    """All rules, in the order in which a request meets them."""
    return (
        door.no_certificate,
        *door.DOOR_RULES,
        packaging.HTTP_SIZE,
        packaging.HTTP_TYPE,
        packaging.http_media,
        packaging.http_charset,
        packaging.MTOM_FORM,
        *packaging.PACKAGE_RULES,
        soap.SOAP_XML_FORM,
        *soap.ENVELOPE_RULES,
        *service.STATED,
        *vihf_token.TOKEN_RULES,
        *vihf_claims.CLAIM_RULES,
        documents.MTOM,
        documents.CID,
        documents.UNUSED,
        documents.MISSING,
        documents.EXTRA,
        provide.SCHEMA,
        *set_rules.SET_RULES,
        *set_rules.RECORD_RULES,
        *association_rules.ASSOCIATION_RULES,
        *entry_rules.ENTRY_RULES,
        *kos_entry_rules.KOS_ENTRY_RULES,
        *signature_entry_rules.SIGNATURE_ENTRY_RULES,
        kos_rules.READABLE,
        *kos_rules.KOS_RULES,
        xades.READABLE,
        *xades.XADES_RULES,
        *registry_rules.UNIQUENESS_RULES,
        *registry_rules.REPLACEMENT_RULES,
        update.SCHEMA,
        update.only,
        *update.CHANGE_RULES,
        *access.ACCESS_RULES,
        *query_slots.STATED,
        *queries.STATED,
        *retrieve.STATED,
        *patients.EXISTENCE_RULES,
        *habilitations.AUTHORISE_RULES,
    )
