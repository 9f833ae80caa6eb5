"""The neighbours' information systems (RIS): one sends reports by HL7 v2, the other opens the contextual call."""
