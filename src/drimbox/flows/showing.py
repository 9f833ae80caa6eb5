"""The table of flows as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from drimbox.flows.table import Exception17, Flow, State

_HEAD = ("sens", "flux", "adresse et port", "protocole", "chiffrement", "authentification", "C17", "réglage")


def cells(flow: Flow) -> tuple[str, ...]:
    """One row, under ``_HEAD``."""
    return (
        flow.direction.value,
        flow.name,
        flow.where,
        flow.protocol,
        flow.encryption or "aucun",
        flow.authentication or "aucune",
        flow.exception.value if flow.state is State.EXCEPTION and flow.exception else flow.state.value,
        flow.setting,
    )


def conclusion(flows: Sequence[Flow]) -> str:
    """What control point C17 finds, in one sentence or two."""
    clear = [flow for flow in flows if flow.state is State.CLEAR]
    used = [flow for flow in flows if flow.state is State.EXCEPTION]
    told = (
        f"{len(flows)} flux ; {len(used)} en clair au titre des exceptions du point de contrôle C17"
        if used
        else f"{len(flows)} flux ; aucune exception du point de contrôle C17 n'est employée"
    )
    if not clear:
        return f"{told} ; tous les autres sont chiffrés ou internes à la machine."
    names = ", ".join(f"{flow.name} [{flow.setting}]" for flow in clear)
    return f"{told}. ÉCART au point de contrôle C17, {len(clear)} flux en clair sur le réseau : {names}."


def text(flows: Sequence[Flow]) -> str:
    """For a terminal."""
    rows = [_HEAD, *map(cells, flows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:], "", conclusion(flows)])


def markdown(flows: Sequence[Flow]) -> str:
    """For a document."""
    rows = [_row(_HEAD), _row(("---",) * len(_HEAD)), *(_row(cells(flow)) for flow in flows)]
    exceptions = "\n".join(f"- {each.value}" for each in Exception17)
    return (
        "\n".join(rows)
        + f"\n\n{conclusion(flows)}\n\nExceptions que le point de contrôle C17 admet :\n\n{exceptions}\n"
    )


def as_json(flows: Sequence[Flow]) -> str:
    """For programs."""
    found = [
        {
            "direction": flow.direction.value,
            "name": flow.name,
            "host": flow.host,
            "port": flow.port,
            "path": flow.path,
            "protocol": flow.protocol,
            "encryption": flow.encryption,
            "authentication": flow.authentication,
            "state": flow.state.name.lower(),
            "exception": flow.exception.name.lower() if flow.exception else None,
            "setting": flow.setting,
        }
        for flow in flows
    ]
    return json.dumps({"flows": found, "conclusion": conclusion(flows)}, indent=2, ensure_ascii=False)


def _row(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
