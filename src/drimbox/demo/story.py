"""The story without a browser: the same pages, the same forms, the same images, each step timed."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import pydicom

from drimbox.demo.compare import differences
from drimbox.demo.fate import fate_of
from drimbox.demo.mesh import PATIENT_AT_B, Mesh, Say, link_of
from drimbox.demo.sites import phone_url, viewer_url
from drimbox.demo.visitor import Page, Visitor
from drimbox.reports import hl7
from drimbox.sandbox import phone
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.app import call_parameters
from drimbox.sandbox.ris.exams import exam

LOGIN = "doc0036790"


class Untrue(Exception):
    """Something of the story did not come true; says what."""


@dataclass(slots=True)
class Timings:
    """Seconds that each step took, in the order they happened."""

    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.steps[step] = round(time.monotonic() - begun, 3)


async def send_report(mesh: Mesh, message: bytes | None, timings: Timings, say: Say) -> str:
    """Site A's RIS sends its report; returns MSH-10 once the box has taken responsibility (AA)."""
    link = link_of(viewer_url(mesh.ports), exam("E"))
    letter = letters.Letter(exam("E"), f"DEMO{secrets.token_hex(8)}", link=link)
    now = dt.datetime.now(dt.UTC)
    sent = letters.oru(letter, now) if message is None else letters.filled_in(message, letter, now)
    say("Le RIS du site A envoie le compte rendu de l'examen (HL7 v2, MLLP)…")
    with timings.of("report_to_ack"):
        [answer] = await wire.send("127.0.0.1", mesh.ports.mllp_a, [sent])
    if wire.verdict(answer) != "AA":
        raise Untrue(f"le compte rendu n'est pas accepté :\n{answer.decode('utf-8', 'replace')}")
    say("  accepté : la DRIMbox du site A en prend la responsabilité (AA).")
    return hl7.parse(sent).control_id


async def published(
    mesh: Mesh,
    control_id: str,
    studies: set[str],
    before: Mapping[str, str],
    timings: Timings,
    say: Say,
    patience: float = 60.0,
) -> None:
    """Wait until site A is done with the message; then the DMP holds one current KOS for each study.

    ``before`` is what ``current_kos`` gave before the message was sent.
    """
    begun = time.monotonic()
    while True:
        # In this order: once nothing is left to be done, what the DMP holds is the outcome.
        fate = await fate_of(mesh.state / "a", control_id)
        found = await current_kos(mesh)
        if all(study in found and found[study] != before.get(study) for study in studies):
            timings.steps["ack_to_kos"] = round(time.monotonic() - begun, 3)
            say("La DRIMbox du site A a lu l'examen dans le PACS, construit le KOS et l'a publié dans le DMP.")
            return
        if fate.problems:
            raise Untrue(
                f"le KOS n'est pas publié ; la file de l'opérateur du site A dit : {' ; '.join(fate.problems)}"
            )
        if fate.settled and studies <= found.keys():
            say("La DRIMbox du site A n'a rien de nouveau à publier : le DMP tient déjà le KOS de l'examen.")
            return
        if fate.settled or time.monotonic() - begun > patience:
            raise Untrue("le DMP ne tient pas de KOS de l'examen ; voir la file de l'opérateur du site A")
        await asyncio.sleep(0.02)


async def current_kos(mesh: Mesh) -> dict[str, str]:
    """The approved KOS that the DMP holds: Study Instance UID -> UID of the KOS."""
    reply = await mesh.http.send("GET", f"{mesh.national.dmp_view}/documents", tls=mesh.tls)
    found: dict[str, str] = {}
    for document in json.loads(reply.body):
        if document["mime"] == "application/dicom" and document["status"].endswith(":Approved"):
            for reference in document["references"]:
                if reference.endswith("studyInstanceUID"):
                    found[reference.split("^")[0]] = document["unique_id"]
    return found


async def current_studies(mesh: Mesh) -> set[str]:
    """Study Instance UIDs for which the DMP holds an approved KOS."""
    return set(await current_kos(mesh))


@dataclass(frozen=True, slots=True)
class Opened:
    """The viewer's page of one exam, and where its images are."""

    visitor: Visitor
    page: Page
    dicomweb: str
    study_uid: str


