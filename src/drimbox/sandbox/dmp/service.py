"""The DMP itself: from a request to its answer, every rule on the way, every verdict in the journal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from drimbox.foundation.clock import Clock, iso_utc
from drimbox.sandbox.dmp import queries, retrieve, vihf
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.answers import (
    HttpAnswer,
    RegistryError,
    Reply,
    answer,
    fault,
    registry_error,
    registry_response,
)
from drimbox.sandbox.dmp.bench import Authorisation, Bench, KnownPatient, KnownStructure, Policy
from drimbox.sandbox.dmp.certificates import load_anchors
from drimbox.sandbox.dmp.door import DOOR_RULES, Caller, no_certificate
from drimbox.sandbox.dmp.faults import FaultKind, Faults
from drimbox.sandbox.dmp.habilitations import authorise
from drimbox.sandbox.dmp.hearing import Hearing
from drimbox.sandbox.dmp.packaging import HttpRequest
from drimbox.sandbox.dmp.patients import existence
from drimbox.sandbox.dmp.preload import Published, preload
from drimbox.sandbox.dmp.provide import provide
from drimbox.sandbox.dmp.rules import Breach, Fault, judge, stated
from drimbox.sandbox.dmp.schemas import load_schemas
from drimbox.sandbox.dmp.soap import Message, read_message
from drimbox.sandbox.dmp.store import Store, Verdict
from drimbox.sandbox.dmp.update import update
from drimbox.sandbox.dmp.vihf import Presented, read_vihf
from drimbox.sandbox.dmp.vihf_claims import CLAIM_RULES
from drimbox.sandbox.dmp.vihf_token import TOKEN_RULES

ACTION = stated(
    "WSA.SERVICE",
    v.ACTION_NOT_SUPPORTED,
    "The action is one of this service, and the body is its request (standards.md D.1).",
)
MESSAGE_REPLAY = stated(
    "WSA.REPLAY", v.INVALID_ADDRESSING, "A MessageID is never seen twice (standards.md D.2; WS-Addressing)."
)
ASSERTION_REPLAY = stated(
    "VIHF.REPLAY", v.INVALID_TOKEN, "An assertion ID is never seen twice: one VIHF per transaction (E)."
)
STATED = (ACTION, MESSAGE_REPLAY, ASSERTION_REPLAY)

_BOTH = frozenset({vihf.INDIRECT, vihf.REINFORCED})
_REINFORCED = frozenset({vihf.REINFORCED})


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction: where, by which action, on which body, in which modes, and how it fails.

    ``failed`` makes the registry answer of a breach; None where only SOAP faults tell breaches.
    """

    name: str
    service: str
    action: str
    body: str
    modes: frozenset[str]
    handler: Callable[[Hearing], Reply]
    failed: Callable[[RegistryError], Reply] | None = None
    busy: str = "XDSRegistryBusy"


def _registry_failure(action: str, *, mtom: bool = False) -> Callable[[RegistryError], Reply]:
    return lambda error: Reply(f"{action}Response", registry_response(v.FAILURE, [error]), mtom=mtom)


def _query_failure(error: RegistryError) -> Reply:
    response = registry_response(v.FAILURE, [error], wrapped=queries.response(v.FAILURE))
    return Reply(f"{v.STORED_QUERY}Response", response)


def _retrieve_failure(error: RegistryError) -> Reply:
    return Reply(f"{v.RETRIEVE}Response", retrieve.response(v.FAILURE, [error], []), mtom=True)


TRANSACTIONS = (
    Transaction(
        "ITI-41",
        "repository",
        v.PROVIDE,
        f"{{{v.XDSB}}}ProvideAndRegisterDocumentSetRequest",
        _BOTH,
        provide,
        _registry_failure(v.PROVIDE, mtom=True),
        "XDSRepositoryBusy",
    ),
    Transaction(
        "ITI-43",
        "repository",
        v.RETRIEVE,
        f"{{{v.XDSB}}}RetrieveDocumentSetRequest",
        _REINFORCED,
        retrieve.retrieve,
        _retrieve_failure,
        "XDSRepositoryBusy",
    ),
    Transaction(
        "ITI-18", "registry", v.STORED_QUERY, f"{{{v.QUERY}}}AdhocQueryRequest", _BOTH, queries.query, _query_failure
    ),
    Transaction(
        "ITI-57",
        "registry",
        v.UPDATE,
        f"{{{v.LCM}}}SubmitObjectsRequest",
        _BOTH,
        update,
        _registry_failure(v.UPDATE),
    ),
    Transaction("TD0.2", "patients", v.EXISTENCE, f"{{{v.HL7}}}PRPA_IN201307UV02", _BOTH, existence),
    Transaction(
        "TD0.3", "habilitations", v.AUTHORISE, f"{{{v.HABILITATIONS}}}setAuthorization", _REINFORCED, authorise
    ),
)
SERVICES = tuple(dict.fromkeys(t.service for t in TRANSACTIONS))


