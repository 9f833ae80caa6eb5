"""Images between DRIMboxes.

Served (``wado``): ``gate`` says who may have what, ``accept`` in which form, ``header`` puts the INS in, ``transcode``
changes the syntax in processes of its own (``workers``), ``retrieval`` sends it as a ``multipart``. Fetched
(``client``): each file is checked before anyone hears of it.
"""
