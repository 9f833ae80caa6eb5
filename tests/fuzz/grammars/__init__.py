"""Mutators that know a format: they change its parts and put it together again."""
