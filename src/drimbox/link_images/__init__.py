"""What comes after the door of the link in a report: one study of this source, looked at and taken home (VI_SO, VI-CS).

``standing`` says which KOS is in force for a visit at this moment; ``arriving`` are its images on their way from the
cache or the PACS; ``visits`` holds what the open visits look at; ``drawing`` makes pictures, ``taking`` the ZIPs of the
download; ``dicomweb``, ``viewer`` and ``web`` are the addresses. Who may come in is decided elsewhere: every address
asks its guard first (``link.visit``).
"""
