"""Any OpenID provider that vouches for a patient at the link in a report, FranceConnect+ above all (decision 19).

========= ===========================================================================================
service   what this box is for the provider: ``Registration``, how it proves itself, its keys
client    ``IdentityProvider``: the address to log in, the code made an identity, the address to log out
sealed    tokens that are signed, then encrypted for this box (FranceConnect+)
person    who the provider says that it is: ``Person``, read from claims
errors    what went wrong with the provider, in words of its own
========= ===========================================================================================

Discovery, keys, tokens and what an HTTP answer means are those of ``national.psc``: the protocol is one.
"""
