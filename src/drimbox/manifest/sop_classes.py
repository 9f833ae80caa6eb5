"""What the SOP class of an instance says: how a content tree refers to it, and which modality made it."""

from __future__ import annotations

from functools import lru_cache

from pydicom.uid import UID

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"

# Image objects whose name does not end like those of the others (PS3.6 table A-1).
_IMAGES = frozenset(
    {
        "EnhancedUSVolumeStorage",
        "SegmentationStorage",
        "LabelMapSegmentationStorage",
        "HeightMapSegmentationStorage",
        "ParametricMapStorage",
        "OphthalmicThicknessMapStorage",
        "CornealTopographyMapStorage",
    }
)
_MODALITIES = (
    ("MRImage", "MR"),
    ("MRColorImage", "MR"),
    ("CTImage", "CT"),
    ("PETImage", "PT"),
    ("PositronEmission", "PT"),
    ("NuclearMedicine", "NM"),
    ("BreastTomosynthesis", "MG"),
    ("BreastProjection", "MG"),
    ("DigitalMammography", "MG"),
    ("DigitalIntraOral", "IO"),
    ("DigitalXRay", "DX"),
    ("ComputedRadiography", "CR"),
    ("XRayAngiographic", "XA"),
    ("XAImage", "XA"),
    ("XRay3DAngiographic", "XA"),
    ("XRFImage", "RF"),
    ("XRayRadiofluoroscopic", "RF"),
    ("Ultrasound", "US"),
    ("USVolume", "US"),
    ("SecondaryCapture", "OT"),
    ("PresentationState", "PR"),
    ("KeyObjectSelection", "KO"),
    ("Segmentation", "SEG"),
    ("EncapsulatedPDF", "DOC"),
    ("SRStorage", "SR"),
    ("SRDocument", "SR"),
)


@lru_cache(maxsize=1024)
def value_type(sop_class_uid: str) -> str:
    """``IMAGE``, ``WAVEFORM`` or ``COMPOSITE``: the value type of a reference (TID 2010, standards.md A.3)."""
    keyword = UID(sop_class_uid).keyword
    if "WaveformStorage" in keyword:
        return "WAVEFORM"
    if "ImageStorage" in keyword or keyword in _IMAGES:
        return "IMAGE"
    return "COMPOSITE"


@lru_cache(maxsize=1024)
def likely_modality(sop_class_uid: str) -> str:
    """The modality whose images this class holds; empty when the class does not tell."""
    keyword = UID(sop_class_uid).keyword
    return next((code for part, code in _MODALITIES if part in keyword), "")
