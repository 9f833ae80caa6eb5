"""Images between DRIMboxes.

Served (``wado``): ``gate`` says who may have what, ``accept`` in which form, ``offers`` what can be made of an image,
``leaving`` and ``header`` put the INS in without touching a pixel, ``transcode`` changes the syntax in processes of its
own (``workers``), ``renditions`` makes what one caller gets, ``retrieval`` sends it as a ``multipart``. Fetched
(``client``): each file is checked before anyone hears of it.
"""
