"""Answer the requests of the endpoint with the deployed model, until standard input ends.

Standard input and output carry frames: four bytes with the length, then JSON. The first frame that is written names the
version and the settings. Each frame that is read holds a window and requests, which are scored together and written to
`production/answered/<window>.sqlite` before the answers are.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.models.base import Model
from stages.production.answered import Answer, Answered, AnsweredMeanwhileError, path_of, window_before
from stages.production.deployed import Version, current_version, read_version
from stages.production.malformed import malformed_id, malformed_text
from stages.production.windows import WINDOW, quoted_name
from stages.store.params import read_params
from stages.store.project import PROJECT

LENGTH = struct.Struct(">I")
# The first pass through a model is slow, and no request should wait for it.
WARM_UP = "warm-up"
# Padded tokens of a batch on the processor. Requests have few messages: with small batches, each core gets some of them, and
# short messages are not padded to the length of the longest.
TOKENS = 128

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A loaded version, and the length of the longest text that it answers."""

    version: Version
    model: Model
    longest_text: int

    def answers(self, messages: Sequence[tuple[str, str]]) -> list[Answer]:
        """The answers to messages (id, text), with the label, probabilities and review of `flows.score`."""
        if not messages:
            return []
        version = self.version
        probabilities, classes = version.score(self.model, [text for _, text in messages])
        reviewed = version.reviewed(probabilities)
        return [
            Answer(
                id=id_,
                text=text,
                answer={
                    "label": version.labels[int(decided)],
                    "probabilities": dict(zip(version.labels, row.tolist(), strict=True)),
                    "review": bool(review),
                    "version": version.name,
                },
                version=version.sha256,
            )
            for (id_, text), row, decided, review in zip(messages, probabilities, classes, reviewed, strict=True)
        ]

    def problems(self, request: Sequence[Message]) -> list[dict[str, Any]]:
        """The malformed messages of a request as {entry, problem}; entries count from 0. The rules are those of a window."""
        problems: list[dict[str, Any]] = []
        first: dict[str, int] = {}
        for entry, message in enumerate(request):
            problem = malformed_id(message["id"], self.longest_text) or malformed_text(message["text"], self.longest_text)
            if problem is None and (same := first.setdefault(str(message["id"]), entry)) != entry:
                problem = f"has the id of entry {same}; expected different ids in a request"
            if problem is not None:
                problems.append({"entry": entry, "problem": problem})
        return problems


@dataclass
class Windows:
    """The open databases of the current window and of the one before it, where a message that is sent again may be."""

    open: dict[str, Answered] = field(default_factory=dict)

    def of(self, window: str) -> list[Answered]:
        """The databases of a window and of the one before it; others are closed. Raises UserError for an invalid name."""
        if not WINDOW.fullmatch(window):
            raise UserError(f"production.score.window gives the name {quoted_name(window)}; expected a name of a file")
        if window not in self.open:
            wanted = {name for name in (window, window_before(window)) if name is not None}
            for name in self.open.keys() - wanted:
                self.open.pop(name).close()
            for name in wanted - self.open.keys():
                self.open[name] = Answered(path_of(name))
        return [self.open[name] for name in sorted(self.open, reverse=True) if name <= window]

    def close(self) -> None:
        """Close all databases."""
        for database in self.open.values():
            database.close()


