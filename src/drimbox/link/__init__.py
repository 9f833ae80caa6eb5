"""The link in a report, on the viewer host of a source (VI_SO.04 to .33): who may look at the study that it names.

``url`` reads and writes the link, ``agreement`` holds it against the archive and the PACS, ``challenge`` and ``codes``
are the patient's way in, ``signin`` the professional's, ``visits`` the sessions, ``web`` the pages. What is shown once
the door is open is ``link_images``; ``visit`` is all that it is told.
"""
