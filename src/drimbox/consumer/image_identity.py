"""The traits of the images of one exam, held against the call's as they arrive (INS/va1.36).

The INS of each image has been compared before it gets here, and is no matter of decision (DB.CO.68). A PACS may know
the patient by a used name (decision 4). Nothing of an image is shown before this has let it pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from drimbox.consumer.identity_check import Difference, Rules, TraitsDiffer, compared_image
from drimbox.foundation.errors import Refused
from drimbox.identity.traits import Traits

CODE = "image-traits"


class ImageIdentity:
    """What the images of one exam say of their patient, and whether the professional goes on all the same."""

    def __init__(self, traits: Traits, rules: Rules, used_names: Callable[[], Collection[str]], key: str) -> None:
        """``used_names`` are those that documents tell, known better and better; ``key`` names the exam's KOS."""
        self._traits = traits
        self._rules = rules
        self._used_names = used_names
        self._key = key
        self._passed: set[tuple[str, str, str]] = set()
        self.decided = False
        self.differences: tuple[Difference, ...] = ()

    def check(self, described: bytes) -> None:
        """Let one image pass by its header (DICOM JSON). Raises ``ImageTraitsDiffer``, ``Refused`` (``dicom-file``)."""
        try:
            header = json.loads(described)
            told = (_name(header), _text(header, "00100030"), _text(header, "00100040"))
        except (ValueError, AttributeError, LookupError, TypeError):
            # Not chained: the message quotes values.
            raise Refused("Image reçue illisible", code="dicom-file") from None
        if told in self._passed:
            return
        name, birth_date, sex = told
        found = compared_image(
            self._traits, name=name, birth_date=birth_date, sex=sex, used_names=tuple(self._used_names())
        )
        if found:
            self.differences = tuple(dict.fromkeys((*self.differences, *found)))
            if self._rules.refusing(found) or (self._rules.deciding(found) and not self.decided):
                raise ImageTraitsDiffer(found, final=self._rules.refusing(found), key=self._key)
        self._passed.add(told)


class ImageTraitsDiffer(TraitsDiffer):
    """The traits of an image are not the call's, and nobody has decided to go on."""

    def __init__(self, differences: tuple[Difference, ...], *, final: bool, key: str) -> None:
        super().__init__("fichier d'images", differences, final=final, key=key)
        self.code = CODE


def _name(header: dict[str, Any]) -> str:
    values = header.get("00100010", {}).get("Value") or [None]
    return str((values[0] or {}).get("Alphabetic", ""))


def _text(header: dict[str, Any], tag: str) -> str:
    values = header.get(tag, {}).get("Value") or [None]
    return str(values[0] or "")