def answer_batch(scorer: Scorer, databases: Sequence[Answered], requests: Sequence[Sequence[Message]]) -> dict[str, Any]:
    """The results of requests that are scored together, in their order: {results, scored, repeated}.

    A result is {answers}, or {malformed} or {conflicts} with the entries that make the whole request invalid. New messages are
    written to the first database before this returns; a message with an id that any database has gets the answer there.
    """
    malformed = [scorer.problems(request) for request in requests]
    valid = [request for request, problems in zip(requests, malformed, strict=True) if not problems]
    ids = list(dict.fromkeys(str(message["id"]) for request in valid for message in request))
    earlier: dict[str, Answer] = {}
    for database in reversed(databases):
        earlier |= database.find(ids)
    texts, new = {id_: answer.text for id_, answer in earlier.items()}, dict[str, str]()
    conflicts: list[list[dict[str, Any]]] = []
    for request, problems in zip(requests, malformed, strict=True):
        # A malformed request has no conflicts, because its ids may be anything.
        own = [] if problems else conflicts_of(request, texts)
        conflicts.append(own)
        if not own and not problems:
            given = {str(message["id"]): message["text"] for message in request}
            new |= {id_: text for id_, text in given.items() if id_ not in texts}
            texts |= given
    scored = scorer.answers(list(new.items()))
    if scored:
        databases[0].add(scored)
    every = earlier | {answer.id: answer for answer in scored}
    results: list[dict[str, Any]] = []
    for request, problems, own in zip(requests, malformed, conflicts, strict=True):
        if problems or own:
            results.append({"malformed": problems} if problems else {"conflicts": own})
        else:
            results.append({"answers": [{"id": message["id"], **every[str(message["id"])].answer} for message in request]})
    total = sum(len(result["answers"]) for result in results if "answers" in result)
    return {"results": results, "scored": len(scored), "repeated": total - len(scored)}


def conflicts_of(request: Sequence[Message], texts: dict[str, str]) -> list[dict[str, Any]]:
    """The messages of a request with the id of another text, as {entry, problem}."""
    problem = "another text was answered under this id; send it under a new id"
    return [
        {"entry": entry, "problem": problem}
        for entry, message in enumerate(request)
        if texts.get(str(message["id"]), message["text"]) != message["text"]
    ]


def read_frame(file: IO[bytes]) -> Any:
    """The next frame; None at the end of the file, also in the middle of a frame."""
    header = file.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    content = file.read(LENGTH.unpack(header)[0])
    return json.loads(content) if len(content) == LENGTH.unpack(header)[0] else None


def write_frame(file: IO[bytes], value: Any) -> None:
    """Write a frame."""
    content = json.dumps(value, ensure_ascii=False).encode()
    file.write(LENGTH.pack(len(content)) + content)
    file.flush()


def load_model(version: Version) -> Model:
    """The model of a version, with small batches if it has a network, after a first pass."""
    model = version.load()
    if model.token_counts([WARM_UP]) is not None:
        # A slow import, which the linear model does not need.
        from ballast.compute.parallel import TOKENS_PER_BATCH

        TOKENS_PER_BATCH["cpu"] = TOKENS
    version.score(model, [WARM_UP])
    return model


def answer_all(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Answer frames until there are no more; a batch that cannot be answered gets an error, and the next one its own chance."""
    params = read_params()
    version = read_version(current_version())
    scorer = Scorer(version=version, model=load_model(version), longest_text=params.production.score.longest_text)
    settings = {**params.production.endpoint.model_dump(), "window": params.production.score.window}
    write_frame(outgoing, {"version": version.name, "labels": version.labels, "settings": settings})
    windows = Windows()
    try:
        while (batch := read_frame(incoming)) is not None:
            try:
                databases = windows.of(batch["window"])
                try:
                    reply = answer_batch(scorer, databases, batch["requests"])
                except AnsweredMeanwhileError:
                    # The second time, the ids are found.
                    reply = answer_batch(scorer, databases, batch["requests"])
            except UserError as error:
                reply = {"error": str(error)}
            except Exception as error:
                # The words of other errors may hold a text.
                reply = {"error": f"{type(error).__name__} of the model or of its libraries"}
            write_frame(outgoing, reply)
    except BrokenPipeError:
        print("answer: the endpoint has ended", file=sys.stderr)
    finally:
        windows.close()


def main() -> None:
    PROJECT.answered.mkdir(parents=True, exist_ok=True)
    # What libraries print must not come between the frames.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as outgoing:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        answer_all(sys.stdin.buffer, outgoing)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
