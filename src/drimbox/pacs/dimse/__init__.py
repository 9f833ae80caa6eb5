"""Our own DICOM protocol: the Upper Layer (PS3.8) as a machine without I/O, DIMSE messages (PS3.7), their drivers.

``pdu``, ``pdu_reader``, ``transitions``, ``machine``: the Upper Layer. ``command``, ``message``, ``status``: DIMSE.
``connection``: the one that touches a socket. ``receiver``, ``session``, ``storage``: what is stored to us.
``client``: what we ask of others.
"""
