"""The neighbour PACS: sample studies of the official exams, Debian's Orthanc that holds them, an embedded stand-in."""