async def consult(
    mesh: Mesh, timings: Timings, say: Say, *, login: str = LOGIN, study_uid: str = ""
) -> tuple[Visitor, Page]:
    """From the contextual call (about one study if it is named) to the list of exams; the visitor, and that page."""
    visitor = Visitor(mesh.http, mesh.tls)
    say("Le RIS du site B appelle la DRIMbox (appel contextuel)…")
    with timings.of("contextual_call"):
        narrowed = {"StudyInstanceUID": study_uid} if study_uid else {}
        page = await visitor.post(mesh.call_url, call_parameters(PATIENT_AT_B) | narrowed)
    say("Le radiologue s'identifie avec Pro Santé Connect…")
    with timings.of("login"):
        page = await visitor.follow(page, "Pro Santé Connect")
        if "/auth" in page.address:
            page = await visitor.press(page, "", user=login)
    with timings.of("list_of_exams"):
        page = await _admitted(visitor, page, mesh.national.sites["b"].site.place.name)
        say("  identifié ; il a été informé de la traçabilité (DMP/AIRS.07).")
        while 'aria-busy="true"' in page.body.decode("utf-8"):
            page = await visitor.get(page.address)
    return visitor, page


async def _admitted(visitor: Visitor, page: Page, place: str) -> Page:
    """What is asked of a professional before the list: to take notice, then in which practice, if there are several."""
    if "J’en ai pris connaissance" in page.text:
        page = await visitor.press(page, "Continuer")
    for choice in page.tree.xpath("//label[input[@name='situation']]"):
        if place in choice.text_content():
            return await visitor.press(page, "Choisir", situation=choice.find("input").get("value"))
    return page


async def open_exam(visitor: Visitor, listed: Page, study_uid: str, timings: Timings, say: Say) -> Opened:
    """Open the images of the study from the list; a call that named the study has opened them already."""
    with timings.of("viewer_page"):
        if (opened := _in_viewer(visitor, await _read_warning(visitor, listed), study_uid)) is not None:
            return opened
        links = listed.tree.xpath("//a[contains(@href, '/images/')]/@href")
        say(f"Le DMP montre {len(links)} examen(s) avec images ; le radiologue ouvre celui du compte rendu…")
        for link in links:
            page = await _read_warning(visitor, await visitor.get(urljoin(listed.address, link)))
            if (opened := _in_viewer(visitor, page, study_uid)) is not None:
                return opened
    raise Untrue("l'examen du compte rendu n'est pas parmi ceux trouvés dans le DMP")


async def _read_warning(visitor: Visitor, page: Page) -> Page:
    """A document that is not shown to everyone is opened once the professional has read who must not see it."""
    return await visitor.press(page, "J’ai compris") if "visibilité restreinte" in page.title else page


def _in_viewer(visitor: Visitor, page: Page, study_uid: str) -> Opened | None:
    for frame in page.tree.xpath("//iframe/@src"):
        if frame.endswith(f"/viewer?StudyInstanceUIDs={study_uid}"):
            base = urljoin(page.address, frame.partition("/viewer?")[0])
            return Opened(visitor, page, f"{base}/dicomweb", study_uid)
    return None


async def fetch_all(opened: Opened, timings: Timings, say: Say) -> dict[str, bytes]:
    """Every image of the study, as the consumer holds it; SOP Instance UID -> file."""
    study = f"{opened.dicomweb}/studies/{opened.study_uid}"
    begun = time.monotonic()
    found: dict[str, bytes] = {}
    for series in json.loads((await opened.visitor.get(f"{study}/series", accept="application/dicom+json")).body):
        address = f"{study}/series/{_text(series, '0020000E')}"
        listed = await opened.visitor.get(f"{address}/instances", accept="application/dicom+json")
        for instance in json.loads(listed.body):
            uid = _text(instance, "00080018")
            answer = await opened.visitor.get(f"{address}/instances/{uid}", accept="application/dicom")
            if answer.status != 200:
                raise Untrue(f"une image n'est pas arrivée (HTTP {answer.status})")
            timings.steps.setdefault("first_image", round(time.monotonic() - begun, 3))
            found[uid] = answer.body
    timings.steps["all_images"] = round(time.monotonic() - begun, 3)
    size = sum(map(len, found.values()))
    timings.steps["megabytes"] = round(size / 1e6, 3)
    say(f"  {len(found)} image(s) reçue(s) du site A par WADO-RS ({size / 1e6:.1f} Mo).")
    return found


