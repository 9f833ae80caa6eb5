"""The TLS contexts, against each other and against the openssl command: who gets in, who does not, and why."""

import contextlib
import datetime as dt
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from drimbox.foundation.errors import Misconfigured
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.tls import TrustStore, client_context, load_trust, server_context
from drimbox.trust.watch import TrustWatch

OPENSSL = shutil.which("openssl") or "openssl"


def usable(pair: PemPair) -> Credential:
    return load_credential(pair.certificate, pair.key)


@pytest.fixture
def trust(pki: TestAuthority, revoked: PemPair, revoked_server: PemPair) -> TrustStore:
    pki.publish_revocations()
    return load_trust([pki.roots], pki.revocation_lists)


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str = "db1.test"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """One whole handshake in memory, then one byte each way; raises what either side raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up, server_hostname=host)
    waiting = [theirs, ours]
    for _ in range(20):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            break
    assert not waiting
    theirs.write(b"?")
    assert ours.read(1) == b"?"
    ours.write(b"!")
    assert theirs.read(1) == b"!"
    return ours, theirs


def raw_client(pki: TestAuthority, pair: PemPair | None) -> ssl.SSLContext:
    """A client that checks nothing of itself: what a careless or hostile peer would send."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.roots)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.mark.requirement("D15", "DB.SO.98")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_two_boxes_meet(trust: TrustStore, server: PemPair, auth: PemPair, version: ssl.TLSVersion) -> None:
    client = client_context(trust, usable(auth))
    client.maximum_version = version
    ours, theirs = shake_hands(server_context(usable(server), trust), client)
    assert ours.getpeercert(binary_form=True) == usable(auth).certificate.public_bytes(Encoding.DER)
    assert theirs.version() == ("TLSv1.2" if version is ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
    cipher = theirs.cipher()
    assert cipher is not None
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


@pytest.mark.requirement("SSI/IE.43", "DB.SO.98")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("revoked", "certificate revoked"),
        ("expired", "certificate has expired"),
        ("sign", "unsuitable certificate purpose"),
        ("server", "unsuitable certificate purpose"),
        (
            "foreign",
            "(certificate signature failure|unable to get local issuer|self-signed certificate in certificate)",
        ),
    ],
)
def test_a_client_that_must_not_enter(
    trust: TrustStore, pki: TestAuthority, server: PemPair, name: str, reason: str, request: pytest.FixtureRequest
) -> None:
    listener = server_context(usable(server), trust)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = raw_client(pki, request.getfixturevalue(name))
        client.maximum_version = version
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            shake_hands(listener, client)


def test_a_client_without_a_certificate_does_not_enter(trust: TrustStore, pki: TestAuthority, server: PemPair) -> None:
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(server_context(usable(server), trust), raw_client(pki, None))


def test_a_listener_for_browsers_asks_for_none(trust: TrustStore, server: PemPair) -> None:
    ours, _ = shake_hands(server_context(usable(server)), client_context(trust))
    assert ours.getpeercert(binary_form=True) is None


def hostile_server(pair: PemPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("revoked_server", "certificate revoked"),
        ("auth", "unsuitable certificate purpose"),
        ("foreign", "(signature failure|unable to get local issuer|self-signed certificate in certificate)"),
    ],
)
def test_a_server_that_must_not_be_believed(
    trust: TrustStore, name: str, reason: str, request: pytest.FixtureRequest
) -> None:
    pair = request.getfixturevalue(name)
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        shake_hands(hostile_server(pair), client_context(trust))


