"""Where images in transit lie, and that nothing of an earlier process stays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from drimbox.box import transit


def settings(state: Path, chosen: Path | None = None, *, encrypted: bool = True) -> SimpleNamespace:
    cache = SimpleNamespace(encrypted=encrypted)
    return SimpleNamespace(
        box=SimpleNamespace(state_dir=state), source=SimpleNamespace(transit_dir=chosen, cache=cache)
    )


def test_what_an_earlier_process_left_is_gone(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "old.dcm").write_bytes(b"PAT-TROIS")
    folder = transit.fresh_scratch(settings(tmp_path))  # type: ignore[arg-type]
    assert folder == tmp_path / "scratch"
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_another_folder_is_made_at_need(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    chosen = tmp_path / "run" / "drimbox"
    its = settings(tmp_path / "state", chosen)
    assert transit.spool_of(its) == chosen / "spool"  # type: ignore[arg-type]
    transit.fresh_scratch(its)  # type: ignore[arg-type]
    assert ("in clear" in caplog.text) != transit._in_memory(chosen)
    caplog.clear()
    transit.fresh_scratch(settings(tmp_path / "state", chosen, encrypted=False))  # type: ignore[arg-type]
    assert caplog.text == ""


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="no memory file system here")
def test_a_memory_file_system_is_known() -> None:
    assert transit._in_memory(Path("/dev/shm/drimbox/transit"))
    assert not transit._in_memory(Path("/proc"))
