"""What a rule of the judge is, and how a message is found to break one.

A rule is a function from a subject to None (kept) or to a French sentence without health data (broken). Its identifier
is stable: tests and the journal name it. Its docstring says what is asked and by which source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Fault:
    """A SOAP 1.2 fault: HTTP status, ``Code`` without prefix, and ``Subcode`` as ``prefix:name``."""

    status: int
    code: str
    subcode: str = ""


# A breach is answered by a SOAP fault, or by the error code of a registry answer.
Answer = Fault | str


class Breach(Exception):
    """A message broke ``rule``; ``detail`` says how, in French and without health data."""

    def __init__(self, rule: str, answer: Answer, detail: str, location: str = "") -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.answer = answer
        self.detail = detail
        self.location = location


@dataclass(frozen=True, slots=True)
class Rule(Generic[S]):
    """One rule of the judge. ``text`` is its docstring."""

    id: str
    answer: Answer
    text: str
    check: Callable[[S], str | None]

    def broken(self, detail: str) -> Breach:
        return Breach(self.id, self.answer, detail)


def rule(identifier: str, answer: Answer) -> Callable[[Callable[[S], str | None]], Rule[S]]:
    """Make a rule of a function."""

    def made(check: Callable[[S], str | None]) -> Rule[S]:
        return Rule(identifier, answer, (check.__doc__ or "").strip(), check)

    return made


def stated(identifier: str, answer: Answer, text: str) -> Rule[Any]:
    """A rule that a parser enforces: it has no check of its own and is only ever ``broken``."""
    return Rule(identifier, answer, text, lambda _: None)


def judge(rules: Iterable[Rule[S]], subject: S, *, location: str = "") -> None:
    """Raise the ``Breach`` of the first rule that the subject breaks."""
    for one in rules:
        detail = one.check(subject)
        if detail is not None:
            raise Breach(one.id, one.answer, detail, location)
