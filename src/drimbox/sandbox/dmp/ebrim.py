"""The ebRIM objects of a submission, read whatever their faults: the rules come after (ITI TF-3 4.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from drimbox.foundation.xml import Element, text_of
from drimbox.sandbox.dmp import datatypes
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.datatypes import Institution, Person


@dataclass(frozen=True, slots=True)
class Code:
    """A coded classification: nodeRepresentation, codingScheme (empty unless exactly one), label."""

    code: str
    scheme: str
    label: str


@dataclass(frozen=True, slots=True)
class Author:
    """One author classification, with its raw values; ``person`` and ``institutions`` None or short when malformed."""

    persons: tuple[str, ...]
    organisations: tuple[str, ...]
    roles: tuple[str, ...]
    specialities: tuple[str, ...]

    @property
    def person(self) -> Person | None:
        return datatypes.person(self.persons[0]) if len(self.persons) == 1 else None

    @property
    def institutions(self) -> tuple[Institution, ...]:
        return tuple(i for i in map(datatypes.institution, self.organisations) if i is not None)


@dataclass(frozen=True, slots=True)
class RegistryObject:
    """An ExtrinsicObject or a RegistryPackage; ``repeated_slots`` are its own and its classifications'."""

    element: Element
    id: str
    slots: Mapping[str, tuple[str, ...]]
    repeated_slots: tuple[str, ...]
    title: str
    comments: str
    codes: Mapping[str, tuple[Code, ...]]
    authors: tuple[Author, ...]
    identifiers: Mapping[str, tuple[str, ...]]

    def slot(self, name: str) -> str:
        """The value of a slot that has exactly one; else empty."""
        values = self.slots.get(name, ())
        return values[0] if len(values) == 1 else ""

    def identifier(self, scheme: str) -> str:
        """The value of an external identifier that stands once; else empty."""
        values = self.identifiers.get(scheme, ())
        return values[0] if len(values) == 1 else ""

    def only_code(self, scheme: str) -> Code | None:
        found = self.codes.get(scheme, ())
        return found[0] if len(found) == 1 else None

    @property
    def institutions(self) -> tuple[str, ...]:
        """The Struct_IdNat of all authors' institutions."""
        return tuple(dict.fromkeys(i.identifier for a in self.authors for i in a.institutions))

    def __repr__(self) -> str:
        return f"RegistryObject({self.id})"


@dataclass(frozen=True, slots=True)
class Association:
    """An association of the submission."""

    element: Element
    id: str
    kind: str
    source: str
    target: str
    slots: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Submission:
    """What a SubmitObjectsRequest brings. ``others`` are objects of no expected kind."""

    packages: tuple[RegistryObject, ...]
    entries: tuple[RegistryObject, ...]
    associations: tuple[Association, ...]
    others: tuple[str, ...]

    @property
    def set(self) -> RegistryObject:
        return self.packages[0]

    def of_kind(self, kind: str) -> tuple[Association, ...]:
        return tuple(a for a in self.associations if a.kind == kind)


def rim(name: str) -> str:
    return f"{{{v.RIM}}}{name}"


def read_submission(request: Element) -> Submission:
    """Read an ``lcm:SubmitObjectsRequest``."""
    listed = request.find(rim("RegistryObjectList"))
    children = list(listed.iterchildren(etree.Element)) if listed is not None else []
    known = {rim("RegistryPackage"), rim("ExtrinsicObject"), rim("Association")}
    return Submission(
        packages=tuple(read_object(c, v.SET_AUTHOR) for c in children if c.tag == rim("RegistryPackage")),
        entries=tuple(read_object(c, v.ENTRY_AUTHOR) for c in children if c.tag == rim("ExtrinsicObject")),
        associations=tuple(_association(c) for c in children if c.tag == rim("Association")),
        others=tuple(etree.QName(c).localname for c in children if c.tag not in known),
    )


def read_object(element: Element, author_scheme: str) -> RegistryObject:
    """Read an ExtrinsicObject or a RegistryPackage."""
    codes: dict[str, list[Code]] = {}
    authors: list[Author] = []
    for found in element.findall(rim("Classification")):
        scheme = found.get("classificationScheme", "")
        slots = _slots(found)
        if scheme == author_scheme:
            authors.append(_author(slots))
        elif scheme:
            schemes = slots.get("codingScheme", ())
            code = Code(found.get("nodeRepresentation", ""), schemes[0] if len(schemes) == 1 else "", _label(found))
            codes.setdefault(scheme, []).append(code)
    identifiers: dict[str, list[str]] = {}
    for found in element.findall(rim("ExternalIdentifier")):
        identifiers.setdefault(found.get("identificationScheme", ""), []).append(found.get("value", ""))
    return RegistryObject(
        element=element,
        id=element.get("id", ""),
        slots=_slots(element),
        repeated_slots=tuple(name for part in (element, *element) for name in _repeated(part)),
        title=_label(element),
        comments=_label(element, "Description"),
        codes={scheme: tuple(found) for scheme, found in codes.items()},
        authors=tuple(authors),
        identifiers={scheme: tuple(found) for scheme, found in identifiers.items()},
    )


def _association(element: Element) -> Association:
    return Association(
        element,
        element.get("id", ""),
        element.get("associationType", ""),
        element.get("sourceObject", ""),
        element.get("targetObject", ""),
        _slots(element),
    )


def _author(slots: Mapping[str, tuple[str, ...]]) -> Author:
    return Author(
        slots.get("authorPerson", ()),
        slots.get("authorInstitution", ()),
        slots.get("authorRole", ()),
        slots.get("authorSpecialty", ()),
    )


def _slots(element: Element) -> dict[str, tuple[str, ...]]:
    return {
        slot.get("name", ""): tuple(text_of(value) for value in slot.iterfind(f"{rim('ValueList')}/{rim('Value')}"))
        for slot in element.findall(rim("Slot"))
    }


def _repeated(element: Element) -> list[str]:
    counted = Counter(s.get("name", "") for s in element.findall(rim("Slot")))
    return [name for name, count in counted.items() if count > 1]


def _label(element: Element, tag: str = "Name") -> str:
    found = element.find(f"{rim(tag)}/{rim('LocalizedString')}")
    return found.get("value", "") if found is not None else ""
