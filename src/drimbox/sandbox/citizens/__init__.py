"""The identity provider of citizens, played in the manner of FranceConnect+ v2: strict, signed and encrypted.

========= ==================================================================
people    who may log in: the official test patient
services  the registered services, and how each proves itself
mint      what is signed (ES256) and encrypted for a service, and its faults
app       the endpoints, and the pages that a browser sees
========= ==================================================================
"""
