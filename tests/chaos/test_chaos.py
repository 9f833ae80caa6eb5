"""Everything fails, all the time: at the end the DMP says what the accepted messages say, and nothing was lost."""

from __future__ import annotations

import faulthandler
import gc
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from chaos_run import Outcome, Plan, run

from drimbox.sandbox.pacs import orthanc

# The stand-in PACS (pynetdicom) loses a thread now and then, when its connection is cut; and it leaves the socket of an
# association that nobody took open for the collector.
_THREADS = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
_SOCKETS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
pytestmark = [pytest.mark.e2e, _THREADS, _SOCKETS]


async def _played(plan: Plan, capsys: pytest.CaptureFixture[str]) -> Outcome:
    if not orthanc.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    # Not one of pytest's own: a second run of pytest on the machine shuts those to the account that runs PostgreSQL.
    folder = Path(tempfile.mkdtemp(prefix="drimbox-chaos-"))

    def say(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    say(f"\nchaos: seed {plan.seed}, {plan.messages} messages, logs in {folder}")
    outcome = await run(plan, folder, say)
    # What was left to the collector goes here, and not in a test that knows nothing of it.
    gc.collect()
    say(outcome.report())
    assert outcome.discrepancies == [], f"seed {plan.seed}, logs in {folder}"
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("--chaos-seed")
    return int(given) if given is not None else random.randrange(10**6)


@pytest.mark.chaos
@pytest.mark.requirement("DB.SO.03", "DB.SO.21", "DB.SO.22", "D2", "D5", "D6", "D7", "D26")
async def test_nothing_is_lost_and_nothing_is_doubled(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """The long run."""
    # It takes longer than a test that hangs is given.
    faulthandler.cancel_dump_traceback_later()
    messages = int(request.config.getoption("--chaos-messages"))
    await _played(Plan(_seed(request), messages), capsys)


@pytest.mark.requirement("DB.SO.03", "DB.SO.21", "DB.SO.22")
async def test_a_short_run(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """The same, short enough for every day."""
    await _played(Plan(_seed(request), 60, lanes=4, rate=8, pace=0.9, spare=0.3, drag=3, patience=60), capsys)
