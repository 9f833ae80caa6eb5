"""The PACS room: DIMSE, queries, retrieves."""
