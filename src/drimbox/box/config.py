"""Reading the configuration: TOML, then the environment, then every mistake at once with its line and its remedy."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from drimbox.box.places import Where, pairs_of, place_at
from drimbox.box.settings import Settings
from drimbox.box.settings.common import KeyPair
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.national.oidc.service import key_of
from drimbox.trust.chain import TrustStore
from drimbox.trust.fitness import breaches_of, range_of
from drimbox.trust.keystore import read_key
from drimbox.trust.tls import load_trust
from drimbox.trust.token import Tokens

PREFIX = "DRIMBOX__"
_KEY = re.compile(r"""\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*=""")
_TABLE = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_AT = re.compile(r"\(at line (\d+)")

_OF_THE_MOMENT = ("expired", "not-yet", "revoked")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to change. ``line`` is None when it comes from the environment or concerns the whole file."""

    setting: str
    line: int | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = f"ligne {self.line}, " if self.line else ""
        return f"{place}{self.setting} : {self.problem}. {self.remedy}"


class ConfigMistakes(Misconfigured):
    """The configuration cannot be used; ``mistakes`` says all that must change."""

    def __init__(self, path: Path, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(f"{len(mistakes)} erreur(s) de configuration dans {path.name}", code="config")
        self.mistakes = mistakes


def load(path: Path, environment: Mapping[str, str], *, strict: bool = False) -> Settings:
    """The settings of the box that ``path`` describes; relative paths are taken from its folder.

    Raises ``ConfigMistakes`` with every mistake found, files and pairs included. Unless ``strict``, the pairs of
    structures are left out, since one that cannot be used stops that structure alone (``box.structures``), and so is
    what was right once: another pair may be installed in its place (``box.keys``).
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _one(path, Mistake(str(path), None, "fichier illisible", "Donnez un fichier TOML en UTF-8.")) from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT.search(str(error))
        # "At end of document" is all that it says of a bracket or a quote that nothing closes.
        line = int(at[1]) if at else len(text.splitlines())
        raise _one(path, Mistake("TOML", line, f"syntaxe fausse ({error})", "Corrigez cette ligne.")) from error
    overrides = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    for name, value in overrides.items():
        _override(tree, [part.lower() for part in name[len(PREFIX) :].split("__")], value)
    lines = dict(_lines(text))
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigMistakes(path, tuple(_explain(e, lines) for e in error.errors())) from error
    settings = _absolute(settings, path.parent)
    if mistakes := tuple(_files(settings, lines, strict)):
        raise ConfigMistakes(path, mistakes)
    return settings


def _one(path: Path, mistake: Mistake) -> ConfigMistakes:
    return ConfigMistakes(path, (mistake,))


def _override(tree: dict[str, Any], path: list[str], value: str) -> None:
    """Put an environment variable's value in its place; ``DRIMBOX__PACS__0__HOST`` reaches into lists."""
    node: Any = tree
    for part in path[:-1]:
        if isinstance(node, list):
            node = node[int(part)] if part.isdigit() and int(part) < len(node) else {}
        else:
            node = node.setdefault(part, {})
    if isinstance(node, dict):
        node[path[-1]] = value


def _lines(text: str) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Where each table and each key stands. The text is known to be valid TOML."""
    table: tuple[str | int, ...] = ()
    counts: dict[tuple[str | int, ...], int] = {}
    depth = 0
    quote = ""
    for number, line in enumerate(text.splitlines(), 1):
        if depth == 0 and not quote:
            if line.lstrip().startswith("["):
                match = _TABLE.match(line)
                if match:
                    names = tuple(part.strip().strip("\"'") for part in match[1].split("."))
                    table = _place(names, counts, new=line.lstrip().startswith("[["))
                    yield table, number
                continue
            match = _KEY.match(line)
            if match:
                yield (*table, match[1].strip("\"'")), number
        depth, quote = _open_brackets(line, depth, quote)


def _place(names: tuple[str, ...], counts: dict[tuple[str | int, ...], int], *, new: bool) -> tuple[str | int, ...]:
    place: tuple[str | int, ...] = ()
    for index, name in enumerate(names):
        place = (*place, name)
        if new and index == len(names) - 1:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _open_brackets(line: str, depth: int, quote: str) -> tuple[int, str]:
    """How deep in arrays and inside which multi-line string the text is after this line."""
    position = 0
    while position < len(line):
        three = line[position : position + 3]
        if quote:
            if three == quote:
                quote, position = "", position + 2
        elif three in ('"""', "'''"):
            quote, position = three, position + 2
        elif line[position] in "\"'":
            end = line.find(line[position], position + 1)
            position = len(line) if end < 0 else end
        elif line[position] == "#":
            break
        elif line[position] in "[{":
            depth += 1
        elif line[position] in "]}":
            depth -= 1
        position += 1
    return depth, quote


_PROBLEMS = {
    "missing": ("réglage obligatoire absent", "Ajoutez-le."),
    "string_type": ("un texte entre guillemets est attendu", "Mettez la valeur entre guillemets."),
    "int_parsing": ("un nombre entier est attendu", "Donnez un nombre entier."),
    "int_type": ("un nombre entier est attendu", "Donnez un nombre entier."),
    "float_parsing": ("un nombre est attendu", "Donnez un nombre."),
    "bool_parsing": ("true ou false est attendu", "Écrivez true ou false."),
    "path_type": ("un chemin entre guillemets est attendu", "Donnez le chemin du fichier."),
    "tuple_type": ("une liste est attendue", "Écrivez une liste entre crochets."),
    "model_type": ("une table est attendue", "Écrivez une table TOML."),
    "too_short": ("liste vide", "Donnez au moins un élément."),
}


def _explain(error: Any, lines: Mapping[tuple[str | int, ...], int]) -> Mistake:
    place = tuple(error["loc"])
    problem, remedy = _PROBLEMS.get(error["type"], ("", ""))
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), _known(place[:-1]), n=1)
        problem = "réglage inconnu"
        remedy = f"Vouliez-vous dire « {near[0]} » ?" if near else "Retirez-le ou corrigez son nom (docs/settings.md)."
    elif error["type"] == "literal_error":
        problem, remedy = "valeur inconnue", f"Valeurs possibles : {context.get('expected', '')}."
    elif error["type"] in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        [(bound, value)] = context.items()
        words = {"ge": "au moins", "gt": "plus de", "le": "au plus", "lt": "moins de"}[bound]
        problem, remedy = "nombre hors limites", f"Donnez {words} {value}."
    elif error["type"] == "value_error":
        problem, remedy = str(context.get("error", error["msg"])), "Corrigez la valeur (docs/settings.md)."
    elif not problem:
        problem, remedy = f"valeur refusée ({error['msg']})", "Corrigez la valeur (docs/settings.md)."
    return Mistake(_dotted(place), _nearest(place, lines), problem, remedy)