async def follow_link(mesh: Mesh, timings: Timings, say: Say) -> Page:
    """The patient opens the link of the report, as site A lets patients in, and leaves; the last page."""
    say("Le patient ouvre le lien de son compte rendu (visionneuse du site A)…")
    visitor = Visitor(mesh.http, mesh.tls)
    with timings.of("link"):
        page = await visitor.get(link_of(viewer_url(mesh.ports), exam("E")))
        page = await visitor.press(page, "Je suis le patient")
        if mesh.patients == "oidc":
            page = await visitor.press(await visitor.follow(page, "FranceConnect"), "Dominique")
        else:
            page = await _by_code(mesh, visitor, page)
    if not urlsplit(page.address).path.startswith("/visite/"):
        raise Untrue("le lien du compte rendu ne s'ouvre pas au patient")
    how = "son identité est celle du compte rendu" if mesh.patients == "oidc" else "un code lui est envoyé"
    say(f"  {how}, et la porte s'ouvre sur cet examen seul.")
    return await visitor.press(await visitor.get(f"{page.address.rstrip('/')}/fin"), "Fermer")


async def _by_code(mesh: Mesh, visitor: Visitor, page: Page, patience: float = 20.0) -> Page:
    """With the code that reaches the telephone."""
    who = PATIENT_AT_B
    birth = who.birth_date
    before = len(await _messages(mesh))
    born = f"{birth[6:]}/{birth[4:6]}/{birth[:4]}"
    page = await visitor.press(page, "Recevoir un code", naissance=born, sexe=who.sex, lieu=who.birth_city)
    deadline = time.monotonic() + patience
    while len(messages := await _messages(mesh)) == before:
        if time.monotonic() > deadline:
            raise Untrue("le code du patient n'est pas arrivé ; voir le journal du site A")
        await asyncio.sleep(0.05)
    return await visitor.press(page, "Voir les images", code=messages[0]["code"])


async def _messages(mesh: Mesh) -> list[dict[str, str]]:
    """What the telephone of the patient received, the newest first."""
    reply = await mesh.http.send("GET", f"{phone_url(mesh.ports)}{phone.PATH}", tls=mesh.tls)
    found: list[dict[str, str]] = json.loads(reply.body)
    return found


def compare(mesh: Mesh, study_uid: str, received: dict[str, bytes], say: Say) -> list[str]:
    """Each image received against the PACS's own; what is wrong, by image."""
    originals = dict(_originals(mesh, study_uid))
    problems = [f"{uid}: not received" for uid in originals.keys() - received.keys()]
    problems += [f"{uid}: not in the PACS" for uid in received.keys() - originals.keys()]
    for uid in sorted(originals.keys() & received.keys()):
        found = differences(received[uid], originals[uid], ins=PATIENT_AT_B.ins, ins_oid=PATIENT_AT_B.ins_oid)
        problems += [f"{uid}: {what}" for what in found]
    if not problems:
        say("  chacune est celle du PACS : pixels identiques, en-tête identique à l'INS près.")
    return problems


def _originals(mesh: Mesh, study_uid: str) -> Iterator[tuple[str, bytes]]:
    """The images of the study as site A's PACS holds them."""
    if not mesh.pacs_a.rest_url:
        for path in (mesh.state / "samples").rglob("*.dcm"):
            header = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SOPInstanceUID"]
            )
            if header.StudyInstanceUID == study_uid:
                yield str(header.SOPInstanceUID), path.read_bytes()
        return
    query = {"Level": "Instance", "Expand": True, "Query": {"StudyInstanceUID": study_uid}}
    for instance in json.loads(orthanc.rest(mesh.pacs_a, "POST", "/tools/find", json.dumps(query).encode())):
        yield (
            instance["MainDicomTags"]["SOPInstanceUID"],
            orthanc.rest(mesh.pacs_a, "GET", f"/instances/{instance['ID']}/file"),
        )


def _text(dataset: dict[str, dict[str, list[str]]], tag: str) -> str:
    return dataset[tag]["Value"][0]
