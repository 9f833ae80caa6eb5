"""Pro Sante Connect, played as a strict judge: an OpenID provider of the shape of ``standards.md`` F.

``app.psc_app`` is the way in. What it refuses and the real one lets pass is on purpose: a client that gets through here
keeps every rule of the protocol (PKCE with S256, exact redirect address, single-use codes, rotated refresh tokens,
tokens bound to the client's certificate).

======== ===============================================================================
people   the test professionals and where they practise
clients  who may ask: registration and authentication
tokens   what is signed
ledger   logins, sessions, grants and tokens under way
devices  logins on the professional's own device (CIBA)
api      the API PSC of a national service, which asks for a token beside the VIHF
proxy    a proxy e-Sante between services and the provider
faults   what tests may make it do wrong
provider what the endpoints below share
======== ===============================================================================

Sessions and tokens live in memory and end with the process; the signing key is kept in the state folder.
"""
