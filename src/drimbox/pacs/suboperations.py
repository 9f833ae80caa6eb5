"""One retrieve by C-MOVE or C-GET, in a thread: what is asked, and what the end of it means (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.pacs.delivery import Delivery
from drimbox.pacs.dimse import command, negotiation, status, uids
from drimbox.pacs.dimse.association import Interrupt
from drimbox.pacs.dimse.client import Answer, ClientAssociation
from drimbox.pacs.dimse.negotiation import Offer
from drimbox.pacs.identifier import Tag, encoder
from drimbox.pacs.site import PacsLink

# UIDs of one query at image level: 16 kB at most.
_IMAGES_AT_ONCE = 250


class SubOperations:
    """What C-MOVE and C-GET have in common: the levels asked, the judgement at the end."""

    service: str

    def __init__(self, link: PacsLink, delivery: Delivery) -> None:
        self._link = link
        self._pacs = link.pacs
        self._delivery = delivery
        self._association: ClientAssociation | None = None
        self.interrupt = Interrupt()

    def run(self) -> None:
        """Ends when all has landed. Raises what a retrieve raises."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Ask the PACS to stop, from any thread; ``run`` ends with its answer."""
        if self._association is not None:
            self._association.cancel(self.service, self._delivery.message_id)
        else:
            self.interrupt.set()

    def _start(self, association: ClientAssociation, encode: Callable[[str], bytes]) -> Iterator[Answer]:
        raise NotImplementedError

    def _opened(self, offers: Sequence[str | Offer]) -> ClientAssociation:
        self._association = self._link.associate(offers, self.interrupt, retrieving=True)
        return self._association

    def _whole(self, association: ClientAssociation) -> command.Response:
        """The series, or the study. Where the PACS stops early because of what we refused, the rest by name."""
        own = self._delivery.expectation
        key = {Tag.STUDY_UID: own.study_uid}
        level = "STUDY" if own.series_uid is None else "SERIES"
        if own.series_uid is not None:
            key[Tag.SERIES_UID] = own.series_uid
        final = self._ask(association, level, key)
        # A PACS may stop at the first image that we refuse, because it holds more than we were told to expect.
        if self._delivery.unexpected and self._delivery.error is None and self._delivery.missing:
            final = self._images(association, self._delivery.missing)
        return final

    def _images(self, association: ClientAssociation, instances: Sequence[str]) -> command.Response:
        own = self._delivery.expectation
        for start in range(0, len(instances), _IMAGES_AT_ONCE):
            some = "\\".join(instances[start : start + _IMAGES_AT_ONCE])
            key = {Tag.STUDY_UID: own.study_uid, Tag.SOP_INSTANCE_UID: some}
            if own.series_uid is not None:
                key[Tag.SERIES_UID] = own.series_uid
            final = self._ask(association, "IMAGE", key)
            if status.kind(final.status) is status.Kind.FAILURE:
                break
        return final

    def _ask(self, association: ClientAssociation, level: str, key: dict[Tag, str]) -> command.Response:
        for answer in self._start(association, encoder(level, key)):
            response = answer.response
        return response

    def _judge(self, final: command.Response) -> None:
        """Everything there is success, whatever the PACS says; anything else is told by its cause (PS3.4 C.4.2.1.5)."""
        if self._delivery.error is not None:
            raise self._delivery.error
        failed = status.kind(final.status) in (status.Kind.FAILURE, status.Kind.CANCELLED)
        if not self._delivery.missing or (not failed and self._late(final)):
            return
        if self._delivery.error is not None:
            raise self._delivery.error
        if failed:
            raise self._failed(final.status)
        wanted = len(self._delivery.expectation.instances)
        landed = wanted - len(self._delivery.missing)
        counts = f"{landed} des {wanted} images attendues"
        if final.failed or final.status != status.SUCCESS:
            reason = f"n'a envoyé que {counts} et annonce {final.failed or 0} échecs"
            raise self._unavailable(reason, "pacs-retrieve-incomplete", final.status)
        reason = f"Le PACS {self._pacs.id} n'a envoyé que {counts}."
        raise Rejected(reason, code="pacs-instances-missing")

    def _late(self, final: command.Response) -> bool:
        """May images still come after the last answer?"""
        return not self._delivery.missing

    def _failed(self, code: int) -> Unavailable:
        kind = "pacs-retrieve-failed"
        match code:
            case status.MOVE_DESTINATION_UNKNOWN:
                kind = "pacs-destination-unknown"
                what = f"ne connaît pas notre destination {self._delivery.expectation.destination_ae}"
            case status.SOP_CLASS_NOT_SUPPORTED | status.NOT_AUTHORIZED | status.UNRECOGNIZED_OPERATION:
                # The service is not for us, whatever is asked of it (PS3.7 C.4).
                kind = "pacs-retrieve-refused"
                what = "refuse de nous envoyer des images"
            case status.OUT_OF_RESOURCES | status.CANNOT_COUNT_MATCHES | status.CANNOT_PERFORM_SUBOPERATIONS:
                what = "manque de ressources pour envoyer les images"
            case status.CANCELLED:
                what = "a interrompu l'envoi des images"
            case _:
                what = "n'a pas pu envoyer les images"
        return self._unavailable(f"{what} (statut {status.code(code)})", kind, code)

    def _unavailable(self, what: str, code: str, peer_status: int | None = None) -> Unavailable:
        peer_code = None if peer_status is None else status.code(peer_status)
        return Unavailable(f"Le PACS {self._pacs.id} {what}.", code=code, peer_code=peer_code)


