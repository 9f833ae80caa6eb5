"""Fuzzing of every parser and of the listening services: hostile bytes in, only documented errors out.

``target`` says what a target is, ``targets/`` holds them, ``mutate`` and the grammars beside it make hostile inputs,
``loop`` runs one target in one process, ``guard`` bounds its time and memory, ``reach`` tells which inputs are new,
``campaign`` runs all of them in turn, each in a process of its own, and keeps what failed under ``seeds/<target>/``.

``./drimbox test --fuzz MINUTES`` runs a campaign; the usual tests replay the seeds and run a short burst.
"""
