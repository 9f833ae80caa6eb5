"""The OASIS and IHE schemas, used when the operator of the sandbox has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxml import etree

from drimbox.foundation.xml import Element


@dataclass(frozen=True, slots=True)
class Schemas:
    """Compiled schemas; None where none were given, and then nothing is validated against them."""

    xds: etree.XMLSchema | None = None
    lcm: etree.XMLSchema | None = None
    query: etree.XMLSchema | None = None
    saml: etree.XMLSchema | None = None


def load_schemas(folder: Path | None) -> Schemas:
    """Read ``xds/`` and ``saml/`` of a schema folder. Raises ``OSError`` when one is missing."""
    if folder is None:
        return Schemas()
    xds, saml = folder / "xds", folder / "saml"
    return Schemas(
        xds=_compiled(xds / "IHE" / "IHEXDSB.xsd"),
        lcm=_compiled(xds / "ebRS30" / "lcm.xsd"),
        query=_compiled(xds / "ebRS30" / "query.xsd"),
        saml=_compiled(saml / "sstc-saml-schema-assertion-2.0.xsd"),
    )


def schema_error(schema: etree.XMLSchema | None, element: Element) -> str | None:
    """The element of a violation, named without any value of the message (it may be health data)."""
    if schema is None or schema.validate(element):
        return None
    errors: Any = schema.error_log  # its items are not in the stubs of lxml
    return f"non conforme au schéma XML : {errors[0].type_name} en {errors[0].path}"


def _compiled(path: Path) -> etree.XMLSchema:
    # A schema file is the operator's own: the DTD of xmldsig-core-schema.xsd is not fetched, only its imports are read.
    return etree.XMLSchema(etree.parse(str(path), etree.XMLParser(no_network=True, load_dtd=False)))
