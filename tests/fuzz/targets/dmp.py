"""Answers of the DMP: SOAP and MTOM, the outcome of each transaction, the metadata inside."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from drimbox.foundation import xml as product_xml
from drimbox.foundation.errors import DrimboxError
from drimbox.identity.ins import Ins
from drimbox.national.dmp import authorisation, existence, mtom, provide, query, registry, retrieve, soap, status
from drimbox.national.dmp.metadata import read_objects
from fuzz.grammars import http, xml
from fuzz.target import Broken, Target, pure
from fuzz.targets.samples import metadata_files

sys.path.append(str(Path(__file__).parents[2] / "national_dmp"))
import dmp_answers as made

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
_INCLUDE = '<x:Include xmlns:x="http://www.w3.org/2004/08/xop/include" href="cid:d1"/>'
_WANTED = (retrieve.DocumentWanted("1.2.3", "1.2", ""),)
_READERS: tuple[Callable[[soap.Answer], object], ...] = (
    provide.result,
    status.result,
    authorisation.result,
    lambda answer: existence.result(answer, INS),
    lambda answer: query.current(query.entries(answer, INS)),
    query.references,
    lambda answer: retrieve.documents(answer, _WANTED),
    lambda answer: registry.whole(answer.body) if answer.body is not None else None,
)


def _run(data: bytes) -> object:
    """The first line is the Content-Type, the rest the body."""
    head, _, body = data.partition(b"\n")
    answer = soap.read(head.decode("latin-1"), body)
    found = [answer.fault.code if answer.fault else ""]
    for read in _READERS:
        try:
            read(answer)
            found.append("")
        except DrimboxError as error:
            found.append(error.code)
    return found


def _answers() -> Iterator[bytes]:
    cx = INS.cx()
    plain = b"application/soap+xml; charset=UTF-8\n"
    error = (
        '<RegistryError xmlns="urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0" codeContext="x"'
        ' errorCode="XDSRepositoryError"'
        ' severity="urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:Error" location=""/>'
    )
    observation = '<subjectOf1><observation><code code="x"/><value value="true"/></observation></subjectOf1>'
    for body in (
        made.registry_response(),
        made.registry_response("Failure", error),
        made.query_response(made.extrinsic("urn:uuid:1", cx) + made.extrinsic("urn:uuid:2", cx, "1.2.4")),
        made.query_response(None, total="12"),
        made.query_response("", "PartialSuccess", error),
        made.retrieve_response(made.Sent()),
        made.retrieve_response(made.Sent("1.2.3", _INCLUDE)),
        made.existence_response(INS, observation),
        made.existence_response(INS, code="NF"),
        '<soap:Fault xmlns:soap="http://www.w3.org/2003/05/soap-envelope"><soap:Code><soap:Value>soap:Sender</soap:Value>'
        "<soap:Subcode><soap:Value>DMPx</soap:Value></soap:Subcode></soap:Code><soap:Reason><soap:Text>r</soap:Text>"
        "</soap:Reason></soap:Fault>",
    ):
        yield plain + made.envelope(body).encode()
    packed = made.envelope(made.retrieve_response(made.Sent("1.2.3", _INCLUDE)))
    content_type, body = mtom.write(packed.encode(), [mtom.Attachment("d1", b"DICM" * 40)], "urn:x")
    yield content_type.encode() + b"\n" + body
    for metadata in metadata_files():
        start = metadata.find(b"<rim:RegistryObjectList")
        end = metadata.find(b"</rim:RegistryObjectList>")
        if start > 0 and end > 0:
            listed = metadata[metadata.index(b">", start) + 1 : end].decode()
            wrapped = f'<r xmlns:rim="urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0">{listed}</r>'
            yield plain + made.envelope(made.query_response(wrapped)).encode()


def _official(path: Path) -> bytes:
    return b"application/soap+xml\n" + path.read_bytes()


def _run_metadata(data: bytes) -> object:
    """What was read once reads the same again: nothing in it depends on how it was laid out."""
    root = product_xml.parse(data)
    found = read_objects(root)
    again = read_objects(product_xml.parse(product_xml.to_bytes(root)))
    for entry in found.entries:
        if entry.creation_time is not None:
            entry.creation_time.paris_day()
    if again != found:
        raise Broken("metadata read differently once they are written again")
    return len(found.entries), len(found.submission_sets), len(found.associations)


TARGETS = (
    Target(
        "dmp_answer",
        pure(_run),
        _answers,
        (DrimboxError,),
        (*xml.MUTATORS, *http.MULTIPART),
        ("xds/*.xml",),
        _official,
        largest=64 * 1024,
    ),
    Target(
        "metadata",
        pure(_run_metadata),
        metadata_files,
        (DrimboxError,),
        xml.MUTATORS,
        ("xds/*.xml", "xdm/**/METADATA.XML"),
        largest=64 * 1024,
    ),
)
