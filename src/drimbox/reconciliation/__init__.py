"""Walks through the archive: is each current KOS still what PACS and DMP hold? (DB.SO.28, DB.SO.31, decision 7.)

``walks`` keeps where each walk stands; ``driver`` and ``steps`` go on with it study by study, at a rate and outside of
the hours (``hours``) that the site asks for, on one node at a time. ``examine`` compares a study without changing
anything; repairs are left to ``publication`` and followed by ``repairs``. ``periodic`` and ``address`` begin walks by
themselves: every so many days, and when this source's own address changed. ``acts`` is what an administrator may do,
``words`` what one reads.
"""
