"""What is to be done about a study, given a message, the PACS and what is published: the pure decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from publication_examples import AMBROISE, BASE, NOW, letter_of, read, report_of, study_of

from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins
from drimbox.publication.checks import Finding, Severity
from drimbox.publication.compose import compose
from drimbox.publication.decide import (
    Depublish,
    Move,
    Nothing,
    PublishNew,
    Replace,
    Stop,
    Why,
    comes_late,
    decide_by_message,
    decide_by_study,
    documents_after,
    visibility_to_publish,
)
from drimbox.publication.fingerprint import fingerprint
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.reconsider import decide_by_pacs, decide_by_record, shows_the_same
from drimbox.publication.services import Rules
from drimbox.reports.report import Operation, Person, Report, Structure, Visibility

STUDY = "1.2.250.1.213.4.5.2.1.105"
DOCUMENT = "1.2.250.1.213.4.5.4.405"
RULES = Rules(ins_range="test", retrieve_base=BASE)
OTHER_INS = Ins.of("162018885045327", "1.2.250.1.213.1.4.10")


def published(**changes: object) -> ArchivedKos:
    report = report_of()
    kos = ArchivedKos(
        id=1,
        structure="ambroise",
        study_uid=STUDY,
        kos_uid=new_uid(),
        state=State.CURRENT,
        ins=report.patient.ins,
        pacs="pacs",
        kos=b"",
        document_ids=(DOCUMENT,),
        metadata=b"",
        signature=b"",
        submission_uid="1.2",
        entry_uuid=None,
        replaces=None,
        report_id=7,
        vihf_identity={},
        visibility=Visibility(),
        fingerprint="",
        prepared_at=NOW,
        sent_at=NOW,
        confirmed_at=NOW,
        ended_at=None,
    )
    return replace(kos, **changes)  # type: ignore[arg-type]


def by_message(
    report: Report, current: ArchivedKos | None = None, history: History | None = None, report_id: int = 8
) -> object:
    return decide_by_message(report, report_id, STUDY, current, history or History(7, (DOCUMENT,), {DOCUMENT: 7}))


DELETION = read(letter_of(operation="delete"))


def test_an_older_message_never_undoes_a_newer_one() -> None:
    assert by_message(report_of(), published(), report_id=6) == Nothing(Why.SUPERSEDED)
    assert by_message(DELETION, published(), report_id=6) == Nothing(Why.SUPERSEDED)
    # The same message again, after a restart, is not older than itself.
    assert by_message(report_of(), published(), report_id=7) is None
    # On another document it still says what stands, though it does not say what the KOS holds.
    other = report_of(document_id="1.9")
    history = History(7, (DOCUMENT,), {DOCUMENT: 7})
    assert by_message(other, published(), report_id=6) is None
    assert comes_late(other, 6, STUDY, history)
    assert not comes_late(other, 8, STUDY, history)
    assert documents_after(other, 6, STUDY, history) == (DOCUMENT, "1.9")


def test_what_a_newer_message_said_of_a_document_holds() -> None:
    history = History(9, ("1.9", DOCUMENT), {"1.9": 9, DOCUMENT: 5, "1.8": 7})
    replacing = report_of(operation=Operation.REPLACE, document_id="1.10", replaces="1.9")
    assert documents_after(replacing, 8, STUDY, history) == ("1.9", DOCUMENT, "1.10")
    assert documents_after(replace(replacing, replaces=None), 8, STUDY, history) == ("1.9", "1.10")
    assert documents_after(replace(DELETION, document_id="1.9"), 8, STUDY, history) == ("1.9", DOCUMENT)
    # One that was deleted since does not stand again.
    assert by_message(report_of(document_id="1.8"), published(), history, 6) == Nothing(Why.SUPERSEDED)


def test_a_study_declared_deleted_since_is_not_published_but_its_report_stands() -> None:
    report = report_of()
    assert decide_by_message(report, 8, STUDY, None, History(), withdrawn=True) == Nothing(Why.WITHDRAWN)
    current = published()
    history = History(7, (DOCUMENT,), {DOCUMENT: 7})
    assert decide_by_message(DELETION, 8, STUDY, current, history, withdrawn=True) == Depublish(current)


@pytest.mark.requirement("D5")
@pytest.mark.parametrize("operation", list(Operation))
def test_what_is_not_for_the_dmp_changes_nothing(operation: Operation) -> None:
    report = report_of(operation=operation, publish_to_dmp=False)
    assert by_message(report, published()) == Nothing(Why.NOT_FOR_DMP)
    assert by_message(report, None, History()) == Nothing(Why.NOT_FOR_DMP)


@pytest.mark.requirement("DMP/CONF.03", "DB.SO.97", "exam:I")
def test_a_deletion_depublishes_what_no_other_report_stands_on() -> None:
    current = published()
    assert by_message(DELETION, current) == Depublish(current)
    assert by_message(DELETION, None, History()) == Nothing(Why.NOT_PUBLISHED)
    assert by_message(DELETION, current, History(7, (DOCUMENT, "1.9"))) == Nothing(Why.OTHER_REPORT)


@pytest.mark.requirement("DMP/CONF.03")
def test_a_deletion_of_an_unknown_report_or_of_another_patient_is_for_the_operator() -> None:
    for report, current in (
        (replace(DELETION, document_id="1.9"), published()),
        (DELETION, published(ins=OTHER_INS)),
    ):
        assert isinstance(by_message(report, current), Stop)


@pytest.mark.requirement("DMP/CONF.03")
def test_a_deletion_of_a_report_that_was_never_carried_through_changes_nothing() -> None:
    stopped = replace(DELETION, document_id="1.9")
    history = History(7, (DOCUMENT,), received=True)
    for current in (published(), published(ins=OTHER_INS)):
        assert by_message(stopped, current, history) == Nothing(Why.NEVER_CARRIED)
        assert isinstance(by_message(stopped, current, replace(history, received=False)), Stop)


@pytest.mark.requirement("DB.SO.97")
def test_a_replacement_that_no_longer_names_the_study_takes_its_predecessor_away() -> None:
    current = published()
    report = replace(report_of("F", operation=Operation.REPLACE), replaces=DOCUMENT)
    assert by_message(report, current) == Depublish(current)


@pytest.mark.requirement("DB.SO.15", "D7", "exam:G2")
def test_a_study_that_no_pacs_knows_stops_everything() -> None:
    for current in (None, published()):
        decision = decide_by_study(report_of(), None, (), current)
        assert isinstance(decision, Stop)
        assert decision.findings[0].code == "study-unknown"


@pytest.mark.requirement("D4")
def test_only_blocking_findings_stop() -> None:
    warning = Finding("w", Severity.WARNING, "")
    blocking = Finding("b", Severity.BLOCKING, "")
    assert decide_by_study(report_of(), study_of(), (warning,), None) == PublishNew()
    assert decide_by_study(report_of(), study_of(), (warning, blocking), None) == Stop((blocking,))


@pytest.mark.requirement("D2", "DB.SO.13")
def test_a_published_study_is_replaced_and_moved_when_it_was_another_patient_s() -> None:
    current, wrong = published(), published(ins=OTHER_INS)
    assert decide_by_study(report_of(), study_of(), (), current) == Replace(current)
    assert decide_by_study(report_of(), study_of(), (), wrong) == Move(wrong)


@pytest.mark.requirement("D26")
def test_which_reports_stand() -> None:
    new, second = report_of(), report_of(document_id="1.9")

    def after(report: Report, *documents: str) -> tuple[str, ...]:
        return documents_after(report, 8, STUDY, History(7, documents))

    assert after(new) == (DOCUMENT,)
    assert after(new, DOCUMENT) == (DOCUMENT,)
    assert after(second, DOCUMENT) == (DOCUMENT, "1.9")
    version = report_of(operation=Operation.REPLACE, document_id="1.10", replaces=DOCUMENT)
    assert after(version, DOCUMENT, "1.9") == ("1.9", "1.10")
    assert after(replace(version, replaces=None), DOCUMENT, "1.9") == ("1.10",)
    assert after(DELETION, DOCUMENT, "1.9") == ("1.9",)


HIDDEN = Visibility(hidden_from_patient=True)
MASKED = Visibility(masked_to_professionals=True)


@pytest.mark.requirement("D6")
@pytest.mark.parametrize(
    ("wanted", "changes", "before", "seen", "result"),
    [
        (Visibility(), True, HIDDEN, HIDDEN, Visibility()),  # the message changes it (exam G1_MAJ)
        (Visibility(), True, HIDDEN, MASKED, Visibility()),
        (Visibility(), False, HIDDEN, HIDDEN, Visibility()),  # a new report, its own flags
        (Visibility(), False, Visibility(), MASKED, MASKED),  # changed by hand since
        (HIDDEN, False, Visibility(), MASKED, MASKED),
        (HIDDEN, False, Visibility(), None, HIDDEN),  # the DMP does not tell
        (Visibility(), False, Visibility(secret_connection=True), Visibility(), Visibility()),
    ],
)
def test_a_visibility_changed_by_hand_is_kept(
    wanted: Visibility, changes: bool, before: Visibility, seen: Visibility | None, result: Visibility
) -> None:
    report = report_of(visibility=wanted, visibility_changed=changes)
    assert visibility_to_publish(report, published(visibility=before), seen) == result


@pytest.mark.requirement("DB.SO.13")
def test_the_fingerprint_changes_with_what_the_entry_says() -> None:
    place = Structure("1", "A")
    same = fingerprint(report_of(), study_of(), place)
    assert fingerprint(report_of(document_id="1.9", title="x"), study_of(images=5), place) == same
    changed = [
        fingerprint(report_of(signatory=Person("8", "A", "B")), study_of(), place),
        fingerprint(report_of(practice_setting=None), study_of(), place),
        fingerprint(report_of(acts=()), study_of(), place),
        fingerprint(report_of(), study_of(), Structure("2", "A")),
    ]
    assert len({same, *changed}) == 5


# --- without a report -------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.26", "DB.SO.28")
def test_what_is_decided_without_the_pacs() -> None:
    current, reported = published(), History(7, (DOCUMENT,))
    assert decide_by_record(None, History(), withdrawn=False) == Nothing(Why.NOT_PUBLISHED)
    assert decide_by_record(None, History(), withdrawn=True) == Nothing(Why.NOT_PUBLISHED)
    for history in (reported, History()):
        assert decide_by_record(current, history, withdrawn=True) == Depublish(current)
        assert decide_by_record(current, history, withdrawn=False) is None
    assert decide_by_record(None, reported, withdrawn=True) == Nothing(Why.WITHDRAWN)
    assert decide_by_record(None, reported, withdrawn=False) is None


@pytest.mark.requirement("D4", "D7", "DB.SO.26", "DB.SO.27")
def test_what_is_decided_once_every_pacs_answered() -> None:
    current, elsewhere, report = published(), published(ins=OTHER_INS), report_of()
    blocking = Finding("pacs-ipp", Severity.BLOCKING, "Le numéro de patient (IPP) du PACS n'est pas celui")
    for findings in ((), (blocking,)):
        # Whose images they were does not matter any more.
        assert decide_by_pacs(report, False, findings, current) == Depublish(current)
        assert decide_by_pacs(report, False, findings, None) == Nothing(Why.NOT_IN_PACS)
    for standing, words in ((current, "laissé tel quel au DMP"), (None, "rien n'est publié")):
        stopped = decide_by_pacs(report, True, (blocking,), standing)
        assert isinstance(stopped, Stop)
        assert stopped.findings[0].code == "identity"
        assert words in stopped.findings[0].reason
        assert blocking.reason in stopped.findings[0].reason
    warning = (Finding("w", Severity.WARNING, ""),)
    assert decide_by_pacs(report, True, warning, None) == PublishNew()
    assert decide_by_pacs(report, True, warning, current) == Replace(current)
    assert decide_by_pacs(report, True, warning, elsewhere) == Move(elsewhere)


@pytest.mark.requirement("DB.SO.13", "DB.SO.30")
def test_what_another_product_words_in_its_own_way_is_not_a_change() -> None:
    report, study = report_of(), study_of()
    ours = compose(RULES, report, study, structure=AMBROISE, now=NOW).manifest
    theirs = replace(ours, patient_name="PAT-TROIS^DOMINIQUE^^^", other_names=(), institution="AMBROISE", kos_uid="1.2")
    assert shows_the_same(theirs, ours)
    moved = tuple(replace(s, retrieve_url="https://ailleurs/rs") for s in theirs.series)
    assert not shows_the_same(replace(theirs, series=moved), ours)
    assert not shows_the_same(replace(theirs, series=()), ours)
    assert not shows_the_same(replace(theirs, requests=()), ours)
