"""Each rule of the judge is kept: a request that breaks it, and nothing else, is refused by its name and code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drimbox.sandbox.dmp import Authorisation, Policy
from drimbox.sandbox.dmp.catalogue import catalogue
from sandbox_dmp import refusals_content, refusals_metadata, refusals_registry, refusals_transport, refusals_vihf
from sandbox_dmp.bending import Case
from sandbox_dmp.scene import PATIENT, Scene

CASES = [
    *refusals_transport.CASES,
    *refusals_vihf.CASES,
    *refusals_metadata.CASES,
    *refusals_content.CASES,
    *refusals_registry.CASES,
]
SCHEMA_CASES = refusals_registry.SCHEMA_CASES
# Tried by the tests named: they need a policy, or the web application itself.
ELSEWHERE = {"HTTP.SIZE", "KOS_ENTRY.CUMUL", "QUERY.TOO_MANY"}


def labels(cases: list[Case]) -> list[str]:
    return [case.label for case in cases]


@pytest.mark.parametrize("case", CASES, ids=labels(CASES))
def test_request_is_refused_by_its_rule(court: Scene, case: Case) -> None:
    wire = case.build(court)
    before = court.dmp.store.entries()
    answered = court.send(wire)
    assert answered.broken == (case.rule, case.code)
    assert court.dmp.store.entries() == before


@pytest.mark.parametrize("case", SCHEMA_CASES, ids=labels(SCHEMA_CASES))
def test_request_that_is_not_valid_is_refused(schooled: Scene, case: Case) -> None:
    assert schooled.send(case.build(schooled)).broken == (case.rule, case.code)


def test_every_rule_is_tried() -> None:
    tried = {case.rule for case in (*CASES, *SCHEMA_CASES)} | ELSEWHERE
    assert {rule.id for rule in catalogue()} == tried


def test_every_rule_tells_its_source_and_has_a_name_of_its_own() -> None:
    rules = catalogue()
    assert len({rule.id for rule in rules}) == len(rules)
    assert [rule.id for rule in rules if len(rule.text) < 20] == []


def test_masks_do_not_cumulate_where_the_dmp_is_set_so(scene: Scene) -> None:
    masks = ("MASQUE_PS", "INVISIBLE_PATIENT")
    assert scene.send(scene.publication(masks=masks)).outcome == "Success"
    scene.dmp.policy = Policy(cumulative_masks=False)
    assert scene.send(scene.publication(masks=masks)).broken == ("KOS_ENTRY.CUMUL", "LocalPolicyRestrictionError")
    assert scene.send(scene.publication(masks=masks[:1])).outcome == "Success"


def test_too_many_results_are_refused_as_leaves_but_not_as_references(scene: Scene) -> None:
    scene.published()
    reader = scene.reader()
    scene.dmp.set_authorisation(PATIENT, reader.user, Authorisation.VALID)
    scene.dmp.policy = replace(scene.dmp.policy, max_results=1)
    question = (reader, refusals_registry.FIND, [refusals_registry.MINE, refusals_registry.CURRENT])
    assert scene.send(scene.query(*question)).broken == ("QUERY.TOO_MANY", "XDSTooManyResults")
    assert len(scene.send(scene.query(*question, returns="ObjectRef")).found()) == 2
