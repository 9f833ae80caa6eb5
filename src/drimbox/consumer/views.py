"""What one viewer shows: one exam, or several beside each other (DB.VI-CS.35, DB.VI-CS.36)."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.consumer.opening import OpenExam
from drimbox.consumer.viewing import SeriesImages

MAX_EXAMS = 4


@dataclass(frozen=True, slots=True)
class View:
    """``id`` is its opaque address; the first exam is the one that the others are compared with."""

    id: str
    exams: tuple[OpenExam, ...]

    @property
    def study_uids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(exam.study_uid for exam in self.exams))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(warning for exam in self.exams for warning in exam.warnings))

    @property
    def series(self) -> tuple[tuple[OpenExam, SeriesImages], ...]:
        """The series of all exams, most wanted first."""
        return tuple((exam, images) for exam in self.exams for images in exam.images.series.values())

    def exam_of(self, study_uid: str) -> OpenExam | None:
        return next((exam for exam in self.exams if exam.study_uid == study_uid), None)

    def start(self) -> None:
        """Begin to fetch what was not begun yet."""
        for exam in self.exams:
            exam.images.start()


def view_of(exam: OpenExam) -> View:
    """The viewer of one exam alone."""
    return View(exam.id, (exam,))
