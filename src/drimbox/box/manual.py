"""``docs/settings.md``, written from the settings themselves."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from drimbox.box.settings import Settings

_INTRODUCTION = """# Settings

A box is one TOML file; `drimbox config check FILE` names the line and the remedy of each mistake. Any value may come
from the environment instead: `DRIMBOX__SECTION__KEY`, and `DRIMBOX__PACS__0__HOST` for an entry of a list. Secrets are
named by file, never written in the configuration. Relative paths are taken from the folder of the file.

This page is written from `src/drimbox/box/settings/` by `./drimbox docs settings`.
"""


def settings_page() -> str:
    """The page, in Markdown."""
    parts = [_INTRODUCTION]
    for name, field in Settings.model_fields.items():
        model = _section(field.annotation)
        repeated = get_origin(field.annotation) is tuple
        title = f"[[{name}]]" if repeated else f"[{name}]"
        parts.append(f"## {title}\n\n{_summary(model)}\n\n{_table(model, name)}")
    return "\n".join(parts)


def _table(model: type[BaseModel], place: str) -> str:
    rows = ["| setting | meaning | default |", "|---|---|---|"]
    nested: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        inner = _section(field.annotation)
        if inner is not None and field.description is None:
            nested.append((f"{place}.{name}", inner))
            continue
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {meaning} | {_default(field, inner)} |")
    text = "\n".join(rows) + "\n"
    for where, inner in nested:
        text += f"\n### [{where}]\n\n{_summary(inner)}\n\n{_table(inner, where)}"
    return text


def _section(annotation: Any) -> Any:
    """The table behind an annotation, through ``X | None`` and ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _section(a)) is not None), None)


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _default(field: Any, inner: type[BaseModel] | None) -> str:
    if field.default is PydanticUndefined:
        kind = "table with `certificate`, `key`, `password_file`" if inner is not None else ""
        return f"required {kind}".strip()
    value = field.default
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{v}`" for v in value)
    if isinstance(value, dict):
        return ", ".join(f"`{k}` = {v}" for k, v in value.items())
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"
