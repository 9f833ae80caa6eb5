"""``drimbox pacs``: what a real PACS answers, and what is wrong when it does not."""

from __future__ import annotations

from click.testing import CliRunner
from speedtest_site import Configure, Held, free_port

from drimbox.cli import main


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["pacs", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_what_a_pacs_does_is_told(held: Held, configure: Configure) -> None:
    password = held.peer.rest_password
    file = configure(
        pacs_port=held.peer.port,
        dicom_port=held.dicom_port,
        more=f'[pacs.dicomweb]\nurl = "{held.peer.dicomweb_url}"\nuser = "{held.peer.rest_user}"\n'
        'password_file = "password"',
    )
    (file.parent / "password").write_text(password)
    status, said = run("--config", file)
    assert status == 0, said
    assert "C-ECHO oui, C-FIND oui, C-MOVE oui, C-GET oui, DICOMweb oui" in said
    assert "interrogation  C-FIND, puis DICOMweb" in said
    assert "récupération   DICOMweb, puis C-MOVE, puis C-GET" in said
    assert password not in said


def test_what_is_wrong_is_told(held: Held, configure: Configure) -> None:
    status, said = run("--config", configure(pacs_port=free_port(), dicom_port=held.dicom_port))
    assert status == 1
    assert "PROBLÈME       Le PACS scanner est injoignable." in said
    unknown = configure(pacs_port=held.peer.port, dicom_port=held.dicom_port, more='calling_ae_title = "NOBODY"')
    status, said = run("--config", unknown)
    assert "C-FIND" in said
    status, said = run("--config", unknown, "--pacs", "autre")
    assert (status, "n'est pas dans la configuration : scanner" in said) == (1, True)