def _dotted(place: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.lstrip(".") or "fichier"


def _nearest(place: tuple[str | int, ...], lines: Mapping[tuple[str | int, ...], int]) -> int | None:
    """The line of the setting, else of the table that should hold it."""
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return lines[place[:length]]
    return None


def _known(place: tuple[str | int, ...]) -> list[str]:
    model: Any = Settings
    for part in place:
        if isinstance(part, int):
            continue
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = _model_of(field.annotation)
    return list(getattr(model, "model_fields", {}))


def _model_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for argument in get_args(annotation) if (m := _model_of(argument)) is not None), None)


def _absolute(settings: Settings, folder: Path) -> Settings:
    """Every relative path made absolute from the folder of the configuration."""

    def visit(value: Any) -> Any:
        if isinstance(value, Path):
            return value if value.is_absolute() else folder / value
        if isinstance(value, BaseModel):
            return value.model_copy(update={name: visit(getattr(value, name)) for name in type(value).model_fields})
        if isinstance(value, tuple):
            return tuple(visit(item) for item in value)
        return value

    result = visit(settings)
    assert isinstance(result, Settings)
    return result


def _files(settings: Settings, lines: Mapping[tuple[str | int, ...], int], strict: bool) -> Iterator[Mistake]:
    """Files that are named and not there, and, when ``strict``, pairs that cannot be used."""
    for place, value in _walk(settings, ()):
        if any(place[: len(where)] == where for where, _ in pairs_of(settings)):
            continue
        if isinstance(value, Path) and not _made_at_need(place) and not value.is_file():
            yield Mistake(_dotted(place), _nearest(place, lines), "fichier absent", f"Déposez {value.name}.")
    trust: TrustStore | None = None
    try:
        trust = load_trust(settings.trust.roots, settings.trust.revocation_lists, quiet=True)
    except Misconfigured as error:
        place = ("trust", "roots")
        yield Mistake(_dotted(place), _nearest(place, lines), error.reason, "Installez les racines de l'IGC-Santé.")
    if trust is not None:
        yield from _range(trust, settings, lines)
    yield from _token_keys(settings, lines)
    tokens = Tokens()
    for where, pair in pairs_of(settings):
        if strict or where[0] != "structures":
            yield from _pair(where, pair, settings, lines, trust, tokens, () if strict else _OF_THE_MOMENT)


