"""pynetdicom as a receiver that writes what it gets: ``python -m drimbox.bench.pixels.pynet PORT TITLE FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt


def main() -> None:
    """Receive until killed."""
    port, title, name = sys.argv[1:]
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True)

    def store(event: Any) -> int:
        (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return 0

    entity = AE(title)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    entity.maximum_pdu_size = 131_072
    entity.start_server(("127.0.0.1", int(port)), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
