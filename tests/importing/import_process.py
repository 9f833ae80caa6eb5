"""A box that imports, in a process of its own: to be killed. Arguments: database, folder, port of the PACS."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from import_world import Sources, importing, make_exam, pacs_at

from drimbox.sandbox.pacs.peer import PacsPeer
from drimbox.store import database


async def main(dsn: str, folder: Path, port: int) -> None:
    exam = make_exam("B", folder)
    async with (
        database.opened(dsn, size=2) as pool,
        importing(
            pool, folder / "imports", Sources(exam, stops_at=12), pacs_at(PacsPeer("PACS_B", "127.0.0.1", port))
        ) as box,
    ):
        print(await box.ask(exam), flush=True)
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