def _token_keys(settings: Settings, lines: Mapping[tuple[str | int, ...], int]) -> Iterator[Mistake]:
    """Keys of the tokens of the patients' identity provider that cannot be used."""
    oidc = settings.link.oidc if settings.link is not None else None
    for name in ("signing_key", "encryption_key"):
        file: Path | None = getattr(oidc, name, None)
        if file is None or not file.is_file():
            continue
        place = ("link", "oidc", name)
        try:
            key_of(read_key(file), _dotted(place))
        except Misconfigured as error:
            remedy = "Faites-en une : openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256."
            yield Mistake(_dotted(place), _nearest(place, lines), error.reason, remedy)


def _range(trust: TrustStore, settings: Settings, lines: Mapping[tuple[str | int, ...], int]) -> Iterator[Mistake]:
    """Roots of the other range than the box's."""
    found = range_of(trust.roots)
    if found is not None and found != settings.box.environment:
        where = ("trust", "roots")
        problem = f"racines de la gamme {found}, et box.environment dit {settings.box.environment}"
        yield Mistake(_dotted(where), _nearest(where, lines), problem, "Gardez une seule gamme, de bout en bout.")


def _made_at_need(place: tuple[str | int, ...]) -> bool:
    """Folders and files that the box makes itself."""
    return place[-1] in (
        "state_dir",
        "viewer_dir",
        "cache_dir",
        "transit_dir",
        "tools_dir",
        "vault_secret",
        "socket",
        # nginx's own, and what is written for it.
        "folder",
        "reload_pid_file",
    ) or place[-2:] == ("nginx", "password_file")


def _walk(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, BaseModel):
        yield place, value
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name), (*place, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _walk(item, (*place, index))
    elif isinstance(value, Path):
        yield place, value


def _pair(
    where: Where,
    pair: KeyPair,
    settings: Settings,
    lines: Mapping[tuple[str | int, ...], int],
    trust: TrustStore | None,
    tokens: Tokens,
    excused: Collection[str],
) -> Iterator[Mistake]:
    """Everything that is wrong with a pair, but the breaches of these codes."""
    absent = {
        name: path
        for name in type(pair).model_fields
        if isinstance(path := getattr(pair, name), Path) and not path.is_file()
    }
    for name, path in absent.items():
        place = (*where, name)
        yield Mistake(_dotted(place), _nearest(place, lines), "fichier absent", f"Déposez {path.name}.")
    if absent:
        return
    try:
        loaded = pair.source.read(tokens)
        demand = place_at(where, pair, settings, lambda: trust).demand()
    except DrimboxError as error:
        yield Mistake(_dotted(where), _nearest(where, lines), error.reason, "Installez une paire valide.")
        return
    for breach in breaches_of(loaded, demand, SystemClock().now()):
        if breach.code not in excused:
            yield Mistake(_dotted(where), _nearest(where, lines), breach.problem, breach.remedy)
