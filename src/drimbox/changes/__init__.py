"""What the site says of its studies after their publication: orders changed or cancelled, and rejection notes (IOCM).

``decide`` says what a note asks for, ``store`` keeps it with its effects, ``listener`` is the DICOM service that takes
it (RAD-66; ``pacs.keynotes`` reads it). ``orders`` has the effects of an order message (OMI^O23).
"""
