"""``drimbox bench pixels``: the images' way through a box, each stretch beside the peers that Debian has.

``run`` does it all; ``images`` makes what is moved, ``peers`` runs the others' programs; ``receiver``, ``server`` and
``bare`` are our own sides, each in a process of its own; ``comparison`` holds what was found, ``report`` and
``picture`` show it.
"""
