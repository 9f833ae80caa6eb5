"""What comes over HTTP: Accept headers, multipart answers, contextual calls, Pro Santé Connect, whitelists."""

from __future__ import annotations

import base64
import datetime as dt
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from drimbox.consumer.call import CallRefused, parse_call
from drimbox.foundation import multipart as parts
from drimbox.foundation.errors import DrimboxError, Refused, Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.foundation.media_types import parse_media_type
from drimbox.images import accept, multipart
from drimbox.national.psc import answers, introspection, jwt, provider, tokens, userinfo
from drimbox.national.whitelist import document as whitelist
from drimbox.sandbox.ris.app import call_parameters
from drimbox.sandbox.ris.letters import Identity
from drimbox.trust import names
from drimbox.trust.names import of_text
from fuzz.grammars import http, xml
from fuzz.target import Broken, Run, Target, pieces, pure

_OFFERS = (
    accept.Offer("1.2.840.10008.1.2.1", accept.Work.NONE),
    accept.Offer("1.2.840.10008.1.2.4.90", accept.Work.ENCODE),
    accept.Offer("1.2.840.10008.1.2.4.50", accept.Work.ENCODE_SLOWLY, loses=True),
)


def _run_accept(data: bytes) -> object:
    """Lines of a request; Latin-1, as the server gives them."""
    ranges = accept.parse_accept(data.decode("latin-1").split("\n"))
    wanted = accept.dicom_wanted(ranges)
    boundary = multipart.choose_boundary(accept.wanted_boundaries(ranges))
    multipart.Writer(boundary).content_type("1.2.840.10008.1.2.1").encode("ascii")
    chosen = [
        accept.choose(wanted, _OFFERS, policy=policy, one=one) for policy in accept.Policy for one in (False, True)
    ]
    return len(ranges), accept.takes_json(ranges), [c.offer.syntax if c else None for c in chosen]


def _accepts() -> Iterator[bytes]:
    yield b'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50;q=0.8'
    yield b'multipart/related; type="application/dicom"; transfer-syntax=*; boundary=**,\nmultipart/related;q=0'
    yield b"application/dicom+json, */*;q=0.1"
    yield b"transfer-syntax=1.2.840.10008.1.2.1;q=0.9, application/*"


def _run_multipart(data: bytes) -> object:
    """The first line is the Content-Type, the rest the body."""
    head, _, body = data.partition(b"\n")
    media = parse_media_type(head.decode("latin-1"))
    boundary = media.get("boundary") if media else ""
    read = [_events(boundary, [body]), _events(boundary, list(pieces(body)))]
    # How much of a preamble or header is there when its limit is looked at does depend on the cuts.
    limits = {"multipart-preamble", "multipart-header"}
    if read[0] != read[1] and not limits & {code for _, code in read}:
        raise Broken("parts depend on how the body was cut")
    return read[0][0][:4], read[0][1]


def _events(boundary: str, chunks: list[bytes]) -> tuple[list[object], str]:
    reader = parts.Reader(boundary)
    found: list[object] = []
    data = bytearray()
    try:
        for chunk in chunks:
            for event in reader.feed(chunk):
                if isinstance(event, parts.PartData):
                    data += event.data
                elif isinstance(event, parts.PartStart):
                    found.append(sorted(event.headers.items()))
                else:
                    found.append(bytes(data))
                    data.clear()
        reader.close()
    except Refused as refused:
        # Where exactly a refusal comes may depend on the cuts; that it comes does not.
        return [], refused.code
    except Unavailable as cut:
        return found, cut.code
    return found, ""


def _multiparts() -> Iterator[bytes]:
    writer = multipart.Writer("drimbox-boundary")
    body = writer.delimiter()
    for content in (b"A" * 300, b"--drimbox-boundar\r\n--drimbox", b""):
        headers = {"Content-Type": "application/dicom", "Content-Length": str(len(content))}
        body += writer.opening(headers) + content + writer.delimiter()
    yield writer.content_type().encode() + b"\n" + body + writer.closing()
    plain = b"\n--b\n\nabc\n--b  \nX: y\n z\n\ndef\n--b--"
    yield b'multipart/related; boundary="b"\n' + plain
    yield b"multipart/related; boundary=**\n" + plain.replace(b"--b", b"--**")


_MEANINGS = {"yes": "yes", "unknown": "unknown", "no": "no"}


def _run_call(data: bytes) -> object:
    call = parse_call(data, environment="test", consent_values=_MEANINGS)
    return call.consent, call.filters.study_uid != "", call.filters.first_day is None, len(call.filters.modalities)


def _calls() -> Iterator[bytes]:
    yield urlencode(call_parameters(Identity())).encode()
    more = {
        "StudyInstanceUID": "1.2.3",
        "Modality": "CT,MR",
        "StudyDate": "20240101-2024-12-31",
        "AccessionNumber": "A",
    }
    yield urlencode(call_parameters(Identity(), consent="unknown") | more).encode()


