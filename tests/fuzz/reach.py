"""Which lines of the product an input reached: what is new goes into the corpus.

Python 3.12 and newer tell each line once and then keep silent (``sys.monitoring``): it costs next to nothing. Before,
only one input in eight is traced, and code all of whose lines are known is traced no more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import drimbox

_HOME = str(Path(drimbox.__file__).parent)
_SAMPLING = 8


class Reach:
    """Counts lines of the product as they are reached for the first time."""

    def __init__(self) -> None:
        self.lines = 0
        self._left: dict[CodeType, set[int]] = {}
        self._inputs = 0
        self._monitoring: Any = getattr(sys, "monitoring", None)
        if self._monitoring is not None:
            self._monitor()

    def run(self, call: Callable[[], None]) -> bool:
        """Run ``call``; did it reach a new line?"""
        before = self.lines
        self._inputs += 1
        if self._monitoring is not None or self._inputs % _SAMPLING:
            call()
        else:
            former = sys.gettrace()
            sys.settrace(self._trace)
            try:
                call()
            finally:
                sys.settrace(former)
        return self.lines > before

    def close(self) -> None:
        if self._monitoring is not None:
            self._monitoring.set_events(self._monitoring.COVERAGE_ID, 0)
            self._monitoring.free_tool_id(self._monitoring.COVERAGE_ID)

    def _monitor(self) -> None:
        tool = self._monitoring
        tool.use_tool_id(tool.COVERAGE_ID, "drimbox-fuzz")

        def line(code: CodeType, _number: int) -> object:
            self.lines += code.co_filename.startswith(_HOME)
            return tool.DISABLE

        tool.register_callback(tool.COVERAGE_ID, tool.events.LINE, line)
        tool.set_events(tool.COVERAGE_ID, tool.events.LINE)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        code = frame.f_code
        left = self._left.get(code)
        if left is None:
            ours = code.co_filename.startswith(_HOME)
            left = {number for _, _, number in code.co_lines() if number is not None} if ours else set()
            self._left[code] = left
        if not left:
            return None

        def local(_frame: FrameType, event: str, _argument: object) -> Any:
            if event == "line" and _frame.f_lineno in left:
                left.discard(_frame.f_lineno)
                self.lines += 1
            return local

        return local
