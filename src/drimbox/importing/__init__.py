"""Exams of other sites brought into the site's own imaging: into its PACSs, onto a disc, to its workstations.

``orders`` says what an import is, ``ledger`` keeps it in the database, ``runner`` takes its turns and ``course`` is one
turn: fetch (``fetching``), give the local identity (``coercion``), store (``targets``), find again. ``media`` writes a
study as a ZIP for portable media (IHE PDI), ``shelf`` keeps what users save for listed workstations (``workstations``).
Nothing here knows HTTP pages or browser sessions; a token is asked for when it is needed and is never kept.
"""
