"""The loop of the box, under a peer that breaks every connection in the moment when it is made."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: what goes wrong here ends the process (libuv aborts it).
_SCENE = """
import asyncio, collections, socket, ssl, struct, threading
from drimbox.foundation import event_loop
from drimbox.foundation.errors import Unavailable, OutcomeUnknown
from drimbox.foundation.http_client import HttpClient

ports, there = [], threading.Event()

async def refuse(reader, writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()

async def peers():
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for serve in (refuse, echo):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    there.set()
    await asyncio.sleep(1000)

async def main():
    counts = collections.Counter()
    loop = asyncio.get_running_loop()
    end = loop.time() + 2.5
    tls = ssl.create_default_context()
    async with HttpClient() as http:
        async def ask():
            while loop.time() < end:
                try:
                    await http.send("POST", f"https://127.0.0.1:{ports[0]}/", tls=tls, body=b"x", timeout=5)
                except (Unavailable, OutcomeUnknown) as error:
                    counts[f"refused {error.code}"] += 1
        async def talk():
            while loop.time() < end:
                reader, writer = await asyncio.open_connection("127.0.0.1", ports[1])
                for _ in range(3):
                    writer.write(b"hello")
                    counts["heard" if await reader.read(100) == b"hello" else "misheard"] += 1
                writer.close()
        await asyncio.gather(*(ask() for _ in range(8)), *(talk() for _ in range(4)))
    assert counts["heard"] > 50 and counts["refused unreachable"] > 50, counts
    assert not counts["misheard"], counts

threading.Thread(target=asyncio.run, args=(peers(),), daemon=True).start()
there.wait()
event_loop.run(main())
"""


@pytest.mark.requirement("DB.SO.03")
def test_connections_that_break_at_once_harm_no_other() -> None:
    ended = subprocess.run([sys.executable, "-c", _SCENE], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
