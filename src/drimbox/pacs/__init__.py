"""The site's PACS: what it holds (query, web_query), what its key-object notes say (keynotes, note_source), how its
images come out (retrieve by C-MOVE or C-GET, web_retrieve by WADO-RS) and go in (store), by whichever way works
(access, ways), and the DIMSE protocol under these.
"""