class Dmp:
    """The sandbox DMP: what it holds, whom it knows, and its judgement of requests. Safe between threads."""

    def __init__(
        self,
        *,
        state: Path,
        trust_roots: Sequence[Path],
        revocation_lists: Sequence[Path],
        schema_dir: Path | None,
        structures: Iterable[KnownStructure],
        patients: Iterable[KnownPatient],
        clock: Clock,
        policy: Policy,
    ) -> None:
        self.store = Store(state)
        self.faults = Faults()
        self.policy = policy
        self._clock = clock
        self._anchors = load_anchors(trust_roots, revocation_lists)
        self._schemas = load_schemas(schema_dir)
        self._structures = tuple(structures)
        self._patients = {p.cx: p for p in patients}
        # One request at a time: schema validators are not shared between threads, and a verdict sees a still registry.
        self._lock = threading.Lock()

    def close(self) -> None:
        self.store.close()

    def set_patient(self, patient: KnownPatient) -> None:
        """Add a patient, or change the state of a DMP."""
        with self._lock:
            self._patients = {**self._patients, patient.cx: patient}

    def set_authorisation(self, patient: str, professional: str, state: Authorisation) -> None:
        """What a professional (PS_IdNat) may do in the DMP of a patient (CX)."""
        self.store.set_authorisation(patient, professional, state.value)

    def preload(self, published: Published) -> str:
        """Add a document that somebody else published; returns its entryUUID."""
        return preload(self.store, published, repository=self.policy.repository, now=self._clock.now())

    def judge(self, request: HttpRequest, *, ordered: FaultKind | None = None) -> HttpAnswer:
        """Judge one request and answer it. ``ordered`` is FAULT, BUSY or PARTIAL when such an answer is wanted."""
        with self._lock:
            return _Trial(self.bench(), request, ordered).answer()

    def refuse(self, request: HttpRequest, breach: Breach) -> HttpAnswer:
        """Answer, and write down, a request that was not even read."""
        with self._lock:
            trial = _Trial(self.bench(), request, None)
            trial.write("fault", breach)
            return fault(breach)

    def bench(self) -> Bench:
        """What the judge knows at this moment."""
        return Bench(
            self._clock.now(), self.policy, self._anchors, self._schemas, self._structures, self._patients, self.store
        )


class _Trial:
    """One request on its way through the rules: what is known of it so far, for the answer and the journal."""

    def __init__(self, bench: Bench, request: HttpRequest, ordered: FaultKind | None) -> None:
        self._bench = bench
        self._request = request
        self._ordered = ordered
        self._caller = Caller(bench, request.certificate)
        self._message_id = ""
        self._transaction: Transaction | None = None

    def answer(self) -> HttpAnswer:
        try:
            reply = self._heard()
        except Breach as breach:
            return self._refused(breach)
        if self._ordered is FaultKind.PARTIAL:
            _make_partial(reply)
        self.write("accepted" if self._ordered is None else f"ordered {self._ordered}")
        return answer(reply, self._message_id)

    def write(self, verdict: str, breach: Breach | None = None) -> None:
        """Put a line in the journal."""
        code = ""
        if breach is not None:
            code = breach.answer.subcode or breach.answer.code if isinstance(breach.answer, Fault) else breach.answer
        self._bench.store.write(
            Verdict(
                at=iso_utc(self._bench.now),
                service=self._request.service,
                transaction=self._transaction.name if self._transaction else "",
                verdict=verdict,
                rule=breach.rule if breach else "",
                code=code,
                detail=breach.detail if breach else "",
                unit=self._caller.unit,
                message_id=self._message_id,
            )
        )

    def _heard(self) -> Reply:
        transport = self._admitted()
        message = read_message(self._request)
        self._message_id = message.message_id
        self._transaction = self._transaction_of(message)
        if not self._bench.store.first_sight("message", message.message_id, self._bench.now):
            raise MESSAGE_REPLAY.broken("MessageID déjà reçu")
        if self._ordered is FaultKind.FAULT:
            raise Breach("ORDERED.FAULT", Fault(500, "Receiver", "dmp:Internal"), "erreur interne commandée")
        if self._ordered is FaultKind.BUSY:
            raise self._busy(self._transaction)
        return self._transaction.handler(self._presented(message, transport, self._transaction))

    def _admitted(self) -> x509.Certificate:
        certificate = self._caller.certificate
        if certificate is None:
            raise no_certificate.broken("certificat client absent ou illisible")
        judge(DOOR_RULES, self._caller)
        return certificate

    def _transaction_of(self, message: Message) -> Transaction:
        for one in TRANSACTIONS:
            if (one.service, one.action, one.body) == (self._request.service, message.action, message.body.tag):
                return one
        raise ACTION.broken("action inconnue de ce service, ou corps d'une autre action")

    def _presented(self, message: Message, transport: x509.Certificate, transaction: Transaction) -> Hearing:
        assertion = message.assertion
        read = read_vihf(assertion)
        presented = Presented(self._bench, assertion, read, vihf.signer_of(assertion), transport, transaction.modes)
        judge(TOKEN_RULES, presented)
        if not self._bench.store.first_sight("assertion", assertion.get("ID", ""), self._bench.now):
            raise ASSERTION_REPLAY.broken("assertion déjà présentée")
        judge(CLAIM_RULES, presented)
        return Hearing(self._bench, message, read, transport)

    def _busy(self, transaction: Transaction) -> Breach:
        if transaction.failed is None:
            return Breach("ORDERED.BUSY", Fault(503, "Receiver", "dmp:Busy"), "service occupé, à rappeler plus tard")
        return Breach("ORDERED.BUSY", transaction.busy, "service occupé, à rappeler plus tard")

    def _refused(self, breach: Breach) -> HttpAnswer:
        if isinstance(breach.answer, Fault):
            self.write("fault", breach)
            return fault(breach, self._message_id)
        assert self._transaction is not None
        assert self._transaction.failed is not None
        self.write("refused", breach)
        return answer(self._transaction.failed(registry_error(breach)), self._message_id)


def _make_partial(reply: Reply) -> None:
    """Let a reply say PartialSuccess with one error, where it says Success."""
    for element in [e for e in reply.body.iter() if e.get("status") == v.SUCCESS]:
        error = RegistryError("XDSRegistryError", "succès partiel commandé", "ORDERED.PARTIAL")
        registry_response(v.PARTIAL, [error], wrapped=element)
