"""drimbox: the gateway between a French imaging site and DRIM-M, the national image-sharing network.

The rooms, in the words of the field:

========== =====================================================================================
box        what a box is: settings, start-up; the only place that knows every other room
reports    a report arrives from the RIS: MLLP, HL7 v2, CDA header -> ``Report``
manifest   the KOS: build, read, compare
publication  the life cycle of a manifest: checks, decision, jobs, archive, operator's queue
national   the national services: DMP, Pro Sante Connect, whitelist
pacs       the site's PACS: find, retrieve, the DIMSE protocol
images     WADO-RS: what leaves the source, and what a consumer reads from a source
consumer   contextual call, login, study list, viewing
identity   who the patient is: INS, traits, comparison
trust      keys, certificates, TLS
flows      every network flow and its encryption, in one table
record     logs and audit journal
store      PostgreSQL: pool, migrations, durable jobs
foundation clock, errors, identifiers, XML, HTTP
sandbox    national services and neighbours as strict judges
========== =====================================================================================
"""

__version__ = "0.1.0"
