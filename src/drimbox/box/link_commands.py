"""What a RIS needs to write links: the template, a link with its QR code, the partial URL of tele-radiology."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

_CONFIG = click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="the box's TOML file")
_STUDY = click.option("--study", required=True, metavar="UID", help="Study Instance UID")
_ACCESSION = click.option("--accession", required=True, metavar="NUMBER", help="accession number")


@click.group()
def link() -> None:
    """The link to the images in a report: what its writers need."""


@link.command("template")
@_CONFIG
def template(path: Path) -> None:
    """The template for the RIS, and how to fill it in."""
    from drimbox.link import address

    def work(origin: str) -> str:
        return (
            f"{address.template(origin)}\n\n"
            "À remplacer, chaque valeur encodée pour une URL (RFC 3986) :\n"
            "  {StudyInstanceUID}  l'UID de l'examen\n"
            "  {AccessionNumber}   le numéro d'examen (accession number) que le PACS connaît\n"
            "  {idCDA}             l'identifiant du compte rendu : root_extension du CDA (root seul sans extension)\n"
            "Pour une seule série : requestType=SERIES et &seriesUID={SeriesInstanceUID}."
        )

    _said(path, work)


@link.command("url")
@_CONFIG
@_STUDY
@_ACCESSION
@click.option("--report", required=True, metavar="ID", help="id of the CDA: root_extension, or root")
@click.option("--series", metavar="UID", help="Series Instance UID, for a link to one series")
@click.option("--qr", type=click.Path(path_type=Path), help="write its QR code to this file (.svg or .png)")
def url(path: Path, study: str, accession: str, report: str, series: str | None, qr: Path | None) -> None:
    """The link of one report, and its QR code."""
    from drimbox.link import address
    from drimbox.link.drawing import qr_code

    def work(origin: str) -> str:
        found = address.whole(origin, address.Link(study, accession, address.ReportId.of(report), series))
        if qr is not None:
            qr.write_bytes(qr_code(found, qr.suffix))
        return found

    _said(path, work)


@link.command("partial")
@_CONFIG
@_STUDY
@_ACCESSION
@click.option("--obx", type=click.IntRange(1, 9999), metavar="N", help="as the OBX segment number N")
def partial(path: Path, study: str, accession: str, obx: int | None) -> None:
    """The partial URL handed to a remote radiologist: the id of the report is to be put at its end."""
    from drimbox.link import address

    def work(origin: str) -> str:
        found = address.partial(origin, study, accession)
        return address.partial_observation(obx, found) if obx else found

    _said(path, work)


def _said(path: Path, work: Callable[[str], str]) -> None:
    import os

    from drimbox.box.config import ConfigMistakes, load
    from drimbox.box.link import public_url
    from drimbox.foundation.errors import DrimboxError

    try:
        click.echo(work(public_url(load(path, os.environ))))
    except ConfigMistakes as error:
        click.echo(error.reason, err=True)
        for mistake in error.mistakes:
            click.echo(f"  {mistake}", err=True)
        sys.exit(1)
    except DrimboxError as error:
        click.echo(error.reason, err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"Fichier non écrit : {error.strerror}", err=True)
        sys.exit(1)
