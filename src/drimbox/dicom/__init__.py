"""DICOM files as bytes: found, cut and written again without being understood (PS3.5 7, PS3.10 7).

``elements`` walks a data set, ``datasets`` reads its values, ``files`` reads the file meta information and edits a file
as bytes, ``pixels`` says what its pixels are and where they lie, ``frames`` where each frame lies, ``charsets`` reads
text, ``syntaxes`` names the transfer syntaxes. Whatever stands in a file, the work is bounded and what cannot be read
is ``Refused``.
"""
