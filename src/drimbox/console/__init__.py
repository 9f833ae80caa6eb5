"""The operator's console: the queue of what could not be done, the archived studies, the accounts.

``app.console_app`` puts it together as one ASGI application for a TLS listener of its own. Pages are plain HTML with
one style sheet and no script. What an operator does is in ``acts``, which the command line uses too.
"""
