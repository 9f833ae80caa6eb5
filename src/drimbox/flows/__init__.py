"""Every network flow of a box in one table, made from its running configuration: the proof for control point C17.

========= ==================================================================================================
table     ``Flow``: one flow, and what it is encrypted with; the four exceptions that control point C17 allows
showing   the table as text, Markdown, JSON
========= ==================================================================================================

The configuration is read by ``box.flows``; this package knows none.
"""

from drimbox.flows.table import Direction, Exception17, Flow, State

__all__ = ["Direction", "Exception17", "Flow", "State"]
