"""Our own client of the ACME protocol (RFC 8555), with external accounts, renewal information (RFC 9773) and both
validations that a site can answer: HTTP-01 (RFC 8555 8.3) and TLS-ALPN-01 (RFC 8737).

It keeps nothing: accounts, orders and keys are the caller's to store, before anything is sent.
"""
