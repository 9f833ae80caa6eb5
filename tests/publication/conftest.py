"""A world to publish in, on an empty database."""

from __future__ import annotations

import pytest
from publication_examples import World, study_of, world_on

from drimbox.store.database import Pool


@pytest.fixture
def world(pool: Pool) -> World:
    """The PACS holds the study of exam E."""
    made = world_on(pool)
    made.pacs.hold(study_of())
    return made
