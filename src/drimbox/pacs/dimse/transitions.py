"""States, events and transition table of the Upper Layer protocol machine, as the standard has them (PS3.8 9.2)."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """PS3.8 9.2.1."""

    Sta1 = 1  # idle
    Sta2 = 2  # transport open, awaiting A-ASSOCIATE-RQ
    Sta3 = 3  # awaiting the local A-ASSOCIATE response
    Sta4 = 4  # awaiting the opening of the transport
    Sta5 = 5  # awaiting A-ASSOCIATE-AC or -RJ
    Sta6 = 6  # established, ready for data
    Sta7 = 7  # awaiting A-RELEASE-RP
    Sta8 = 8  # awaiting the local A-RELEASE response
    Sta9 = 9  # release collision, requestor: awaiting the local A-RELEASE response
    Sta10 = 10  # release collision, acceptor: awaiting A-RELEASE-RP
    Sta11 = 11  # release collision, requestor: awaiting A-RELEASE-RP
    Sta12 = 12  # release collision, acceptor: awaiting the local A-RELEASE response
    Sta13 = 13  # awaiting the close of the transport


class Event(IntEnum):
    """PS3.8 9.2.2, table 9-10."""

    Evt1 = 1  # A-ASSOCIATE request (local)
    Evt2 = 2  # transport connection confirmed
    Evt3 = 3  # A-ASSOCIATE-AC
    Evt4 = 4  # A-ASSOCIATE-RJ
    Evt5 = 5  # transport connection indicated
    Evt6 = 6  # A-ASSOCIATE-RQ
    Evt7 = 7  # A-ASSOCIATE response, accept (local)
    Evt8 = 8  # A-ASSOCIATE response, reject (local)
    Evt9 = 9  # P-DATA request (local)
    Evt10 = 10  # P-DATA-TF
    Evt11 = 11  # A-RELEASE request (local)
    Evt12 = 12  # A-RELEASE-RQ
    Evt13 = 13  # A-RELEASE-RP
    Evt14 = 14  # A-RELEASE response (local)
    Evt15 = 15  # A-ABORT request (local)
    Evt16 = 16  # A-ABORT
    Evt17 = 17  # transport closed
    Evt18 = 18  # ARTIM expired
    Evt19 = 19  # unrecognised or invalid PDU


# PS3.8 table 9-10, one row per event: the actions in Sta1 to Sta13, "." where the standard has none.
_ROWS = """
Evt1  AE-1 .    .    .    .    .    .    .    .    .     .    .    .
Evt2  .    .    .    AE-2 .    .    .    .    .    .     .    .    .
Evt3  .    AA-1 AA-8 .    AE-3 AA-8 AA-8 AA-8 AA-8 AA-8  AA-8 AA-8 AA-6
Evt4  .    AA-1 AA-8 .    AE-4 AA-8 AA-8 AA-8 AA-8 AA-8  AA-8 AA-8 AA-6
Evt5  AE-5 .    .    .    .    .    .    .    .    .     .    .    .
Evt6  .    AE-6 AA-8 .    AA-8 AA-8 AA-8 AA-8 AA-8 AA-8  AA-8 AA-8 AA-7
Evt7  .    .    AE-7 .    .    .    .    .    .    .     .    .    .
Evt8  .    .    AE-8 .    .    .    .    .    .    .     .    .    .
Evt9  .    .    .    .    .    DT-1 .    AR-7 .    .     .    .    .
Evt10 .    AA-1 AA-8 .    AA-8 DT-2 AR-6 AA-8 AA-8 AA-8  AA-8 AA-8 AA-6
Evt11 .    .    .    .    .    AR-1 .    .    .    .     .    .    .
Evt12 .    AA-1 AA-8 .    AA-8 AR-2 AR-8 AA-8 AA-8 AA-8  AA-8 AA-8 AA-6
Evt13 .    AA-1 AA-8 .    AA-8 AA-8 AR-3 AA-8 AA-8 AR-10 AR-3 AA-8 AA-6
Evt14 .    .    .    .    .    .    .    AR-4 AR-9 .     .    AR-4 .
Evt15 .    .    AA-1 AA-2 AA-1 AA-1 AA-1 AA-1 AA-1 AA-1  AA-1 AA-1 .
Evt16 .    AA-2 AA-3 .    AA-3 AA-3 AA-3 AA-3 AA-3 AA-3  AA-3 AA-3 AA-2
Evt17 .    AA-5 AA-4 AA-4 AA-4 AA-4 AA-4 AA-4 AA-4 AA-4  AA-4 AA-4 AR-5
Evt18 .    AA-2 .    .    .    .    .    .    .    .     .    .    AA-2
Evt19 .    AA-1 AA-8 .    AA-8 AA-8 AA-8 AA-8 AA-8 AA-8  AA-8 AA-8 AA-7
"""


def _table() -> dict[tuple[Event, State], str]:
    table: dict[tuple[Event, State], str] = {}
    for row in _ROWS.strip().splitlines():
        name, *actions = row.split()
        table.update({(Event[name], State(i)): a for i, a in enumerate(actions, start=1) if a != "."})
    return table


TABLE = _table()