def _run_psc(data: bytes) -> object:
    """Any document of the provider, read as each of the things that it might be."""
    head, _, body = data.partition(b"\n")
    found = []
    reply = Reply(200, _headers(head), body)
    now = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)
    readers = (
        lambda: answers.document(Reply(503, _headers(head), body)),
        lambda: answers.document(Reply(400, _headers(head), body)),
        lambda: introspection.read_introspection(answers.document(reply)),
        lambda: userinfo.read_userinfo(answers.document(reply)),
        lambda: tokens.token_answer(answers.document(reply), now),
        lambda: jwt.signing_keys(answers.document(reply)),
        lambda: provider.read_metadata(answers.document(reply), "https://psc.example/.well-known/x", mutual_tls=True),
        lambda: jwt.check_userinfo(answers.document(reply), "https://psc.example", "c"),
        lambda: jwt.check_logout_token(answers.document(reply), "https://psc.example", "c", now),
        lambda: jwt.check_id_token(
            answers.document(reply), jwt.Expected("https://psc.example", "c", "n", "a", "eidas1"), now
        ),
        lambda: jwt.header(body.decode("utf-8", "replace").strip()),
    )
    for read in readers:
        try:
            read()
            found.append("")
        except DrimboxError as error:
            found.append(error.code)
    return found


def _headers(line: bytes):  # type: ignore[no-untyped-def]
    from multidict import CIMultiDict, CIMultiDictProxy

    text = line.decode("utf-8", "surrogateescape").strip()
    return CIMultiDictProxy(CIMultiDict({"Retry-After": text}))


def _documents() -> Iterator[bytes]:
    token = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "RS256", "kid": "k"}, {"iss": "x", "exp": 1}, "s")
    )
    practice = {
        "codeProfession": "10",
        "libelleProfession": "Médecin",
        "activities": [{"raisonSocialeSite": "C", "numeroFinessSite": "750803447", "codeSecteurDactivite": "SA05"}],
    }
    for content in (
        {"active": True, "sub": "x", "exp": 1800000000, "cnf": {"x5t#S256": "abc"}, "acr": "eidas1", "scope": "openid"},
        {"access_token": "a", "token_type": "Bearer", "expires_in": "120", "refresh_expires_in": 9, "id_token": token},
        {
            "SubjectNameID": "899700218896",
            "SubjectRole": ["10^1.2.250.1.213.1.1.5.5"],
            "SubjectRefPro": {"exercices": [practice]},
        },
        {
            "issuer": "https://psc.example",
            "token_endpoint": "https://psc.example/t",
            "jwks_uri": "https://psc.example/j",
            "mtls_endpoint_aliases": {"token_endpoint": "https://m.example/t"},
        },
        {"keys": [{"kty": "RSA", "kid": "k", "use": "sig", "n": "AQAB" * 90, "e": "AQAB"}, {"kty": "EC", "kid": "e"}]},
        {"error": "invalid_grant", "error_description": "x"},
        {
            "iss": "https://psc.example",
            "aud": ["c"],
            "exp": 1777900000,
            "iat": 1777890000,
            "nonce": "n",
            "acr": "eidas1",
            "sub": "s",
            "sid": "q",
            "jti": "j",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        },
    ):
        yield b"120\n" + json.dumps(content).encode()
    yield b"\n" + token.encode()


def _run_names(data: bytes) -> object:
    return len(of_text(data.decode("utf-8", "replace")))


def _names() -> Iterator[bytes]:
    yield b"CN=db1.example,OU=318751275100020,O=SITE A,ST=Paris (75),C=FR"
    yield b'CN="a, b"+OU=x;O=\\C3\\A9t\\E9, 2.5.4.3=#0c0161'


@contextmanager
def _whitelists() -> Iterator[Run]:
    """A list whose signature is checked as the keeper does; then its content, as if the signature held."""

    def run(data: bytes) -> object:
        told = []
        for read in (whitelist.read_again, names.read_certificate):
            try:
                read(data)
                told.append("")
            except Refused as refused:
                told.append(refused.code)
        return told

    yield run


def _lists() -> Iterator[bytes]:
    import sys

    from drimbox.sandbox.pki import Profile, TestAuthority

    sys.path.append(str(Path(__file__).parents[2] / "whitelist"))
    from whitelist_signing import Signing, content, domain, signed  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        authority = TestAuthority(Path(folder))
        pair = authority.issue(
            Profile.ORG_SIGN, "list", common_name="Liste Blanche DRIM-M", unit="318751275100020", organisation="ANS"
        )
        yield signed(content(domain("1", "db1.example", "CN=db1.example,O=SITE"), domain("2", "x", "")), Signing(pair))


TARGETS = (
    Target("accept", pure(_run_accept), _accepts, (Refused,), http.HEADER, largest=40 * 1024),
    Target("multipart", pure(_run_multipart), _multiparts, (Refused,), http.MULTIPART, largest=128 * 1024),
    Target("call", pure(_run_call), _calls, (CallRefused,), http.HEADER, largest=32 * 1024),
    Target("psc", pure(_run_psc), _documents, (), (*http.JSON, http.tokens, http.token_part), largest=32 * 1024),
    Target("names", pure(_run_names), _names, (Refused,), http.HEADER, largest=8 * 1024),
    Target("whitelist", _whitelists, _lists, (), xml.MUTATORS, ("whitelist/*.xml",), largest=64 * 1024),
)
