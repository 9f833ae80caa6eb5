"""``drimbox speedtest``: what the site's own PACS gives, measured by the box itself (DB.SO.102).

``measuring`` retrieves a study the way the box does and keeps only times, sizes and syntaxes; ``asking`` puts the
questions that need no image; ``judging`` says what it means; ``reporting`` and ``drawing`` show it; ``door`` lets the
command use the box that runs. Nothing here keeps or writes anything about a patient.
"""
