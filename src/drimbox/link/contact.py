"""How the site reaches a patient: what the report that the link names says of them (CDA recordTarget)."""

from __future__ import annotations

import asyncio
import re

from drimbox.foundation import xml
from drimbox.foundation.errors import Refused
from drimbox.link.ports import Contact
from drimbox.publication.kos import ArchivedKos
from drimbox.reports import hl7
from drimbox.reports.cda import document_root
from drimbox.reports.reading import document_of
from drimbox.store.database import Pool

_NS = {"h": "urn:hl7-org:v3"}
_ROLE = "h:recordTarget/h:patientRole"
_CITY = f"{_ROLE}/h:patient/h:birthplace/h:place/h:addr/h:city"
# What no mail server and no header can misread; others are left to the webhook's own directory.
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}")
_MOBILE = re.compile(r"(?:\+33|0)[67][0-9]{8}")
_MAX_TELECOMS = 50


class StoredContacts:
    """Reads the message that brought a report once more."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of(self, archived: ArchivedKos, document_id: str) -> Contact:
        """What the newest message of that document says; nothing where none came (an imported archive)."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT raw FROM message JOIN report ON report.message_id = message.id WHERE report.document_id = %s "
                "AND report.structure = %s AND report.operation <> 'delete' ORDER BY report.id DESC LIMIT 1",
                (document_id, archived.structure),
                binary=True,
            )
            row = await cursor.fetchone()
        if row is None:
            return Contact()
        return await asyncio.to_thread(contact_in, bytes(row["raw"]))


def contact_in(message: bytes) -> Contact:
    """What the CDA inside a message says; nothing where it cannot be read."""
    try:
        return contact_of(document_root(document_of(hl7.parse(message))))
    except Refused:
        return Contact()


def contact_of(root: xml.Element) -> Contact:
    """The first address and the first mobile number that can be used, in the order of the document."""
    told = [element.get("value", "").strip() for element in root.findall(f"{_ROLE}/h:telecom", _NS)[:_MAX_TELECOMS]]
    emails = (value[7:] for value in told if value.lower().startswith("mailto:"))
    numbers = (re.sub(r"[ .-]", "", value[4:]) for value in told if value.lower().startswith("tel:"))
    city = root.find(_CITY, _NS)
    return Contact(
        email=next((one for one in emails if _EMAIL.fullmatch(one)), ""),
        mobile=next((one for one in numbers if _MOBILE.fullmatch(one)), ""),
        birth_city=xml.text_of(city) if city is not None else "",
    )