def test_a_server_by_another_name_is_not_believed(trust: TrustStore, server: PemPair) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(server_context(usable(server)), client_context(trust), host="db2.test")
    shake_hands(server_context(usable(server)), client_context(trust), host="127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        shake_hands(server_context(usable(server)), client_context(trust), host="127.0.0.2")


@pytest.mark.requirement("D15")
def test_an_expired_revocation_list_refuses_everyone(
    pki: TestAuthority, trust: TrustStore, server: PemPair, auth: PemPair
) -> None:
    pki.publish_revocations(valid=dt.timedelta(seconds=-1))
    stale = load_trust([pki.roots], pki.revocation_lists)
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL has expired"):
        shake_hands(server_context(usable(server), stale), raw_client(pki, auth))
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL has expired"):
        shake_hands(hostile_server(server), client_context(stale))


def test_a_missing_revocation_list_refuses_its_issuers_certificates(
    pki: TestAuthority, trust: TrustStore, server: PemPair, caplog: pytest.LogCaptureFixture
) -> None:
    root, organisations, _ = pki.revocation_lists
    partial = load_trust([pki.roots], [root, organisations])
    assert "CN=TEST AC IGC-SANTE ELEMENTAIRE SERVEURS" in caplog.text
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get certificate CRL"):
        shake_hands(hostile_server(server), client_context(partial))


def test_new_lists_reach_the_contexts_in_use(stranger: TestAuthority, make: Callable[..., PemPair]) -> None:
    stranger.publish_revocations(valid=dt.timedelta(seconds=-1))
    watch = TrustWatch([stranger.roots], stranger.revocation_lists)
    pair = make(stranger, Profile.SSL_SERV, "watched-server", "db1.test")
    visitor = make(stranger, Profile.ORG_AUTH_CLI, "watched-visitor")
    listener = watch.enrol(server_context(usable(pair), watch.trust))
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL has expired"):
        shake_hands(listener, raw_client(stranger, visitor))
    assert watch.refresh() is False

    stranger.publish_revocations()
    assert watch.refresh() is True
    shake_hands(listener, raw_client(stranger, visitor))

    # A list is newer than another by whole seconds (RFC 5280 5.1.2.4).
    time.sleep(1.1)
    stranger.revoke(visitor)
    before = [path.read_bytes() for path in stranger.revocation_lists]
    assert watch.refresh() is True
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = raw_client(stranger, visitor)
        client.maximum_version = version
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
            shake_hands(listener, client)

    stranger.revocation_lists[1].write_bytes(b"half a fi")
    with pytest.raises(Misconfigured):
        watch.refresh()
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        shake_hands(listener, raw_client(stranger, visitor))
    stranger.revocation_lists[1].write_bytes(before[1])


def resume(listener: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None) -> bool:
    """A second connection with the session of a first one; was it resumed?"""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = listener.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up, server_hostname="db1.test", session=session)
    for _ in range(6):
        for side in (theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert ours.session_reused == theirs.session_reused
    return bool(ours.session_reused)


def test_a_resumed_session_does_not_skip_revocation(stranger: TestAuthority, make: Callable[..., PemPair]) -> None:
    stranger.publish_revocations()
    visitor = make(stranger, Profile.ORG_AUTH_CLI, "resuming-visitor")
    watch = TrustWatch([stranger.roots], stranger.revocation_lists)
    listener = watch.enrol(
        server_context(usable(make(stranger, Profile.SSL_SERV, "resumed-server", "db1.test")), watch.trust)
    )
    client = client_context(watch.trust, usable(visitor))
    # Both ends stay alive: OpenSSL forgets the session of a connection that was dropped.
    kept, first = shake_hands(listener, client)
    assert resume(listener, client, first.session) is False, "TLS 1.3 must not resume"

    client.maximum_version = ssl.TLSVersion.TLSv1_2
    kept, first = shake_hands(listener, client)
    assert resume(listener, client, first.session) is True, "the test no longer shows anything"
    kept, first = shake_hands(listener, client)
    time.sleep(1.1)
    stranger.revoke(visitor)
    assert watch.refresh()
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        resume(listener, client, first.session)
    assert kept.version() == "TLSv1.2"


def test_a_resumed_session_does_not_skip_revocation_where_a_thread_serves_it(
    stranger: TestAuthority, make: Callable[..., PemPair]
) -> None:
    """The DICOM listeners: sockets, not asyncio."""
    stranger.publish_revocations()
    visitor = make(stranger, Profile.ORG_AUTH_CLI, "resuming-modality")
    watch = TrustWatch([stranger.roots], stranger.revocation_lists)
    pair = usable(make(stranger, Profile.SSL_SERV, "threaded-server", "db1.test"))
    listener = watch.enrol(server_context(pair, watch.trust))
    client = client_context(watch.trust, usable(visitor))
    client.maximum_version = ssl.TLSVersion.TLSv1_2

    with contextlib.ExitStack() as stack:

        def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
            """Both ends; they stay alive, for OpenSSL forgets the session of a connection that was dropped."""
            near, far = socket.socketpair()
            near.settimeout(5)
            far.settimeout(5)
            theirs = client.wrap_socket(
                near, server_hostname="db1.test", session=session, do_handshake_on_connect=False
            )
            stack.callback(theirs.close)
            thread = threading.Thread(target=_quietly, args=(theirs,))
            thread.start()
            try:
                ours = stack.enter_context(listener.wrap_socket(far, server_side=True))
            finally:
                thread.join(5)
            return ours, theirs

        _, first = connect(None)
        again, _ = connect(first.session)
        assert again.session_reused, "the test no longer shows anything"
        time.sleep(1.1)
        stranger.revoke(visitor)
        assert watch.refresh()
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
            connect(first.session)


def _quietly(connection: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        connection.do_handshake()


def test_a_site_has_authorities_of_its_own_beside(
    pki: TestAuthority, stranger: TestAuthority, make: Callable[..., PemPair]
) -> None:
    """What is believed of a PACS is not believed of another DRIMbox; each has its lists, renewed together."""
    stranger.publish_revocations()
    national = TrustWatch([pki.roots], pki.revocation_lists)
    visitor = make(stranger, Profile.ORG_AUTH_CLI, "site-visitor")
    server = usable(make(stranger, Profile.SSL_SERV, "site-server", "db1.test"))
    local = national.beside([stranger.roots], stranger.revocation_lists)
    listener = local.enrol(server_context(server, local.trust))
    shake_hands(listener, raw_client(stranger, visitor))
    wide = national.enrol(server_context(server, national.trust))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(wide, raw_client(stranger, visitor))
    time.sleep(1.1)
    stranger.revoke(visitor)
    assert national.refresh() is True
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        shake_hands(listener, raw_client(stranger, visitor))


def test_authorities_beside_without_lists_share_those_that_are_theirs(
    pki: TestAuthority, stranger: TestAuthority
) -> None:
    national = TrustWatch([pki.roots], pki.revocation_lists)
    assert national.beside([pki.roots]).trust.revocation.configured
    # A list that is lacking would refuse everyone.
    assert not national.beside([stranger.roots]).trust.revocation.configured


@contextmanager
def openssl_server(pair: PemPair, pki: TestAuthority, *options: str) -> Iterator[int]:
    """The openssl command as a server that asks for nothing and answers with a page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [OPENSSL, "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(pair.certificate), "-www"]
    command += ["-key", str(pair.key), "-cert_chain", str(pair.certificate), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    try:
        while b"ACCEPT" not in process.stdout.readline():
            assert process.poll() is None
        yield port
    finally:
        process.kill()
        process.communicate()


def ask_openssl_server(port: int, context: ssl.SSLContext) -> str:
    plain = socket.create_connection(("127.0.0.1", port), 5)
    with context.wrap_socket(plain, server_hostname="db1.test") as secure:
        secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 ok" in secure.recv(4096)
        return str(secure.version())


def test_our_client_against_openssl(
    trust: TrustStore, pki: TestAuthority, server: PemPair, auth: PemPair, revoked_server: PemPair
) -> None:
    client = client_context(trust, usable(auth))
    with openssl_server(server, pki) as port:
        assert ask_openssl_server(port, client) == "TLSv1.3"
    with openssl_server(server, pki, "-tls1_2", "-Verify", "3", "-verify_return_error", "-CAfile", str(pki.roots)) as p:
        assert ask_openssl_server(p, client) == "TLSv1.2"
    with openssl_server(revoked_server, pki) as port, pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        ask_openssl_server(port, client)
    with openssl_server(server, pki, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as port, pytest.raises(ssl.SSLError):
        ask_openssl_server(port, client)
    with openssl_server(server, pki, "-tls1_2", "-cipher", "AES256-GCM-SHA384") as port, pytest.raises(ssl.SSLError):
        ask_openssl_server(port, client)


@contextmanager
def our_server(context: ssl.SSLContext) -> Iterator[int]:
    """A listener that answers each connection it accepts with one word."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as secure:
                secure.sendall(b"welcome\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def visit_with_openssl(port: int, pki: TestAuthority, *options: str) -> str:
    command = [
        OPENSSL,
        "s_client",
        "-connect",
        f"127.0.0.1:{port}",
        "-CAfile",
        str(pki.roots),
        "-servername",
        "db1.test",
    ]
    ended = subprocess.run([*command, *options], input=b"", capture_output=True, timeout=20, check=False)
    return (ended.stdout + ended.stderr).decode(errors="replace")


def test_openssl_as_a_client_of_our_listener(
    trust: TrustStore, pki: TestAuthority, server: PemPair, auth: PemPair, revoked: PemPair, sign: PemPair
) -> None:
    def identity(pair: PemPair) -> list[str]:
        return ["-cert", str(pair.certificate), "-key", str(pair.key), "-ign_eof"]

    with our_server(server_context(usable(server), trust)) as port:
        assert "welcome" in visit_with_openssl(port, pki, *identity(auth))
        assert "welcome" in visit_with_openssl(port, pki, *identity(auth), "-tls1_2")
        for refused in (
            identity(revoked),
            identity(sign),
            ["-ign_eof"],
            [*identity(auth), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            [*identity(auth), "-tls1_2", "-cipher", "AES128-SHA256:AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256"],
            [*identity(auth), "-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384"],
        ):
            answer = visit_with_openssl(port, pki, *refused)
            assert "welcome" not in answer, refused
            # Revocation is looked up once the handshake is over: that connection is closed without a word.
            assert "alert" in answer or refused == identity(revoked), refused
        # The refused did no harm to the listener.
        assert "welcome" in visit_with_openssl(port, pki, *identity(auth))


def test_a_credential_is_not_used_for_another_purpose(trust: TrustStore, sign: PemPair, server: PemPair) -> None:
    with pytest.raises(Misconfigured, match="client"):
        client_context(trust, usable(sign))
    with pytest.raises(Misconfigured, match="serveur"):
        server_context(usable(sign), trust)
    with pytest.raises(Misconfigured, match="client"):
        client_context(trust, usable(server))


def test_trust_needs_a_root_and_authorities_only(pki: TestAuthority, auth: PemPair, tmp_path: Path) -> None:
    intermediate = pki.folder / "organisations.ca.pem"
    with pytest.raises(Misconfigured, match="racine"):
        load_trust([intermediate])
    with pytest.raises(Misconfigured, match="autorité"):
        load_trust([pki.roots, auth.certificate])
    with pytest.raises(Misconfigured, match="liste de révocation"):
        load_trust([pki.roots], [pki.roots])
    with pytest.raises(Misconfigured, match="ne peut pas être lu"):
        load_trust([tmp_path / "absent.pem"])


def test_lists_are_read_in_the_form_that_igc_sante_publishes(
    pki: TestAuthority, trust: TrustStore, server: PemPair, revoked: PemPair, tmp_path: Path
) -> None:
    files = []
    for path in pki.revocation_lists:
        der = tmp_path / f"{path.stem}.der.crl"
        subprocess.run([OPENSSL, "crl", "-in", path, "-outform", "DER", "-out", der], check=True)
        files.append(der)
    strict = load_trust([pki.roots], files)
    assert len(strict.revocation.lists) == 3
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake_hands(server_context(usable(server), strict), raw_client(pki, revoked))
