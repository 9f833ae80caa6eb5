"""The life cycle of a study's KOS in the national record.

``checks`` and ``decide`` say what must be done and touch nothing. ``publish`` does it, with ``transmit`` for the
exchanges with the DMP; ``archive`` keeps each version, ``incidents`` what the operator sees, ``ledger`` writes both.
``jobs`` runs the work, study by study. ``ports`` are the shapes of the neighbours; ``registry`` fits the DMP to one.
"""
