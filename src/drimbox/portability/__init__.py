"""Reversibility: the archive of KOS leaves as XDM media and comes in from them (DB.SO.29, 30; IHE ITI TF-2 3.32).

A site can so change product in either direction. What drimbox keeps and XDM has no place for stands in slots of its
own, which others may ignore.
"""
