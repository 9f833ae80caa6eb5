"""``INDEX.HTM`` and ``README.TXT`` of a volume: who made it, with what, and how it is laid out (IHE ITI TF-2 3.32)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drimbox.portability import layout
from drimbox.reports.report import Structure


@dataclass(frozen=True, slots=True)
class Emitter:
    """Who sends an archive: the box, the structures it serves, how to reach them (free text), the software."""

    name: str
    structures: Sequence[Structure]
    contact: str = ""
    software: str = "drimbox"
    version: str = ""


def volume_files(emitter: Emitter, volume: str, sets: int) -> Mapping[str, bytes]:
    """The two files of a volume that holds ``sets`` submission sets. They name no patient."""
    return {
        layout.INDEX: _index(emitter, volume).encode(),
        layout.README: "\r\n".join(_readme(emitter, volume, sets)).encode(),
    }


def _readme(emitter: Emitter, volume: str, sets: int) -> list[str]:
    return [
        "Émetteur :",
        "==========",
        f"    . Nom : {_line(emitter.name)}",
        *(f"    . Organisme : {_structure(structure)}" for structure in emitter.structures),
        *(f"    . Contact : {_line(line)}" for line in emitter.contact.splitlines() if line.strip()),
        "",
        "Application de l'émetteur :",
        "===========================",
        f"    . Nom : {emitter.software}",
        f"    . Version : {emitter.version}",
        "",
        "Contenu :",
        "=========",
        f"    . Volume : {volume}",
        f"    . Lots de soumission : {sets}",
        "    . Un lot dépublié du DMP reste dans l'archive : son document KOS porte le statut Deleted ;",
        "      celui qu'un autre a remplacé porte le statut Deprecated.",
        "",
        "Instructions :",
        "==============",
        "    . Importez ce volume dans une DRIMbox. Il contient des données de santé.",
        "",
        "Arborescence :",
        "==============",
        f"    {layout.README}",
        f"    {layout.INDEX}",
        f"    {layout.ROOT}",
        f"        {layout.set_folder(1)}",
        f"            {layout.METADATA}   métadonnées XDS du lot",
        f"            {layout.kos_file(1)}    document KOS",
        f"            {layout.SIGNATURE}     signature du lot",
        f"            {layout.report_file(1)}         compte rendu le plus récent",
        f"            {layout.report_file(2)}       compte rendu précédent, s'il y en a",
        f"        {layout.set_folder(2)}",
        "            ...",
        "",
    ]


def _index(emitter: Emitter, volume: str) -> str:
    senders = "".join(f"<p>Émetteur : {html.escape(_structure(s))}</p>\n" for s in emitter.structures)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML Basic 1.1//EN" "http://www.w3.org/TR/xhtml-basic/xhtml-basic11.dtd">\n'
        '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="fr">\n'
        f"<head><title>{volume}</title></head>\n"
        f"<body>\n<h1>Archive XDM {volume}</h1>\n{senders}"
        f'<p>Voir le fichier <a href="{layout.README}">{layout.README}</a></p>\n'
        "</body>\n</html>\n"
    )


def _structure(structure: Structure) -> str:
    return f"{_line(structure.name)} ({_line(structure.identifier)})"


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text).strip()
