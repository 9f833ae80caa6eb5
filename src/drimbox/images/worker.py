"""The process in which images are decoded: started by ``workers``, spoken to over its standard input and output.

One JSON line asks, one JSON line answers. What is made goes into memory that both processes see, or into a file when it
may be long. Native codecs run on what strangers sent, so this process holds no secret, no network and no other
patient's file, its memory is limited, it leaves no core file, and it may die at any time.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from drimbox.foundation.errors import DrimboxError, IdentityMismatch
from drimbox.identity.ins import Ins
from drimbox.images.reencode import BETWEEN
from drimbox.images.transcode import frames_to, transcode_to


def main() -> None:
    """Answer requests until the standard input ends. Arguments: bytes of address space, the shared memory."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a codec prints must not be taken for an answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    warnings.simplefilter("ignore")
    with os.fdopen(int(sys.argv[2]), "w+b", buffering=2**16) as shared:
        for line in requests:
            answers.write(json.dumps(_answer(line, shared)).encode() + b"\n")
            answers.flush()


def _answer(line: bytes, shared: BinaryIO) -> dict[str, Any]:
    try:
        return _work(json.loads(line), shared)
    except IdentityMismatch as error:
        return {"mismatch": error.code, "reason": error.reason}
    except DrimboxError as error:
        return {"refused": error.code, "reason": error.reason}
    except Exception as error:  # noqa: BLE001 - codecs raise anything; the caller learns that this image failed
        return {"refused": "dicom-frame", "reason": "Image DICOM illisible", "kind": type(error).__name__}


def _work(request: dict[str, Any], shared: BinaryIO) -> dict[str, Any]:
    if request["do"] == "nothing":
        return {}
    source, target = Path(request["source"]), Path(request["target"])
    ins = Ins.of(request["matricule"], request["oid"]) if "oid" in request else None
    if request["do"] == "metadata":
        # Here, because it brings pydicom: half of the memory of a process that only decodes.
        from drimbox.images.metadata import write_metadata

        assert ins is not None
        write_metadata(source, target, ins)
        return {}
    between = target.with_name(target.name + BETWEEN)
    with _output(request, target, shared) as out:
        if request["do"] == "frames":
            made: dict[str, Any] = {
                "lengths": frames_to(source, out, request["syntax"], request["frames"], between=between)
            }
        else:
            header = transcode_to(source, out, request["syntax"], ins, between=between)
            made = {"image": [header.study_uid, header.series_uid, header.sop_instance_uid]}
        out.flush()
        return made | {"size": out.tell()}


@contextmanager
def _output(request: dict[str, Any], target: Path, shared: BinaryIO) -> Iterator[BinaryIO]:
    if not request["in_memory"]:
        with target.open("xb") as out:
            yield out
        return
    # Nothing of the former image stays, even when this one fails.
    shared.seek(0)
    shared.truncate()
    yield shared


if __name__ == "__main__":
    main()
