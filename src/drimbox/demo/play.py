"""``drimbox demo``: start the mesh, play the story, stay until Ctrl-C (or end, with ``--once``)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drimbox.demo import mesh as meshes
from drimbox.demo import story
from drimbox.demo.mesh import Mesh, link_of
from drimbox.demo.narration import following
from drimbox.demo.places import FIRST_PORT, ports
from drimbox.demo.processes import NotStarted
from drimbox.demo.sites import citizens_url, console_url, phone_url, viewer_url
from drimbox.demo.visitor import Lost
from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.foundation.signals import TOLD_TO_STOP, stop_on
from drimbox.reports import hl7
from drimbox.reports.reading import read_report
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.ris.exams import exam
from drimbox.store import embedded

_LOCK = "demo.lock"
E_STUDY = "1.2.250.1.213.4.5.2.1.105"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    state: Path
    home: Path
    message: Path | None = None
    fresh: bool = False
    once: bool = False
    report: Path | None = None
    first_port: int = FIRST_PORT
    patients: str = "code"


def say(text: str) -> None:
    """One step of the story, in plain words."""
    print(text, flush=True)


async def play(options: Options) -> int:
    """The exit status: 0 when all of the story came true."""
    state = options.state.absolute()
    try:
        with _alone(state):
            await asyncio.to_thread(_stop_leftovers, state)
            if options.fresh:
                await asyncio.to_thread(_forget, state)
            return await _played(options, state)
    except (NotStarted, story.Untrue, Lost, DrimboxError, OSError) as error:
        print(f"Échec : {error}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the folder: a second demonstration would take its ports, or with ``--fresh`` its data.

    Raises ``Misconfigured``. A killed demonstration lets go of it by dying.
    """
    ours = not state.exists() or not any(state.iterdir()) or any((state / n).exists() for n in (_LOCK, "ports.json"))
    if not ours:
        raise Misconfigured(f"{state} n'est pas le dossier d'une démonstration : donnez-en un autre avec --state")
    state.mkdir(parents=True, exist_ok=True)
    with (state / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Misconfigured(f"Une démonstration tourne déjà avec le dossier {state}") from None
        yield


async def _played(options: Options, state: Path) -> int:
    stop = asyncio.Event()
    # A terminal that is closed (SIGHUP) ends the demonstration as Ctrl-C does.
    stop_on(stop, *TOLD_TO_STOP, signal.SIGHUP)
    playing = asyncio.create_task(_mesh_and_story(options, state))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([playing, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not playing.done():
        # Ctrl-C: everything stops in order.
        say("Arrêt…")
        playing.cancel()
    try:
        return await playing
    except asyncio.CancelledError:
        # With --once, 0 says that all of the story came true.
        return 130 if options.once else 0
    finally:
        stopping.cancel()


def _stop_leftovers(state: Path) -> None:
    """Stop what an earlier demonstration left running when it was killed."""
    for key in ("a", "b"):
        orthanc.stop_leftover(state / f"pacs-{key}")
        embedded.stop_abandoned(state / key / "postgres")


def _forget(state: Path) -> None:
    """Remove what an earlier demonstration left."""
    for path in state.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


async def _mesh_and_story(options: Options, state: Path) -> int:
    ports(state, options.first_port)
    async with meshes.running(state, home=options.home, say=say, patients=options.patients) as mesh:
        timings = story.Timings()
        for running in mesh.processes:
            timings.steps[f"start_{running.name}"] = round(running.started_in, 3)
        message = options.message.read_bytes() if options.message else None
        before = await story.current_kos(mesh)
        control_id = await story.send_report(mesh, message, timings, say)
        studies = _studies(message)
        await story.published(mesh, control_id, studies, before, timings, say)
        if options.once:
            return await _once(options, mesh, sorted(studies), timings)
        _print_addresses(mesh)
        async with following((state / "logs" / "site-a.log", state / "logs" / "site-b.log"), say):
            await asyncio.Event().wait()
    return 0


def _studies(message: bytes | None) -> set[str]:
    """The studies that the DMP must show at the end."""
    return {E_STUDY} if message is None else set(read_report(hl7.parse(message)).study_uids())


async def _once(options: Options, mesh: Mesh, studies: list[str], timings: story.Timings) -> int:
    visitor, listed = await story.consult(mesh, timings, say)
    problems: list[str] = []
    images = 0
    for study in studies:
        opened = await story.open_exam(visitor, listed, study, timings, say)
        received = await story.fetch_all(opened, timings, say)
        images += len(received)
        problems += story.compare(mesh, study, received, say)
        if not received:
            problems.append(f"{study}: no image")
    if options.message is None:
        await story.follow_link(mesh, timings, say)
    figures: dict[str, Any] = {
        "ok": not problems,
        "images": images,
        "problems": problems,
        "seconds": timings.steps,
        "resident_bytes": mesh.memory(),
    }
    if options.report:
        options.report.write_text(json.dumps(figures, indent=2, ensure_ascii=False), "utf-8")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    say("Tout est vrai." if not problems else "Tout n'est pas vrai.")
    return 0 if not problems else 1


def _patient(mesh: Mesh) -> str:
    if mesh.patients == "oidc":
        return f"s'identifie chez le fournisseur d'identité d'essai   {citizens_url(mesh.ports)}"
    return f"née le 28/03/1979, féminin, à Dompremy ; son téléphone   {phone_url(mesh.ports)}"


def _print_addresses(mesh: Mesh) -> None:
    logins = "\n".join(
        f"    {user.login:12} {user.given} {user.family} – "
        f"{sum(len(exercise.activities) for exercise in user.exercises)} situation(s) d'exercice"
        for user in mesh.national.logins
    )
    openers = "\n".join(f"    {one.login:12} {one.password}  ({', '.join(one.roles)})" for one in mesh.consoles["a"])
    say(
        f"""
La suite se joue dans un navigateur :
  1. ouvrez le RIS du site B            {mesh.ris_b}
  2. appuyez sur « Images antérieures (DRIM-M) »
  3. identifiez-vous avec Pro Santé Connect, par un de ces professionnels de test :
{logins}
  4. ouvrez les images de l'examen.

  Console de l'exploitant du site A                 {console_url(mesh.ports, "a")}
{openers}
    ou Pro Santé Connect, par les mêmes professionnels de test

  Console de l'exploitant du site B                 {console_url(mesh.ports, "b")}
  RIS du site A (envoyer d'autres comptes rendus)   {mesh.ris_a}
  Lien du compte rendu, pour un patient ou un médecin
    {link_of(viewer_url(mesh.ports), exam("E"))}
    patient : {_patient(mesh)}
  Ce que tient le DMP                               {mesh.national.dmp_view}/documents
  Toutes les adresses, les certificats              {mesh.state / "endpoints.json"}
  Autorité de certification de test (à accepter)    {mesh.national.roots}

Ctrl-C arrête tout ; les données restent (--fresh recommence à zéro)."""
    )
