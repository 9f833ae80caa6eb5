"""The receiver of a box, in a process of its own: what is stored to it lands as for a retrieve that awaits it.

``python -m drimbox.bench.pixels.receiver PORT TITLE SPOOL AWAITED``: ``AWAITED`` is a JSON file with the study, the
series and the instances. What landed stays until the process is told to stop.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from drimbox.pacs import inbox
from drimbox.pacs.delivery import Delivery, Expectation, Pressure
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.dimse.storage import StoredInstance


def main() -> None:
    """Receive until told to stop."""
    port, title, spool, awaited = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    described = json.loads(Path(awaited).read_text())
    expectation = Expectation(
        pacs_id="banc",
        study_uid=described["study"],
        series_uid=described["series"],
        instances=frozenset(described["instances"]),
        destination_ae=title,
        originator_ae=title,
        checks_originator=False,
    )
    settings = ReceiverSettings({title: uids.AS_STORED}, frozenset(("STORESCU",)), port=int(port))
    with inbox.opened(Path(spool)) as desk:
        reader = _Reader()
        reader.delivery = desk.expect(expectation, reader.take, lambda: None, Pressure())
        try:
            with receiving(settings, desk):
                signal.pause()
        finally:
            desk.end(reader.delivery)


class _Reader:
    """Takes each image as it lands."""

    delivery: Delivery

    def take(self, stored: StoredInstance) -> None:
        self.delivery.taken(stored)


if __name__ == "__main__":
    main()
