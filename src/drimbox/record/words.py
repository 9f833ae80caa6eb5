"""The audit journal in French: what each kind of event, object and outcome is called, and a line as a table has it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping

from drimbox.foundation.clock import PARIS
from drimbox.record.audit import Actor, Kind, Object, Outcome, Recorded, Thing

KINDS: Mapping[Kind, str] = {
    Kind.STARTED: "Démarrage de la passerelle",
    Kind.STOPPED: "Arrêt de la passerelle",
    Kind.AUDIT_READ: "Recherche dans le journal",
    Kind.AUDIT_EXPORTED: "Export du journal",
    Kind.AUDIT_VERIFIED: "Vérification du journal",
    Kind.AUDIT_REMOVED: "Retrait de traces échues",
    Kind.REPORT_RECEIVED: "Compte rendu reçu (ORU)",
    Kind.MDM_RECEIVED: "Compte rendu reçu (MDM)",
    Kind.ORDER_RECEIVED: "Message sur un examen reçu (OMI)",
    Kind.NOTE_RECEIVED: "Note du PACS reçue (IOCM)",
    Kind.PACS_QUERIED: "Interrogation du PACS",
    Kind.DMP_QUERIED: "Recherche au DMP",
    Kind.DMP_ACCESS_CHECKED: "Autorisation d'accès au DMP vérifiée",
    Kind.DMP_ACCESS_CHANGED: "Autorisation d'accès au DMP changée",
    Kind.KOS_PUBLISHED: "Publication d'un KOS",
    Kind.KOS_UPDATED: "Mise à jour d'un KOS",
    Kind.KOS_DEPUBLISHED: "Dépublication d'un KOS",
    Kind.DOCUMENT_RETRIEVED: "Document du DMP lu",
    Kind.ARCHIVE_EXPORTED: "Export de l'archive",
    Kind.ARCHIVE_IMPORTED: "Import d'une archive",
    Kind.BACKUP_MADE: "Sauvegarde",
    Kind.BACKUP_RESTORED: "Restauration d'une sauvegarde",
    Kind.ARCHIVE_WALKED: "Parcours de l'archive",
    Kind.IMAGES_SERVED: "Images servies",
    Kind.PACS_MEASURED: "Mesure du PACS",
    Kind.IMAGES_FETCHED: "Images reçues d'une autre source",
    Kind.IMAGES_VIEWED: "Images consultées",
    Kind.IMAGES_IMPORTED: "Images importées au PACS",
    Kind.IMAGES_EXPORTED: "Images exportées (ZIP, PDI)",
    Kind.STUDY_DELETED: "Examen supprimé",
    Kind.CONTEXTUAL_CALL: "Appel contextuel",
    Kind.LINK_OPENED: "Lien d'un compte rendu ouvert",
    Kind.LINK_IDENTITY_CHECKED: "Identité demandée au lien d'un compte rendu",
    Kind.LINK_CODE_SENT: "Code envoyé au patient",
    Kind.LOGIN: "Connexion",
    Kind.LOGOUT: "Déconnexion",
    Kind.NODE_REFUSED: "Appelant refusé",
    Kind.TOKEN_REFUSED: "Jeton refusé",
    Kind.WHITELIST_REFUSED: "Liste blanche refusée",
    Kind.WHITELIST_CHANGED: "Liste blanche changée",
    Kind.EVIDENCE_EXPORTED: "Pièces du dossier d'habilitation exportées",
    Kind.CONFIGURATION_CHANGED: "Configuration changée",
    Kind.ROLES_CHANGED: "Droits d'un compte changés",
    Kind.ACCOUNT_CHANGED: "Compte changé",
    Kind.EMERGENCY_STARTED: "Bris de glace",
    Kind.EMERGENCY_STOPPED: "Fin du bris de glace",
    Kind.IDENTITY_DECIDED: "Identité confirmée par le professionnel",
    Kind.NOTICE_ACCEPTED: "Information lue et acceptée",
    Kind.MESSAGE_READ: "Message brut ouvert",
    Kind.QUEUE_ACTED: "Action sur la file",
}

THINGS: Mapping[Thing, str] = {
    Thing.STUDY: "examen",
    Thing.SERIES: "série",
    Thing.INSTANCE: "image",
    Thing.KOS: "KOS",
    Thing.DOCUMENT: "document",
    Thing.SUBMISSION: "lot",
    Thing.MESSAGE: "message",
    Thing.ACCESSION: "numéro d'examen",
    Thing.SESSION: "session",
    Thing.SYSTEM: "système",
    Thing.QUERY: "critère",
    Thing.PATIENT: "patient (référence)",
    Thing.INCIDENT: "incident",
    Thing.ACCOUNT: "compte",
}

OUTCOMES: Mapping[Outcome, str] = {
    Outcome.SUCCESS: "réussi",
    Outcome.MINOR_FAILURE: "échec passager",
    Outcome.SERIOUS_FAILURE: "échec",
    Outcome.MAJOR_FAILURE: "échec majeur",
}

HEAD = (
    *("numero", "instant", "nature", "code", "action", "issue", "motif", "personne", "nom", "profession"),
    *("structure_de_la_personne", "secteur", "systeme", "certificat", "adresse", "structure", "objets", "travail"),
)


def line(recorded: Recorded) -> tuple[str, ...]:
    """An event as a row of a table, under ``HEAD``. Times are of Paris, with their offset."""
    event, actor = recorded.event, recorded.event.actor
    return (
        str(recorded.id),
        recorded.at.astimezone(PARIS).isoformat(timespec="milliseconds"),
        kind(event.kind),
        event.kind.code,
        event.kind.action.value,
        OUTCOMES[event.outcome],
        event.outcome_text,
        *(actor.person, actor.name, actor.profession, actor.structure, actor.sector, actor.system),
        *(actor.certificate_dn, actor.address),
        event.structure,
        " | ".join(map(named, event.objects)),
        event.correlation,
    )


def kind(one: Kind) -> str:
    """In French; one that has no words yet is called by its own name."""
    return KINDS.get(one, one.name)


def named(one: Object) -> str:
    """``examen 1.2.3 (12 images)``."""
    return f"{THINGS[one.thing]} {one.identifier}{f' ({one.detail})' if one.detail else ''}"


def who(actor: Actor) -> str:
    """The shortest name that says who acted."""
    return actor.name or actor.person or actor.system or actor.address


async def table(found: AsyncIterator[Recorded]) -> AsyncIterator[bytes]:
    """Everything found, as a CSV file that spreadsheets read as it is meant."""
    # A mark for spreadsheets, which would take the accents for something else.
    yield b"\xef\xbb\xbf" + row(HEAD)
    async for recorded in found:
        yield row(line(recorded))


def row(cells: tuple[str, ...]) -> bytes:
    """One row of CSV; no cell is a formula, whatever a peer called itself."""
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator="\r\n").writerow(map(_harmless, cells))
    return text.getvalue().encode()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
