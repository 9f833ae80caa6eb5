"""Client of the national record (DMP): SOAP and MTOM, XDS metadata, VIHF, XAdES, one module per transaction."""
