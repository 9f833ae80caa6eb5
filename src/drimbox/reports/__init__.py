"""A report arrives from the RIS: MLLP frames, HL7 v2 messages, the CDA header, and the typed ``Report`` they make."""
