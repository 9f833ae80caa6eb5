"""The key images of a study as a page tells of them: why each was flagged, and in what words (IHE KIN, VI-CS.34)."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.manifest.manifest import KeyMark, Manifest

#: Titles of key-image notes (PS3.16 CID 7010, codes of DCM) in French.
TITLES = {
    "113000": "Image d’intérêt",
    "113002": "Pour le médecin demandeur",
    "113003": "Pour la chirurgie",
    "113004": "Pour l’enseignement",
    "113005": "Pour une réunion",
    "113006": "Pour le traitement",
    "113007": "Pour le patient",
    "113008": "Pour relecture par un pair",
    "113009": "Pour la recherche",
    "113010": "Défaut de qualité",
    "113013": "Meilleure image",
    "113018": "À imprimer",
    "113020": "À joindre au compte rendu",
    "113021": "Pour un litige",
    "113036": "Images à montrer ensemble",
}
UNTOLD = "Image signalée"


@dataclass(frozen=True, slots=True, repr=False)
class KeyImage:
    """One note on one image: ``title`` says why it was flagged, ``text`` what its author wrote, perhaps in lines.

    ``place`` tells where the image is; the note's own object (``note_series_uid``) tells who wrote it.
    """

    study_uid: str
    instance_uid: str
    note_uid: str
    note_series_uid: str
    place: str
    title: str
    text: str


def key_images(manifest: Manifest) -> tuple[KeyImage, ...]:
    """The notes of a study, in the order of its images."""
    places = {
        instance.sop_instance_uid: _place(series.number, instance.number)
        for series in manifest.series
        for instance in series.instances
    }
    return tuple(
        KeyImage(
            manifest.study_uid,
            mark.instance_uid,
            mark.note_uid,
            mark.note_series_uid,
            places.get(mark.instance_uid, ""),
            _title(mark),
            mark.text.strip(),
        )
        for mark in manifest.marks
    )


def _title(mark: KeyMark) -> str:
    """In French where the code is known; else what its maker calls it."""
    if mark.title is None:
        return UNTOLD
    known = TITLES.get(mark.title.code) if mark.title.scheme in ("DCM", "") else None
    return known or mark.title.meaning.strip() or UNTOLD


def _place(series: int | None, image: int | None) -> str:
    told = [f"Série {series}" if series is not None else "", f"image {image}" if image is not None else ""]
    return ", ".join(filter(None, told))
