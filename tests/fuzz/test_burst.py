"""A short burst over every parser, always of the same inputs; and the fuzzing itself finds what is wrong."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from drimbox.foundation.errors import Refused
from fuzz import campaign, corpus
from fuzz.guard import TooSlow, memory_limit, time_limit
from fuzz.loop import Course, Finding, Input, Slate, fuzz
from fuzz.oracle import attempt
from fuzz.target import Broken, Run, Target, pure
from fuzz.targets import TARGETS

_SECONDS = "0.6"


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What a process of its own said of each target: its memory is limited, and an input may kill it."""
    slate = tmp_path_factory.mktemp("fuzz") / "slate"
    paths = os.pathsep.join(str(corpus.ROOT / part) for part in ("src", "tests"))
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "burst", _SECONDS, str(slate)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "0"},
        cwd=corpus.ROOT,
        timeout=300,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    kept = {str(one["target"]): one for one in told}
    if done.returncode:
        opened = Slate(slate)
        kept["died"] = {"input": base64.b64encode(opened.read().data[:4000]).decode(), "errors": done.stderr.decode()}
        opened.close()
    return kept


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.slow])
def test_nothing_but_documented_errors(name: str, burst: dict[str, dict[str, object]]) -> None:
    assert name in burst, burst.get("died")
    told = burst[name]
    assert told["findings"] == []
    assert int(str(told["executions"])) > 30


# --- the fuzzing itself: an input must be found for each kind of defect -----------------------------------------------


def _refuses(data: bytes) -> object:
    if b"A" not in data:
        raise Refused("rien", code="rien")
    return len(data) > 3


def _planted(run: Run, **changes: object) -> Target:
    return Target("planted", pure(run), lambda: [b"AAAA1979"], **changes)  # type: ignore[arg-type]


def _with(condition: Callable[[bytes], bool], defect: Callable[[], object]) -> Run:
    def run(data: bytes) -> object:
        _refuses(data)
        return defect() if condition(data) else None

    return run


def _raise(error: Exception) -> Callable[[], object]:
    def defect() -> object:
        raise error

    return defect


def _spin() -> object:
    while True:
        pass


def _grow() -> object:
    return len(bytearray(4 * 2**30))


@pytest.mark.parametrize(
    ("defect", "kind"),
    [
        (_raise(KeyError("x")), "KeyError:"),
        (_raise(RecursionError()), "RecursionError:"),
        (_raise(Broken("two readings")), "broken:two readings"),
        (_raise(Refused("né le 19790328")), "leak:"),
        (_spin, "slow:"),
        (_grow, "MemoryError:"),
    ],
)
def test_a_defect_is_found_and_made_small(defect: Callable[[], object], kind: str) -> None:
    target = _planted(_with(lambda data: b"\x00" in data, defect), seconds=0.05)
    with memory_limit(), target.opened() as run:
        course = fuzz(
            target, run, [Input(b"AAAA1979")], seed="1", going_on=lambda c: not c.findings and c.executions < 20_000
        )
    [finding] = course.findings.values()
    assert finding.signature.startswith(kind)
    assert sorted(finding.input.data) == sorted(b"A\x00")


def test_new_outcomes_lead_further() -> None:
    """Three steps in a row, each of which a blind search would have to guess at once with the others."""

    def run(data: bytes) -> object:
        found = next((n for n, byte in enumerate(b"DCM") if data[n : n + 1] != bytes((byte,))), 3)
        if found == 3:
            raise ValueError("deep")
        return found

    target = _planted(run)
    course = fuzz(
        target, run, [Input(b"\0\0\0")], seed="1", going_on=lambda c: not c.findings and c.executions < 50_000
    )
    assert [f.signature.partition(":")[0] for f in course.findings.values()] == ["ValueError"]


def test_the_same_seed_tries_the_same_inputs() -> None:
    def course() -> tuple[list[bytes], Course]:
        tried: list[bytes] = []
        target = _planted(lambda data: tried.append(data))
        return tried, fuzz(target, tried.append, [Input(b"abc")], seed="7", going_on=lambda c: c.executions < 200)

    first, second = course(), course()
    assert first[0] == second[0]
    assert len(set(first[0])) > 100


def test_what_official_data_went_into_is_not_kept_in_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "SEEDS", tmp_path / "seeds")
    monkeypatch.setattr(corpus, "STATE", tmp_path / "state")
    ours = corpus.keep("hl7", Finding("KeyError:x", "", Input(b"a")))
    theirs = corpus.keep("hl7", Finding("KeyError:x", "", Input(b"b", official=True)))
    large = corpus.keep("hl7", Finding("KeyError:x", "", Input(b"c" * 100_000)))
    assert ours.parent == tmp_path / "seeds" / "hl7"
    assert theirs.parent == large.parent == tmp_path / "state" / "findings" / "hl7"


def test_the_limit_counts_processor_time_only() -> None:
    with time_limit(0.05):
        time.sleep(0.2)
    with pytest.raises(TooSlow), time_limit(0.05):
        _spin()


def test_an_input_that_kills_its_process_is_not_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The campaign reads it from the slate."""
    program = tmp_path / "fuzz"
    program.mkdir()
    (program / "__main__.py").write_text(
        "import os, struct, sys\n"
        "with open(sys.argv[3], 'r+b') as slate: slate.write(struct.pack('<QQ?', 9, 3, False) + b'die')\n"
        "os.abort()\n"
    )
    monkeypatch.setattr(corpus, "ROOT", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "tests").symlink_to(tmp_path)
    told = campaign.work(campaign.Order("hl7", "1", 1.0, burst=False))
    [finding] = told.findings
    assert (finding.signature, finding.input.data) == ("died:-6", b"die")


@pytest.mark.slow
def test_the_command_tells_its_figures() -> None:
    command = [sys.executable, "-m", "drimbox", "test", "--fuzz", "0.03", "names"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "DRIMBOX_HOME": str(corpus.ROOT)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [figures] = [line.split() for line in done.stdout.splitlines() if line.startswith("names ")]
    assert int(figures[1]) > 20
    assert figures[4] == "0"
    wrong = subprocess.run(
        [*command[:-1], "nobody"],
        capture_output=True,
        text=True,
        env={**os.environ, "DRIMBOX_HOME": str(corpus.ROOT)},
        timeout=120,
        check=False,
    )
    assert wrong.returncode == 2
    assert "cible inconnue" in wrong.stderr


def test_a_mutator_never_fails() -> None:
    """Mutators meet their own products."""
    random = Random(3)
    for target in TARGETS.values():
        if target.slow:
            continue
        data: Sequence[bytes] = list(target.samples())
        for change in dict.fromkeys(target.mutators):
            one = data[0]
            for _ in range(12):
                one = change(random, one, data)[: 2 * target.largest]


def test_an_outcome_of_the_documented_kind_is_none() -> None:
    assert attempt(_planted(_refuses), _refuses, b"").finding == ""


def test_a_worker_that_does_not_start_ends_no_campaign() -> None:
    said: list[str] = []
    assert campaign.run(0.02, ["no such target", "names"], said.append) >= 1
    assert any("jamais essayé : no such target" in text for text in said)
