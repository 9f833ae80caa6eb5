"""The KOS: the DICOM manifest that tells which images a study holds and where they are served.

``manifest`` is what it says, as plain values; ``build`` makes one from a report and a study and writes it; ``marks``
tells the key images from the notes of the study; ``read`` reads any; ``compare`` tells what changed between two.
"""
