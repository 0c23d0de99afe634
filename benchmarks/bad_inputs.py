"""Try every bad input of the tests and count those that fail with one readable line and change nothing.

Writes benchmarks/bad_inputs.json: how many inputs of each kind were tried, and how many ended in another way. The latter are
printed, and then the exit code is 1. `make test-inputs` runs this benchmark.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from benchmarks.measuring import surroundings, write_result
from stages.production.answered import ENDING, read_answered
from stages.store import places
from stages.store.project import PROJECT
from tests.bad_inputs import Case, base, tried, wrong
from tests.bad_labels import labels
from tests.bad_requests import BAD_REQUESTS, BODIES, wrong_body, wrong_response
from tests.bad_settings import settings
from tests.bad_tables import ANSWERS, of_server, server, tables
from tests.endpoint_fixtures import Endpoint, endpoint
from tests.project import Project

COMMAND = "make test-inputs"
# Shorter than in production: one of the cases is a server that never answers.
SILENT_SECONDS = 0.3


def problems(project: Project) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the kind and the name of each bad input with the problems of its outcome."""
    for case in [*settings(), *tables(), *labels()]:
        yield outcome(project, case)
    for name, (answer, _) in ANSWERS.items():
        with server(answer) as port:
            for case in of_server(name, port):
                yield outcome(project, case)
    with endpoint(project) as running:
        for name in BODIES:
            yield "bodies of requests", name, wrong_body(running, name) + answered(running)
        for name in BAD_REQUESTS:
            yield "requests", name, wrong_response(running, name) + answered(running)


def outcome(project: Project, case: Case) -> tuple[str, str, list[str]]:
    """The kind, the name and the problems of a case."""
    return case.kind, case.name, wrong(case, *tried(project, case))


def answered(running: Endpoint) -> list[str]:
    """The messages that were answered: none, if only bad requests were sent."""
    folder = running.project.folder / PROJECT.answered
    return [f"answered {answer.id}" for path in folder.glob(f"*{ENDING}") for answer in read_answered(path)]


def main() -> None:
    places.SILENT_SECONDS = SILENT_SECONDS
    began, kinds = time.perf_counter(), dict[str, Counter[str]]()
    with tempfile.TemporaryDirectory() as folder:
        for kind, name, found in tqdm(problems(base(Path(folder))), desc="bad inputs", unit="input"):
            kinds.setdefault(kind, Counter(tried=0, wrong=0)).update(tried=1, wrong=bool(found))
            for problem in found:
                print(ascii(f"{kind}: {name}: {problem}"), file=sys.stderr)
    counts = {name: sum(of_kind[name] for of_kind in kinds.values()) for name in ("tried", "wrong")}
    seconds = round(time.perf_counter() - began, 1)
    write_result("bad_inputs", {"counts": counts, "kinds": kinds, "command": COMMAND, "seconds": seconds, **surroundings()})
    print(f"{counts['tried']} bad inputs of {len(kinds)} kinds tried, {counts['wrong']} wrong")
    sys.exit(bool(counts["wrong"]))


if __name__ == "__main__":
    main()
