"""The life cycle of a study's KOS in the national record.

``checks``, ``decide`` and ``reconsider`` say what must be done and touch nothing. ``publish`` does it when a report
came, ``resync`` when something else spoke of the study (``triggers``); both make the next ``version`` and leave the
exchanges with the DMP to ``transmit``. ``finding`` asks the PACSs, ``changed`` and ``notes`` tell what of a study is
rejected or flagged, ``compose`` makes the KOS. ``archive`` keeps each version, ``incidents`` what the operator sees,
``ledger`` writes both.
``jobs`` runs the work, study by study. ``ports`` are the shapes of the neighbours; ``registry`` fits the DMP to one.
"""
