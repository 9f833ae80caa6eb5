"""The consumer: the radiologist's way from the RIS to a patient's earlier images, wherever they were made.

``call`` reads the contextual call; ``sessions`` says which browser it belongs to; ``login``, ``remote_login`` and
``professional`` who is there and in which practice, which ``memory`` keeps for the next time; ``permission`` says
whether the DMP may be consulted, ``searching`` and ``consultation`` ask it, ``exams`` makes the list, ``surroundings``
finds out what is around its rows, ``local`` are the patient's studies in the PACSs of the site, ``users`` remembers
who saw it; ``opening`` opens a KOS (``kos``) or a report
(``report_document``, ``narrative``) once ``identity_check`` has compared its patient; ``viewing`` brings the images,
``header`` and ``frames`` read them; ``web`` holds the pages and the DICOMweb of OHIF, whose files ``viewer_files``
installs. ``ports`` names what all this needs of the other rooms; ``app`` puts it together.
"""