class Move(SubOperations):
    """C-MOVE: the PACS stores to our receiver, over associations of its own."""

    service = uids.STUDY_ROOT_MOVE

    def __init__(self, link: PacsLink, delivery: Delivery, late_timeout: float) -> None:
        super().__init__(link, delivery)
        self._late_timeout = late_timeout

    def run(self) -> None:
        if not self._delivery.expectation.instances:
            return
        with self._opened((self.service,)) as association:
            final = self._whole(association)
        self._judge(final)

    def _start(self, association: ClientAssociation, encode: Callable[[str], bytes]) -> Iterator[Answer]:
        return association.move(
            self.service,
            self._delivery.expectation.destination_ae,
            encode,
            message_id=self._delivery.message_id,
            alive=lambda: self._delivery.alive,
        )

    def _late(self, final: command.Response) -> bool:
        """Some PACSs answer before they have sent: are the images still to come?"""
        landed = len(self._delivery.expectation.instances) - len(self._delivery.missing)
        if final.completed and final.completed <= landed + self._delivery.unexpected:
            return False
        return self._delivery.wait_until_landed(self._late_timeout)


class Get(SubOperations):
    """C-GET: the PACS stores to us over the association that we opened, in the contexts that we offered in it."""

    service = uids.STUDY_ROOT_GET

    def __init__(self, link: PacsLink, delivery: Delivery, classes: Mapping[str, str]) -> None:
        """``classes``: the SOP class of each instance that the PACS lists, by SOP Instance UID."""
        super().__init__(link, delivery)
        wanted = delivery.expectation.instances
        self._classes = {uid: sop_class for uid, sop_class in classes.items() if uid in wanted}

    def run(self) -> None:
        if not self._delivery.expectation.instances:
            return
        final = command.Response(command.Field.C_GET_RSP, 0, status.SUCCESS)
        groups = self._groups()
        for group in groups:
            with self._opened(negotiation.getting(group)) as association:
                self._require_storage(association)
                if len(groups) == 1:
                    final = self._whole(association)
                else:
                    final = self._images(association, [uid for uid, one in self._classes.items() if one in group])
            if status.kind(final.status) in (status.Kind.FAILURE, status.Kind.CANCELLED):
                break
        self._judge(final)

    def _groups(self) -> list[list[str]]:
        """The storage classes awaited, as many at once as an association can offer."""
        classes = sorted(set(self._classes.values()))
        most = negotiation.MOST_CLASSES
        return [classes[start : start + most] for start in range(0, len(classes), most)]

    def _require_storage(self, association: ClientAssociation) -> None:
        """A PACS that agrees on the question, but on nothing to answer it with, cannot C-GET."""
        association.context(self.service)
        if not any(context.stored_to_us for context in association.contexts.values()):
            reason = f"Le PACS {self._pacs.id} n'accepte pas d'envoyer les images par C-GET."
            raise Rejected(reason, code="pacs-service-refused")

    def _start(self, association: ClientAssociation, encode: Callable[[str], bytes]) -> Iterator[Answer]:
        return association.get(self.service, encode, self._delivery, message_id=self._delivery.message_id)
