"""The national services and the neighbours, played as strict judges.

Nothing here decides with code of the rooms it judges: what is right is written again, from the specification.
"""
