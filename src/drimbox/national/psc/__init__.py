"""Pro Sante Connect (PSC): the national OpenID provider of health professionals (standards.md F).

============== ====================================================================================
client         ``PscClient``: every exchange with PSC, for the consumer (login) and the source (introspection)
provider       the wallet discovery document and the signing keys, fetched and remembered
answers        what an HTTP answer of PSC means: a document, a refusal, an outage
ciba           a login on the professional's own device, by polling
proxy          the same through a proxy e-Sante, which keeps the tokens
exchange       a PSC token exchanged for that of a national service (API PSC)
jwt            signed tokens: whose key, which algorithm, which claims
tokens         what a login gives: ``Tokens``
userinfo       who the professional is and where they practise: ``UserInfo``, ``Practice``
introspection  is a bearer presented by another DRIMbox still good: ``Introspection``
cache          introspections remembered for as long as they may be (decision 17)
sharing        one request for all who ask the same at the same time
============== ====================================================================================

Tokens live in memory only: never in a log, a URL, an exception text, a file or the database.
"""
