"""What an operator can do about each cause, in words; ``press`` is the button that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from drimbox.certificates import trouble
from drimbox.keyring import reminders
from drimbox.publication.incidents import RESYNC, RESYNC_WAITING, WAITING, Incident

# Lines about trust are opened by the box itself, and close by themselves.
WHITELIST_REFUSED, WHITELIST_LATE, REVOCATION_LATE = "whitelist-refused", "whitelist-late", "revocation-late"

Press = Literal["retry", "resync", "discard", ""]


@dataclass(frozen=True, slots=True)
class Advice:
    """What to look at or to correct, then which button (none: it goes on by itself, or nothing is needed)."""

    text: str
    press: Press = "retry"


_MESSAGE = Advice(
    "Le message a été refusé et l'émetteur le sait. Corrigez-le à la source et renvoyez-le depuis le RIS, "
    "puis classez cet incident.",
    "discard",
)
_IDENTITY = Advice(
    "L'identité du patient n'est pas la même partout. Faites-la vérifier par la cellule d'identitovigilance, corrigez "
    "le RIS ou le PACS, puis réessayez ; si c'est le compte rendu qui est faux, faites-le renvoyer.",
)
_PACS = Advice("Vérifiez le PACS et le réseau. Le travail reprend de lui-même ; « Réessayer » l'avance.")
_DMP = Advice(
    "Le DMP a refusé l'envoi. Le code d'erreur du DMP dit pourquoi : corrigez ce qu'il désigne (compte rendu, "
    "identité, certificat, configuration), puis réessayez.",
)
_CONFIGURATION = Advice("Corrigez la configuration ou le certificat, redémarrez la passerelle, puis réessayez.")
_UNKNOWN = Advice("Corrigez ce que dit le motif, puis réessayez.")

_ARCHIVE = Advice(
    "Un lot d'une archive XDM n'a pas été importé. Corrigez ce que dit le motif (l'archive, ou les options de "
    "« drimbox archive import »), puis relancez l'import : l'incident se ferme quand le lot est entré. Classez-le si "
    "le lot ne doit pas l'être.",
    "discard",
)

_NOTE = Advice(
    "Une note envoyée par un PACS (images rejetées, images clés) a été refusée et le PACS le sait. Faites-la vérifier "
    "et renvoyer par l'administrateur du PACS ; pour revoir un examen sans elle, « Resynchroniser ». Classez ensuite "
    "cet incident.",
    "discard",
)

_COMPARISON = Advice(
    "La comparaison de l'examen avec le PACS et le DMP n'a pas abouti ; le KOS est resté tel qu'il était. Corrigez ce "
    "que dit le motif (PACS, certificat, configuration ; le code d'erreur du DMP dit ce qu'il refuse), puis "
    "« Resynchroniser ».",
    "resync",
)

_CERTIFICATE: Mapping[str, Advice] = {
    trouble.ORDER: Advice(
        "Le certificat de la visionneuse n'a pas été obtenu. Corrigez ce que dit le motif (le message de l'autorité "
        "est entre crochets) ; un nouvel essai se fait de lui-même, « Réessayer » l'avance. Une autorité qui demande "
        "d'attendre n'est pas relancée avant l'heure.",
    ),
    trouble.LATE: Advice(
        "Le certificat de la visionneuse expire bientôt. Voyez l'incident de la commande, puis « Réessayer » ; à "
        "défaut, installez un certificat d'une autre autorité (page Certificat)."
    ),
    trouble.BY_HAND: Advice(
        "Faites une demande (page Certificat, ou drimbox certificate csr), commandez le certificat, puis "
        "installez-le : l'incident se ferme alors.",
        "",
    ),
    trouble.LISTENER: Advice(
        "Le port de la validation HTTP-01 n'a pas pu être ouvert. Libérez-le, ou changez http_port, puis redémarrez la "
        "passerelle.",
        "discard",
    ),
    trouble.SERVED: Advice(
        "Le certificat installé ne peut pas être servi ; le précédent le reste. Corrigez ce que dit le motif, ou "
        "commandez-en un autre (page Certificat).",
        "",
    ),
}

_TRUST: Mapping[str, Advice] = {
    WHITELIST_REFUSED: Advice(
        "Ne contournez pas ce refus : une liste blanche sans signature valable peut être celle de n'importe qui. "
        "Signalez-le à l'agence ; la précédente reste en service jusqu'à la date dite. L'incident se ferme dès qu'une "
        "liste valable est reçue (page Réseau, « Télécharger maintenant »).",
        "",
    ),
    WHITELIST_LATE: Advice(
        "Vérifiez que la passerelle atteint l'adresse de la liste blanche (pare-feu, DNS, certificat du serveur). "
        "Un essai se fait de lui-même ; la page Réseau l'avance. L'incident se ferme à la réception.",
        "",
    ),
    REVOCATION_LATE: Advice(
        "Vérifiez que la passerelle atteint l'adresse de la liste de révocation en HTTP (port 80 : exception admise "
        "par le point de contrôle C17), ou déposez la liste dans trust.revocation_lists. Un essai se fait de lui-même "
        "toutes les heures au plus ; l'incident se ferme à la réception.",
        "",
    ),
}

_BY_CODE: Mapping[str, Advice] = {
    **_TRUST,
    RESYNC_WAITING: Advice(
        "Un PACS ou le DMP ne répond pas ; rien n'est retiré du DMP pour autant. La comparaison reprend d'elle-même ; "
        "« Resynchroniser » l'avance.",
        "resync",
    ),
    f"{RESYNC}identity": Advice(
        "Le PACS attribue maintenant l'examen à un autre patient ou à un autre numéro d'examen que le compte rendu "
        "publié. Le KOS n'a été ni mis à jour ni retiré. Faites vérifier l'identité (identitovigilance). Si le PACS se "
        "trompe, corrigez-le, puis « Resynchroniser ». Si c'est le compte rendu, faites-le remplacer ou supprimer "
        "depuis le RIS : le KOS suivra.",
        "resync",
    ),
    f"{RESYNC}order-patient": Advice(
        "Un message du RIS déclare l'examen supprimé et désigne un autre patient que celui du KOS : rien n'a été "
        "retiré. Faites corriger et renvoyer le message, puis classez cet incident.",
        "discard",
    ),
    f"{RESYNC}study-gone": Advice(
        "L'examen n'est plus visible au DMP. Si ses images ont été supprimées à dessein, classez cette alerte. Sinon, "
        "remettez-les au PACS (ou corrigez la configuration du PACS), puis « Resynchroniser » : l'examen sera publié à "
        "nouveau.",
        "resync",
    ),
    f"{RESYNC}difference": Advice(
        "Un parcours de l'archive qui ne fait que signaler a trouvé cet examen différent de son KOS. "
        "« Resynchroniser » met le KOS à jour, ou le retire si l'examen n'est plus dans aucun PACS. Une visibilité "
        "changée au DMP est gardée.",
        "resync",
    ),
    f"{RESYNC}structure-unknown": Advice(
        "Des KOS de cette structure sont au DMP, et elle n'est plus dans la configuration : ils ne sont plus tenus à "
        "jour. Remettez-la dans la configuration avec ses certificats, redémarrez la passerelle, puis "
        "« Resynchroniser ».",
        "resync",
    ),
    f"{RESYNC}archive-metadata": Advice(
        "Le KOS vient d'une archive importée, qui n'en dit pas assez pour le refaire. Faites renvoyer le compte rendu "
        "par le RIS.",
        "discard",
    ),
    f"{RESYNC}vihf-identity": Advice(
        "L'archive ne dit pas qui a publié le KOS. Faites renvoyer le compte rendu par le RIS.", "discard"
    ),
    f"{RESYNC}defect": Advice(
        "La passerelle elle-même a un défaut : signalez-le avec son journal technique. « Resynchroniser » après "
        "correction.",
        "resync",
    ),
    "study-rejected": Advice(
        "Des notes de rejet du PACS retirent toutes les images de l'examen : il n'y a rien à publier. Si d'autres "
        "images arrivent, « Resynchroniser » ; si le rejet est définitif, faites supprimer le compte rendu ou classez "
        "cet incident.",
        "resync",
    ),
    "sender-unknown": Advice(
        "Le RIS qui a envoyé le compte rendu (MSH-3) n'est pas de ceux qui envoient pour cette structure. S'il le "
        "doit, ajoutez-le à la liste « senders » de la structure et redémarrez la passerelle, puis réessayez. Sinon, "
        "faites-le renvoyer par le bon système et classez cet incident.",
    ),
    "archive-other-current": Advice(
        "Un KOS importé et un KOS de la passerelle se disent tous deux courants. Vérifiez au DMP qu'il n'en reste "
        "qu'un, puis classez cette alerte.",
        "discard",
    ),
    WAITING: Advice("Le travail reprend de lui-même, de plus en plus rarement ; « Réessayer » l'avance."),
    "study-unknown": Advice(
        "Aucun PACS n'a cet examen. Vérifiez qu'il y est arrivé et que son identifiant est celui du compte rendu, puis "
        "réessayez.",
    ),
    "study-empty": Advice("Le PACS connaît l'examen sans image. Attendez la fin de leur envoi, puis réessayez."),
    "birth-place-differs": Advice(
        "L'examen est publié. Faites vérifier le lieu de naissance à la source, puis classez cette alerte.", "discard"
    ),
    "kos-gone": Advice(
        "L'examen est publié. Le KOS précédent avait été retiré hors de la passerelle : cherchez par qui, puis classez "
        "cette alerte.",
        "discard",
    ),
    "kos-moved": Advice(
        "L'examen est publié chez le bon patient. Vérifiez que le changement d'identité était voulu, puis classez "
        "cette alerte.",
        "discard",
    ),
    "depublish-patient": Advice(
        "Une suppression désigne l'examen d'un autre patient : rien n'a été fait. Faites corriger et renvoyer le "
        "message de suppression, puis classez cet incident.",
        "discard",
    ),
    "depublish-document": Advice(
        "Une suppression désigne un compte rendu inconnu ici : rien n'a été fait. Faites vérifier le message, puis "
        "classez cet incident.",
        "discard",
    ),
    "structure-unknown": _CONFIGURATION,
    "structure-ambiguous": _CONFIGURATION,
    "structure-keys": _CONFIGURATION,
    "sign-key": _CONFIGURATION,
    "pacs-none": _CONFIGURATION,
    "pacs-unknown": _CONFIGURATION,
    "credential": _CONFIGURATION,
    "defect": Advice(
        "La passerelle elle-même a un défaut : signalez-le avec son journal technique. « Réessayer » après correction.",
    ),
}
_BY_PREFIX: tuple[tuple[str, Advice], ...] = (
    ("hl7-", _MESSAGE),
    ("cda-", _MESSAGE),
    ("ins-", _IDENTITY),
    ("ipp-", _IDENTITY),
    ("accession-", _IDENTITY),
    ("birth-", _IDENTITY),
    ("given-name", _IDENTITY),
    ("sex-", _IDENTITY),
    ("pacs-name", _IDENTITY),
    ("pacs-ipp", _IDENTITY),
    ("pacs-birth-date", _IDENTITY),
    ("pacs-sex", _IDENTITY),
    ("pacs-", _PACS),
    ("dmp-", _DMP),
    ("certificate-", _CONFIGURATION),
    ("trust-", _CONFIGURATION),
)


_HOUSE: Mapping[str, Advice] = {
    "journal-altered": Advice(
        "Le journal des traces n'est pas tel qu'il a été scellé : des traces ont été changées, ajoutées ou retirées "
        "hors de la passerelle, ou la base a été restaurée. Faites-le examiner (responsable de la sécurité, délégué à "
        "la protection des données) ; « drimbox journal verify » dit ce qui diffère. Classez l'incident ensuite.",
        "discard",
    ),
    reminders.EXPIRY: Advice(
        "Un certificat arrive à sa fin. Commandez son renouvellement (pour l'IGC-Santé, auprès de l'ANS : comptez "
        "plusieurs semaines), puis installez la paire reçue par la page « Inventaire », par « drimbox certificate "
        "install » ou en remplaçant ses fichiers : aucun redémarrage. La ligne se ferme d'elle-même ensuite.",
        "",
    ),
    reminders.REFUSED: Advice(
        "Une paire a été apportée et ne convient pas : le motif dit pourquoi et que faire. Celle en service continue. "
        "La ligne se ferme d'elle-même quand une paire qui convient est apportée.",
        "",
    ),
    reminders.UNUSABLE: Advice(
        "Rien ne peut être fait avec cette paire : publication, consultation ou accueil des appels sont arrêtés à cet "
        "endroit. Corrigez ce que dit le motif, puis « drimbox config check » ; la ligne se ferme d'elle-même.",
        "",
    ),
    "notification-failed": Advice(
        "L'administrateur n'est plus averti des erreurs. Corrigez ce que dit le motif (serveur SMTP, service appelé), "
        "puis essayez avec « drimbox notify test » ; l'incident se ferme quand une notification repart.",
        "",
    ),
}


def advice_for(incident: Incident) -> Advice:
    """What to do about an open line of the queue."""
    if (house := _HOUSE.get(incident.code)) is not None:
        return house
    if incident.code.startswith("archive-"):
        return _BY_CODE.get(incident.code, _ARCHIVE)
    if incident.code.startswith(RESYNC):
        return _BY_CODE.get(incident.code, _COMPARISON)
    if incident.code.startswith(trouble.PREFIX):
        return _CERTIFICATE.get(incident.code, _UNKNOWN)
    if incident.code.startswith("iocm-"):
        return _NOTE
    if incident.report_id is None and not incident.study_uid:
        return _MESSAGE
    if (found := _BY_CODE.get(incident.code)) is not None:
        return found
    return next((advice for prefix, advice in _BY_PREFIX if incident.code.startswith(prefix)), _UNKNOWN)
