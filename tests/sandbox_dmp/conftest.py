"""A DMP for each test, one for the requests that must be refused, and one that knows the schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from drimbox.sandbox.pki import TestAuthority
from sandbox_dmp.scene import Scene, open_scene, structures

Opener = Callable[..., Scene]


@pytest.fixture(scope="session")
def opener(authority: TestAuthority) -> Opener:
    """Opens a DMP in a folder: ``opener(folder, schemas=…, policy=…)``; close it with ``.dmp.close()``."""
    return partial(open_scene, authority=authority, pairs=structures(authority))


@pytest.fixture
def scene(tmp_path: Path, opener: Opener) -> Iterator[Scene]:
    """A DMP of this test's own, without schemas."""
    made = opener(tmp_path / "dmp")
    yield made
    made.dmp.close()


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory, opener: Opener) -> Iterator[Scene]:
    """One DMP for all the requests of a module that it refuses."""
    made = opener(tmp_path_factory.mktemp("court"))
    yield made
    made.dmp.close()


@pytest.fixture(scope="module")
def schooled(tmp_path_factory: pytest.TempPathFactory, opener: Opener, shared: Path) -> Iterator[Scene]:
    """A DMP that validates against the XML schemas."""
    made = opener(tmp_path_factory.mktemp("schooled"), schemas=shared / "schemas")
    yield made
    made.dmp.close()
