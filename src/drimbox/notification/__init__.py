"""The administrator is told of what comes into the operator's queue, outside of it (DB.SO.21): by e-mail, by webhook.

Nothing that is sent is health data: codes, labels without identity, links to the console. ``notices`` is what is told
and the table that remembers it, ``mail`` and ``webhook`` the channels, ``teller`` who tells and tries again.
"""
