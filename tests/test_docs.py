"""The written pages say what the code and the tests say."""

import subprocess
import sys
from pathlib import Path

from drimbox.box.manual import settings_page

ROOT = Path(__file__).parent.parent


def test_the_settings_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == settings_page(), "run ./drimbox docs settings"


def test_the_requirements_page_is_up_to_date(tmp_path: Path) -> None:
    fresh = tmp_path / "requirements.md"
    subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", f"--requirements={fresh}", "tests"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert (ROOT / "docs" / "requirements.md").read_text("utf-8") == fresh.read_text("utf-8"), (
        "run ./drimbox docs requirements"
    )


def test_no_machine_path_and_no_registry_in_what_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    forbidden = ("/" + "work/", "pypi" + ".org", "npmjs" + ".org", "--index" + "-url", "deb.debian" + ".org")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".png", ".dcm"} or not path.is_file():
            continue
        text = path.read_text("utf-8", "replace")
        assert not [word for word in forbidden if word in text], name
