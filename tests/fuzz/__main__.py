"""``python -m fuzz campaign MINUTES [TARGET...]``: all targets in turn; ``burst SECONDS SLATE``: each parser so long.

``worker`` is how a campaign starts one target.
"""

from __future__ import annotations

import base64
import gc
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path

from fuzz import campaign, corpus
from fuzz.guard import memory_limit
from fuzz.loop import Course, Slate, fuzz
from fuzz.targets import TARGETS


def main(arguments: list[str]) -> int:
    match arguments:
        case ["worker", order, slate]:
            return _work(json.loads(order), Path(slate))
        case ["burst", seconds, slate]:
            for target in TARGETS.values():
                if not target.slow:
                    _work({"target": target.name, "seed": "1", "seconds": seconds, "burst": True}, Path(slate))
            return 0
        case ["campaign", minutes, *names]:
            os.nice(19)
            unknown = [name for name in names if name not in TARGETS]
            if unknown:
                print(f"cible inconnue : {', '.join(unknown)} ; connues : {', '.join(TARGETS)}", file=sys.stderr)
                return 2
            found = campaign.run(float(minutes), names or list(TARGETS), lambda text: print(text, flush=True))
            print(f"{found} défaut(s)")
            return 1 if found else 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2


def _work(order: dict[str, object], slate_path: Path) -> int:
    target, burst, seconds = TARGETS[str(order["target"])], bool(order["burst"]), float(str(order["seconds"]))
    warnings.simplefilter("ignore")
    logging.lastResort = None
    clock = time.process_time if burst else time.monotonic
    start = corpus.starting(target, official=not burst, learned=not burst)
    slate = Slate(slate_path)
    with target.opened() as run, memory_limit():
        gc.collect()
        began = clock()

        def going_on(_course: Course) -> bool:
            return clock() - began < seconds

        course = fuzz(target, run, start, seed=f"{target.name}:{order['seed']}", going_on=going_on, slate=slate)
    if not burst:
        corpus.learn(target.name, course.found)
    findings = [
        {
            "signature": f.signature,
            "detail": f.detail,
            "data": base64.b64encode(f.input.data).decode("ascii"),
            "official": f.input.official,
        }
        for f in course.findings.values()
    ]
    told = {
        "target": target.name,
        "executions": course.executions,
        "slowest": course.slowest,
        "lines": course.lines,
        "findings": findings,
    }
    print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
