"""The process in which images are decoded: started by ``workers``, spoken to over its standard input and output.

One JSON line asks, one JSON line answers. Native codecs run on what strangers sent, so this process holds no secret, no
network and no other patient's file, its memory is limited, it leaves no core file, and it may die at any time.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from pathlib import Path

from drimbox.foundation.errors import DrimboxError, IdentityMismatch
from drimbox.identity.ins import Ins
from drimbox.images.metadata import write_metadata
from drimbox.images.transcode import transcode


def main() -> None:
    """Answer requests until the standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a codec prints must not be taken for an answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    warnings.simplefilter("ignore")
    for line in requests:
        answers.write(json.dumps(_answer(line)).encode() + b"\n")
        answers.flush()


def _answer(line: bytes) -> dict[str, str]:
    try:
        _work(json.loads(line))
    except IdentityMismatch as error:
        return {"mismatch": error.code, "reason": error.reason}
    except DrimboxError as error:
        return {"refused": error.code, "reason": error.reason}
    except Exception as error:  # noqa: BLE001 - codecs raise anything; the caller learns that this image failed
        return {"refused": "dicom-frame", "reason": "Image DICOM illisible", "kind": type(error).__name__}
    return {}


def _work(request: dict[str, str]) -> None:
    source, target = Path(request["source"]), Path(request["target"])
    if request["do"] == "metadata":
        write_metadata(source, target, Ins.of(request["matricule"], request["oid"]))
    else:
        transcode(source, target, request["syntax"])


if __name__ == "__main__":
    main()
