"""What trust costs: handshakes, revocation on their path, the judge behind a proxy, reloads under load.

``run`` measures; ``server`` is the listener that it measures, in a process of its own.
"""
