"""The site's PACS: what it holds (query), how its images come out (retrieve), and the DIMSE protocol under both."""
