"""The sandbox PACS: sample studies, Orthanc, the embedded stand-in."""
