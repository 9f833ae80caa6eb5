"""Images kept near: one retrieve for all who want the same series, and a disk cache of what was retrieved.

``source`` is what serves: it takes from ``store`` what the PACS has confirmed (``confirm``), and for the rest joins or
begins a ``flight``. ``volume`` is the disk format, ``sealing`` its keys; ``sweep`` forgets what must no longer be
served, ``warm`` fetches before anybody asks. Nothing here is keyed by patient data.
"""
