"""XDS metadata: typed objects, their ebRIM form in both directions, and the entries that this box publishes."""

from drimbox.national.dmp.metadata.build import (
    Device,
    KosCoding,
    content_type_of,
    kos_entry,
    person_author,
    signature_entry,
    submission_draft,
)
from drimbox.national.dmp.metadata.datatypes import Cx, Dtm, Xcn, Xon
from drimbox.national.dmp.metadata.model import (
    Association,
    Author,
    DocumentEntry,
    RegistryObjects,
    SubmissionDraft,
    SubmissionSet,
)
from drimbox.national.dmp.metadata.read import read_objects
from drimbox.national.dmp.metadata.write import submit_objects_request

__all__ = [
    "Association",
    "Author",
    "Cx",
    "Device",
    "DocumentEntry",
    "Dtm",
    "KosCoding",
    "RegistryObjects",
    "SubmissionDraft",
    "SubmissionSet",
    "Xcn",
    "Xon",
    "content_type_of",
    "kos_entry",
    "person_author",
    "read_objects",
    "signature_entry",
    "submission_draft",
    "submit_objects_request",
]
