"""The consumer: the radiologist's way from the RIS to a patient's earlier images, wherever they were made.

``call`` reads the contextual call; ``sessions`` says which browser it belongs to; ``login`` and ``professional`` who is
there and in which practice; ``consultation`` asks the DMP and ``exams`` makes the list; ``opening`` opens a KOS or a
report once ``identity_check`` has compared its patient; ``viewing`` brings the images, ``header`` and ``frames`` read
them; ``web`` holds the pages and the DICOMweb of OHIF, whose files ``viewer_files`` installs. ``ports`` names what all
this needs of the other rooms; ``app`` puts it together.
"""
