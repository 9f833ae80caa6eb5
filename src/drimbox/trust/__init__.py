"""Keys, certificates and TLS: the one place that reads a private key or decides whom to believe.

============ ========================================================================================
names        distinguished names: written as France writes them, read and compared RDN by RDN
keystore     ``Credential``: one of our certificates with its chain and its private key
vault        the private keys that the box makes itself, sealed wherever they are kept
revocation   certificate revocation lists (CRL): read, chosen, asked
distribution the same lists fetched by the box, kept on disk, renewed ahead of their end
public       the lists of public servers, whose authorities nobody pins: found by their certificates
chain        is this certificate issued, at the end of a chain, by a root that we pinned?
tls          ``TrustStore``, and the TLS contexts of every client and listener of the box
reload       a listener's context that is replaced while it serves
watch        gives newer revocation lists to the contexts in use
============ ========================================================================================

Two ranges of IGC-Sante certificates exist, test and production; a box pins the roots of one, never of both
(standards.md K.4). Whoever presents a certificate is believed when its chain ends at a pinned root, its dates and its
purpose are right, and, as soon as revocation lists are known, no list of the chain's issuers names it. A list that
is missing or past its date refuses: a box that cannot know must not guess.
"""
