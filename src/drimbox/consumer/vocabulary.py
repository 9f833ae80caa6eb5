"""What the pages say for codes: modalities and regions that can be filtered on, sexes."""

from __future__ import annotations

from drimbox.identity.traits import Sex

#: Modalities offered as filters, most common first, in the words of the trade (codes of DICOM CID 29).
MODALITIES = {
    "CT": "Scanner",
    "MR": "IRM",
    "US": "Échographie",
    "CR": "Radiographie",
    "DX": "Radiographie numérique",
    "MG": "Mammographie",
    "PT": "TEP",
    "NM": "Scintigraphie",
    "XA": "Angiographie",
    "RF": "Radioscopie",
    "PX": "Panoramique dentaire",
}

#: Anatomic regions of the French value set (SNOMED CT codes; JDV_RegionAnatomique), in plain words.
REGIONS = {
    "774007": "Tête et cou",
    "67734004": "Thorax",
    "63337009": "Abdomen et pelvis",
    "53120007": "Membre supérieur",
    "61685007": "Membre inférieur",
    "737561001": "Colonne vertébrale",
    "76752008": "Sein",
    "80891009": "Cœur",
    "113257007": "Système cardiovasculaire",
    "38266002": "Corps entier",
}

SEXES = {Sex.MALE: "Masculin", Sex.FEMALE: "Féminin", Sex.OTHER: "Autre", Sex.UNKNOWN: "Indéterminé"}
