"""The market certificate of the viewer host (``vi``): ordered, renewed, revoked and installed by the box itself.

=========== ==========================================================================================
rules       what the programme asks of this certificate (standards.md K.3), each breach in one French sentence
roots       the roots that browsers believe
requests    new keys, certificate signing requests, what an OV order needs
acme        our own client of RFC 8555 (with RFC 8737 and RFC 9773)
records     the state, on PostgreSQL: accounts, certificates, orders, challenges, the plan
schedule    when to renew, when to try again, at which authority
ordering    carries one order through, from wherever it was cut
keeper      the durable work: of several nodes on one database one orders, every node answers the challenge
doors       HTTP-01 on port 80; TLS-ALPN-01 on the viewer's own listener
presenting  the listener's context, kept at the newest certificate without a restart
acts        what an administrator does, from the console and from the command line
trouble     lines of the operator's queue
=========== ==========================================================================================
"""
