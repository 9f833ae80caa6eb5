"""Every input that once failed is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fuzz import corpus
from fuzz.oracle import attempt
from fuzz.target import Run
from fuzz.targets import TARGETS


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Run]]:
    """Targets that are ready, by name: a service is started once for all of its seeds."""
    with ExitStack() as stack:

        class Ready(dict[str, Run]):
            def __missing__(self, name: str) -> Run:
                self[name] = run = stack.enter_context(TARGETS[name].opened())
                return run

        yield Ready()


_SEEDS = [(name, path.name) for name in TARGETS for path in corpus.seeds(name)]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("target", "seed"), _SEEDS)
def test_what_failed_once_fails_no_more(target: str, seed: str, opened: dict[str, Run]) -> None:
    data = (corpus.SEEDS / target / seed).read_bytes()
    outcome = attempt(TARGETS[target], opened[target], data)
    assert not outcome.finding, outcome.detail


def test_each_seed_belongs_to_a_target() -> None:
    assert {folder.name for folder in corpus.SEEDS.iterdir() if folder.is_dir()} <= TARGETS.keys()
