"""Images into a PACS: every one told of once, as the peer answered, over peers that behave and peers that do not."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Refused, Rejected, Unavailable
from drimbox.pacs.dimse import command, pdu, pdu_reader, uids
from drimbox.pacs.dimse.machine import UpperLayer, WrongState
from drimbox.pacs.dimse.message import Fragment, MessageReader, Received, cut
from drimbox.pacs.dimse.storing import Outgoing, framed, room_of
from drimbox.pacs.header import outgoing
from drimbox.pacs.nodes import Node
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.store import PacsStore, Sent
from drimbox.sandbox.pacs.orthanc import rest
from drimbox.sandbox.pacs.peer import PacsPeer
from pacs.conftest import free_port, pacs_of
from pacs.parrot import Step, limits, message, parrot, read_one, read_pdu, wait_close

STORESCP = "/usr/bin/storescp"
MR = "1.2.840.10008.5.1.4.1.1.4"


async def send(pacs: Pacs, instances: Sequence[Outgoing], got: list[Sent] | None = None, **options: int) -> list[Sent]:
    results: list[Sent] = [] if got is None else got
    link = PacsLink(pacs)
    try:
        async with PacsStore(link, **options).sending(instances) as sent:
            async for one in sent:
                results.append(one)
    finally:
        link.close()
    return results


@pytest.fixture
def series(studies: Path) -> list[Outgoing]:
    return [outgoing(path) for path in sorted((studies / "B").rglob("*.dcm"))]


def pacs_at(port: int, **changes: object) -> Pacs:
    return pacs_of(PacsPeer("PACS", "127.0.0.1", port), **{"answer_timeout": 1.0, "connect_timeout": 1.0, **changes})


# ------------------------------------------------------------------------------------------------------------ real PACS


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[PacsPeer]:
    """DCMTK's receiver as Debian ships it: Nagle's algorithm on."""
    if not Path(STORESCP).exists():
        pytest.skip("dcmtk is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    process = subprocess.Popen(
        [STORESCP, "-od", str(folder), *options, str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield PacsPeer("STORESCP", "127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.requirement("DB.CO.73")
async def test_what_dcmtk_receives_is_what_lies_in_the_files(studies: Path, tmp_path: Path) -> None:
    paths = [path for letter in "BCFHN" for path in sorted((studies / letter).rglob("*.dcm"))[:4] if path.exists()]
    with storescp(tmp_path / "got", "+xa", "-fe", ".dcm") as peer:
        sent = await send(pacs_of(peer), [outgoing(path) for path in paths])
    assert [one.status for one in sent] == [0] * len(paths)
    got = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, (tmp_path / "got").iterdir())}
    for path in paths:
        original = pydicom.dcmread(path)
        assert got[original.SOPInstanceUID] == original
        assert got[original.SOPInstanceUID].file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID


async def test_nagles_algorithm_at_dcmtk_costs_us_nothing(series: list[Outgoing], tmp_path: Path) -> None:
    with storescp(tmp_path / "got", "--ignore") as peer:
        await send(pacs_of(peer), series)
        began = time.monotonic()
        await send(pacs_of(peer), series * 3)
        # Its default is 40 ms an image.
        assert time.monotonic() - began < 40e-3 * 3 * len(series) / 3


@pytest.mark.parametrize("associations", [1, 3])
async def test_orthanc_stores_them_all(
    associations: int, orthanc_peer: PacsPeer, series: list[Outgoing], tmp_path: Path
) -> None:
    named = []
    for number, one in enumerate(series):
        dataset = pydicom.dcmread(one.path)
        dataset.StudyInstanceUID = f"1.2.3.77.{associations}"
        dataset.SOPInstanceUID = f"1.2.3.77.{associations}.{number}"
        path = tmp_path / f"{number}.dcm"
        dataset.save_as(path)
        named.append(outgoing(path))
    sent = await send(pacs_of(orthanc_peer), named, associations=associations)
    assert sorted(one.instance.sop_instance_uid for one in sent) == sorted(n.sop_instance_uid for n in named)
    assert all(one.stored and one.status == 0 for one in sent)
    query = f'{{"Level": "Instance", "Query": {{"StudyInstanceUID": "1.2.3.77.{associations}"}}}}'.encode()
    found = await asyncio.to_thread(rest, orthanc_peer, "POST", "/tools/find", query)
    assert found.count(b'"') == 2 * len(named)


async def test_a_class_that_is_not_taken_is_told_and_the_rest_goes(series: list[Outgoing], tmp_path: Path) -> None:
    odd = Outgoing("1.2.3.4.5", "1.2.3.4.6", uids.EXPLICIT_LE, series[0].path, series[0].start, series[0].size)
    with storescp(tmp_path / "got") as peer:
        sent = await send(pacs_of(peer), [odd, *series[:2]])
    assert [(one.status, one.code) for one in sent] == [(None, "context-refused"), (0, ""), (0, "")]


async def test_a_file_that_is_gone_or_has_shrunk_is_told_and_the_rest_goes(
    series: list[Outgoing], tmp_path: Path
) -> None:
    short = tmp_path / "short.dcm"
    short.write_bytes(series[0].path.read_bytes()[:-100])
    cut = Outgoing(MR, "1.2.9", uids.EXPLICIT_LE, short, series[0].start, series[0].size)
    gone = Outgoing(MR, "1.2.8", uids.EXPLICIT_LE, tmp_path / "gone.dcm", series[0].start, series[0].size)
    with storescp(tmp_path / "got") as peer:
        sent = await send(pacs_of(peer), [series[0], cut, gone, series[1]])
    told = {one.instance.sop_instance_uid: (one.status, one.code) for one in sent}
    assert len(sent) == 4
    assert told["1.2.9"] == told["1.2.8"] == (None, "file-unreadable")
    assert told[series[0].sop_instance_uid] == told[series[1].sop_instance_uid] == (0, "")


# ---------------------------------------------------------------------------------------------------- scripted peers


def accepting(max_length: int = 16384, window: pdu.Window | None = None) -> Step:
    def step(sock: socket.socket) -> None:
        _, body = read_pdu(sock)
        asked = pdu_reader.decode(pdu.PduType.ASSOCIATE_RQ, memoryview(body), limits())
        assert isinstance(asked, pdu.AssociateRequest)
        answers = tuple(pdu.AnsweredContext(c.id, 0, c.transfer_syntaxes[0]) for c in asked.contexts)
        user = pdu.UserInformation(max_length, "1.2.3", "PARROT", window=window)
        sock.sendall(pdu.encode(pdu.AssociateAccept("A", "B", answers, user)))

    return step


class Scp:
    """Takes instances; answers what ``statuses`` say, then 0; ``hold`` requests before the first answer."""

    def __init__(self, *statuses: int, hold: int = 1, breaks_at: int | None = None, comment: str = "") -> None:
        self.statuses = list(statuses)
        self.hold = hold
        self.breaks_at = breaks_at
        self.comment = comment
        self.got: list[tuple[command.StoreRequest, bytes]] = []
        self.longest = 0
        self.most_open = 0

    def __call__(self, sock: socket.socket) -> None:
        reader = MessageReader()
        waiting: list[command.StoreRequest] = []
        data = bytearray()
        request: command.StoreRequest | None = None
        while True:
            kind, body = read_pdu(sock)
            if kind == pdu.PduType.RELEASE_RQ:
                sock.sendall(pdu.encode(pdu.ReleaseResponse()))
            if kind != pdu.PduType.DATA_TF:
                return
            self.longest = max(self.longest, len(body))
            for value in pdu_reader.decode_values(memoryview(body)):
                match reader.feed(value):
                    case Received(_, command.StoreRequest() as request):
                        data.clear()
                        if self.breaks_at is not None and len(self.got) >= self.breaks_at:
                            return
                    case Fragment(part, last):
                        data += part
                        if last:
                            assert request is not None
                            self.got.append((request, bytes(data)))
                            waiting.append(request)
                            self.most_open = max(self.most_open, len(waiting))
            if len(waiting) >= self.hold:
                self.answer(sock, waiting)

    def answer(self, sock: socket.socket, waiting: list[command.StoreRequest]) -> None:
        # The last first: a window lets answers come in any order.
        while waiting:
            asked = waiting.pop()
            code = self.statuses.pop(0) if self.statuses else 0
            answer = command.Response(
                command.Field.C_STORE_RSP, asked.message_id, code, MR, asked.sop_instance_uid, self.comment
            )
            sock.sendall(message(answer))


async def test_the_bytes_of_the_file_arrive(series: list[Outgoing]) -> None:
    scp = Scp()
    with parrot(accepting(4096), scp) as port:
        sent = await send(pacs_at(port), series[:3])
    assert [one.status for one in sent] == [0, 0, 0]
    for one, (request, data) in zip(series, scp.got, strict=False):
        assert request.sop_instance_uid == one.sop_instance_uid
        assert data == one.path.read_bytes()[one.start :]
    assert 4000 < scp.longest <= 4096
    assert scp.most_open == 1


async def test_as_many_open_as_the_peer_allows(series: list[Outgoing]) -> None:
    scp = Scp(hold=4)
    with parrot(accepting(window=pdu.Window(4, 1)), scp) as port:
        sent = await send(pacs_at(port), series[:8], window=8)
    assert {one.instance.sop_instance_uid for one in sent} == {one.sop_instance_uid for one in series[:8]}
    assert scp.most_open == 4


async def test_each_status_is_the_peers_own(series: list[Outgoing]) -> None:
    scp = Scp(0xA700, 0xB007, 0x0122, 0xC000, comment="full")
    with parrot(accepting(), scp) as port:
        sent = await send(pacs_at(port), series[:5])
    assert [(one.status, one.stored) for one in sent] == [
        (0xA700, False),
        (0xB007, True),
        (0x0122, False),
        (0xC000, False),
        (0, True),
    ]
    assert {one.comment for one in sent} == {"full"}


async def test_what_broke_is_sent_again_and_told_once(series: list[Outgoing]) -> None:
    scp = Scp(breaks_at=2)

    def step(sock: socket.socket) -> None:
        accepting()(sock)
        scp(sock)
        scp.breaks_at = None

    with parrot(step, connections=2) as port:
        sent = await send(pacs_at(port), series[:5])
    assert [one.instance for one in sent] == series[:5]
    assert all(one.stored for one in sent)


async def test_an_instance_that_breaks_the_peer_twice_is_left_out(series: list[Outgoing]) -> None:
    poison = series[1].sop_instance_uid

    def step(sock: socket.socket) -> None:
        accepting()(sock)
        scp = Scp()
        while True:
            before = len(scp.got)
            _one(scp, sock, poison)
            if len(scp.got) == before:
                return

    with parrot(step, connections=3) as port:
        sent = await send(pacs_at(port), series[:4])
    told = {one.instance.sop_instance_uid: (one.status, one.code) for one in sent}
    assert told[poison] == (None, "pacs-aborted")
    assert len(sent) == 4
    assert sum(one.stored for one in sent) == 3


def _one(scp: Scp, sock: socket.socket, poison: str) -> None:
    """Takes one instance, unless it is the one that it cannot bear."""
    _, body = read_pdu(sock)
    if not body[6:] or body[5] & 1 == 0:
        sock.sendall(pdu.encode(pdu.ReleaseResponse()))
        return
    request = command.decode(body[6:])
    assert isinstance(request, command.StoreRequest)
    if request.sop_instance_uid == poison:
        return
    while True:
        _, body = read_pdu(sock)
        if body[5] & 2:
            break
    scp.got.append((request, b""))
    scp.answer(sock, [request])


STRANGE = message(command.Response(command.Field.C_STORE_RSP, 999, 0))


@pytest.mark.parametrize(
    ("steps", "connections", "code"),
    [
        ([accepting(), wait_close], 3, "pacs-silent"),
        ([accepting(), read_one], 3, "pacs-aborted"),
        ([accepting(), read_one, STRANGE, wait_close], 3, "pacs-protocol"),
        ([accepting(), read_one, message(command.EchoRequest(1)), wait_close], 3, "pacs-protocol"),
        ([read_one], 1, "pacs-aborted"),
    ],
    ids=["silent", "gone", "other answer", "request", "no association"],
)
async def test_a_peer_that_cannot_be_stored_to_ends_it(
    series: list[Outgoing], steps: list[Step], connections: int, code: str
) -> None:
    """Three times in a row nothing was stored: nothing more is tried, and nothing is told to be stored."""
    got: list[Sent] = []
    with parrot(*steps, connections=connections) as port, pytest.raises(Unavailable) as error:
        await send(pacs_at(port, answer_timeout=0.3), series[:5], got)
    assert error.value.code == code
    assert not any(one.stored for one in got)


async def test_a_peer_that_refuses_us(series: list[Outgoing]) -> None:
    reject = pdu.encode(pdu.AssociateReject(1, 1, 3))
    with parrot(read_one, reject, wait_close) as port, pytest.raises(Rejected, match="AE title"):
        await send(pacs_at(port), series[:2])


async def test_leaving_stops_after_the_instance_at_hand(series: list[Outgoing]) -> None:
    scp = Scp()
    with parrot(accepting(), scp) as port:
        link = PacsLink(pacs_at(port))
        async with PacsStore(link).sending(series * 50) as sent:
            await anext(aiter(sent))
        link.close()
    assert len(scp.got) < len(series) * 50


async def test_it_goes_to_where_images_are_stored(series: list[Outgoing], tmp_path: Path) -> None:
    """The AE that is asked is not the AE that stores; of two that store, the first that answers."""
    with storescp(tmp_path / "got") as peer:
        nodes = (Node("127.0.0.1", free_port(), "DEAD"), Node(peer.host, peer.port, peer.ae_title))
        sent = await send(pacs_at(free_port(), store_nodes=nodes), series[:3])
    assert all(one.stored for one in sent)


# ----------------------------------------------------------------------------------------------------------- no I/O


@given(st.binary(max_size=3000), st.integers(0, 400), st.booleans())
def test_framed_is_what_the_encoder_writes(data: bytes, longest: int, ends: bool) -> None:
    room = room_of(longest)
    assert room % 2 == 0
    assert room <= max(longest or 131072, 8) - 6
    made = b"".join(framed(5, memoryview(data), room, ends=ends))
    values: list[pdu.DataValue] = []
    view = memoryview(made)
    while view:
        length = int.from_bytes(view[2:6], "big")
        assert view[0] == pdu.PduType.DATA_TF
        values += pdu_reader.decode_values(view[6 : 6 + length])
        view = view[6 + length :]
    assert b"".join(bytes(value.data) for value in values) == data
    assert [value.is_last for value in values] == [False] * (len(values) - 1) + [ends]
    assert all(not value.is_command and value.context_id == 5 for value in values)
    whole = [v for v in cut(5, command.EchoRequest(1), data, room + 6) if not v.is_command]
    assert [bytes(v.data) for v in values] == [bytes(v.data) for v in whole]


def test_no_data_out_of_turn() -> None:
    with pytest.raises(WrongState):
        UpperLayer().send_pdus([b"x"])


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128) + b"DICM" + bytes(40), bytes(200)])
def test_what_is_no_dicom_file_is_not_sent(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(Refused):
        outgoing(path)
