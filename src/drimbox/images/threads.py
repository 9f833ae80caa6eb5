"""File work off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """``asyncio.to_thread``, but over when it returns, cancelled or not: what ``work`` uses may then be closed."""
    # As ``asyncio.to_thread`` does, without a task around it: images come by the thousand.
    called = partial(contextvars.copy_context().run, work, *args, **kwargs)
    running = asyncio.get_running_loop().run_in_executor(None, called)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        raise
