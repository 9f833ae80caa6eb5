"""What the settings of every box under test have in common, as text to be put together (``{{``: see ``str.format``)."""

from __future__ import annotations

DOORS = """[source]
[source.hl7]
port = 2575
[source.dicom]
port = 11112
[source.wado]
port = 8443
"""
"""The listeners of a source; what follows belongs to ``[source.wado]``."""


def national(host: str) -> str:
    """National services at a name; nobody listens there."""
    return f"""[dmp]
repository = "https://{host}/repository"
registry = "https://{host}/registry"
patients = "https://{host}/patients"
habilitations = "https://{host}/habilitations"
source_id = "1.2.3"

[psc]
discovery = "https://{host}/d"
client_id = "x"

[whitelist]
url = "https://{host}/l"
"""


NATIONAL = national("national.example.test")
NATIONAL_HERE = national("localhost")
