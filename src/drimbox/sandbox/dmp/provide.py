"""ITI-41 (TD2.1): a set of KOS and its signature is judged, then registered or refused whole (standards.md D.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drimbox.sandbox.dmp import documents
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.answers import Reply, registry_response
from drimbox.sandbox.dmp.association_rules import ASSOCIATION_RULES
from drimbox.sandbox.dmp.ebrim import RegistryObject, Submission, read_submission
from drimbox.sandbox.dmp.entry_rules import ENTRY_RULES, EntryCase
from drimbox.sandbox.dmp.hearing import Hearing
from drimbox.sandbox.dmp.kos_entry_rules import KOS_ENTRY_RULES
from drimbox.sandbox.dmp.kos_rules import judge_kos
from drimbox.sandbox.dmp.registering import new_identifiers, stored_association, stored_entry, stored_submission
from drimbox.sandbox.dmp.registry_rules import REPLACEMENT_RULES, UNIQUENESS_RULES, EntryToRegister, Replacement
from drimbox.sandbox.dmp.rules import judge, stated
from drimbox.sandbox.dmp.schemas import schema_error
from drimbox.sandbox.dmp.set_rules import RECORD_RULES, SET_RULES, SetCase
from drimbox.sandbox.dmp.signature_entry_rules import SIGNATURE_ENTRY_RULES
from drimbox.sandbox.dmp.xades import SignatureCase, judge_signature, read_signature

SCHEMA = stated(
    "PROVIDE.SCHEMA", v.MALFORMED, "The body is valid against IHE XDS.b, documents inlined (standards.md D.2)."
)


@dataclass(frozen=True, slots=True)
class _Publication:
    """A submission with its octets, cut in documents and signature."""

    submission: Submission
    contents: Mapping[str, bytes]

    @property
    def signature(self) -> RegistryObject:
        source = self.submission.of_kind(v.SIGNS)[0].source
        return next(e for e in self.submission.entries if e.id == source)

    @property
    def documents(self) -> tuple[RegistryObject, ...]:
        return tuple(e for e in self.submission.entries if e.id != self.signature.id)


def provide(hearing: Hearing) -> Reply:
    """Judge and register. Raises ``Breach`` with nothing registered."""
    bench, vihf = hearing.bench, hearing.vihf
    contents = documents.octets(hearing.message)
    error = schema_error(bench.schemas.xds, documents.inlined(hearing.message.body, contents))
    request = hearing.message.body.find(f"{{{v.LCM}}}SubmitObjectsRequest")
    if error is not None or request is None:
        raise SCHEMA.broken(error or "lcm:SubmitObjectsRequest attendu")
    publication = _Publication(read_submission(request), contents)
    case = SetCase(bench, vihf, publication.submission)
    judge(SET_RULES, case)
    judge(RECORD_RULES, case)
    judge(ASSOCIATION_RULES, case)
    documents.matched(publication.submission, contents)
    _judge_entries(hearing, publication)
    _judge_content(hearing, publication)
    with bench.store.transaction():
        _register(hearing, publication)
    return Reply(f"{v.PROVIDE}Response", registry_response(v.SUCCESS), mtom=True)


def _judge_entries(hearing: Hearing, publication: _Publication) -> None:
    for entry in publication.submission.entries:
        case = EntryCase(hearing.bench, hearing.vihf, entry, publication.contents[entry.id])
        own = SIGNATURE_ENTRY_RULES if entry.id == publication.signature.id else KOS_ENTRY_RULES
        judge(own, case, location=entry.id)
        judge(ENTRY_RULES, case, location=entry.id)


def _judge_content(hearing: Hearing, publication: _Publication) -> None:
    bench, contents = hearing.bench, publication.contents
    for entry in publication.documents:
        judge_kos(EntryCase(bench, hearing.vihf, entry, contents[entry.id]))
    judge_signature(
        SignatureCase(
            bench,
            read_signature(contents[publication.signature.id]),
            publication.submission.set.identifier(v.SET_UNIQUE),
            {e.identifier(v.ENTRY_UNIQUE): contents[e.id] for e in publication.documents},
            hearing.unit,
        )
    )


def _register(hearing: Hearing, publication: _Publication) -> None:
    bench, submission = hearing.bench, publication.submission
    unique_ids = [e.identifier(v.ENTRY_UNIQUE) for e in submission.entries]
    for entry in submission.entries:
        judge(UNIQUENESS_RULES, EntryToRegister(bench, entry, publication.contents[entry.id], unique_ids))
    replaced = submission.of_kind(v.REPLACES)
    for association in replaced:
        target = bench.store.entry(uuid=association.target)
        judge(REPLACEMENT_RULES, Replacement(bench, hearing.vihf, target), location=association.target)
    ids = new_identifiers(submission)
    lot = stored_submission(submission.set, ids, kind="provide", now=bench.now)
    bench.store.register(
        lot,
        [
            (
                stored_entry(
                    e, publication.contents[e.id], ids, lot.uuid, repository=bench.policy.repository, now=bench.now
                ),
                publication.contents[e.id],
            )
            for e in submission.entries
        ],
        [stored_association(a, ids) for a in submission.associations],
        [(a.target, v.DEPRECATED) for a in replaced],
    )
