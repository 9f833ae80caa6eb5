"""The DMP of the sandbox: a strict judge of every message, and a registry and repository behind it.

It refuses what the real one would (standards.md D and E, official-data.md 6, ans-faq.md 3 and 5), by its own reading
of the specification. ``service`` leads a request through the rules; ``catalogue`` lists them all.
"""

from drimbox.sandbox.dmp.app import dmp_app, view_app
from drimbox.sandbox.dmp.bench import Authorisation, KnownPatient, KnownStructure, Policy, RecordStatus
from drimbox.sandbox.dmp.faults import FaultKind, OrderedFault
from drimbox.sandbox.dmp.preload import Published
from drimbox.sandbox.dmp.service import Dmp

__all__ = [
    "Authorisation",
    "Dmp",
    "FaultKind",
    "KnownPatient",
    "KnownStructure",
    "OrderedFault",
    "Policy",
    "Published",
    "RecordStatus",
    "dmp_app",
    "view_app",
]
