"""Requests to the endpoint: their form, the limits of a body, and one readable sentence for each error."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError
from starlette.requests import ClientDisconnect, Request

from ballast.io.printable import one_line

BODY_SECONDS = 30.0
SHOWN_PROBLEMS, SHOWN_NAME = 20, 60
CHARSET = re.compile(r'charset\s*=\s*"?([^\s;"]+)')
EXPECTED = 'expected {"messages": [{"id": "1", "text": "..."}]}'
WORDS = {
    "id": "the id is not a string or an integer",
    "text": "the text is not a string",
}

# As in `stages.store.ids`, rounded towards 0, because FastAPI writes floats.
WITHIN_64_BITS = Field(json_schema_extra={"minimum": -9.223372036854775e18, "maximum": 1.844674407370955e19})
DESCRIBED = Field(json_schema_extra={"minLength": 1, "pattern": r"\S"})
# A JSON object with all its keys.
Pairs = list[tuple[str, Any]]


class Message(BaseModel):
    """A message to score; the id names it in this window and the one before."""

    model_config = ConfigDict(extra="forbid")
    # The process that scores checks these as it checks the messages of a window; here they are for the description.
    id: Annotated[StrictStr, DESCRIBED] | Annotated[StrictInt, WITHIN_64_BITS]
    text: Annotated[StrictStr, DESCRIBED]


class Messages(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid")
    messages: Annotated[list[Message], Field(min_length=1)]


class Answer(BaseModel):
    """The answer to a message."""

    id: str | int
    label: Annotated[str, Field(description="decision at the operating point")]
    probabilities: Annotated[dict[str, float], Field(description="by label, on the production prior")]
    review: Annotated[bool, Field(description="whether a person decides this message")]
    version: Annotated[str, Field(description="the deployed version that answered")]


class Answers(BaseModel):
    """The answers in the order of the messages."""

    answers: list[Answer]


class Problem(BaseModel):
    """What is wrong with a message; entries count from 0."""

    entry: int
    problem: str


class Problems(BaseModel):
    """Why a request was not answered; nothing of it was scored."""

    detail: str
    errors: list[Problem] = []


class RequestError(Exception):
    """A request that is not answered: the status, a sentence, and the entries that are wrong."""

    def __init__(self, status: int, detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, list(errors)

    @property
    def content(self) -> dict[str, Any]:
        """The body of the response."""
        shown = [{**error, "problem": one_line(error["problem"])} for error in self.errors[:SHOWN_PROBLEMS]]
        return {"detail": one_line(self.detail), "errors": shown}


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise RequestError if a body is no JSON in UTF-8 by the headers of its request.

    >>> check_headers({"content-type": "application/json; charset=latin-1"})
    Traceback (most recent call last):
    flows.scoring.requests.RequestError: the charset is latin-1; send the body in UTF-8
    """
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    if kind.strip() != "application/json":
        shown = kind.strip()[:SHOWN_NAME] or "missing"
        raise RequestError(415, f"the content type is {shown}; send Content-Type: application/json")
    charset = CHARSET.search(parameters)
    if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        raise RequestError(415, f"the charset is {charset[1][:SHOWN_NAME]}; send the body in UTF-8")
    if (coding := headers.get("content-encoding", "identity").strip().lower()) != "identity":
        raise RequestError(415, f"the content encoding is {coding[:SHOWN_NAME]}; send the body uncompressed")


async def read_body(request: Request, megabytes: int) -> bytes:
    """The body of a request; raises RequestError if it is no JSON by its header, too large or too slow."""
    check_headers(request.headers)
    most = megabytes * 1_000_000
    too_large = RequestError(
        413, f"the body is larger than {megabytes} MB (production.endpoint.megabytes); send several requests"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and len(declared) < 20 and int(declared) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        raise RequestError(408, f"the body did not arrive within {BODY_SECONDS:g} s; send it again") from error
    except ClientDisconnect as error:
        raise RequestError(400, "the connection was closed before the body was complete") from error
    return bytes(body)


def parse_messages(body: bytes, most: int) -> list[dict[str, Any]]:
    """The messages (id, text) in a body; raises RequestError that names each wrong entry.

    >>> parse_messages(b'{"messages": [{"id": 1, "text": "hello"}]}', 10)
    [{'id': 1, 'text': 'hello'}]
    >>> parse_messages(b'{"messages": [{"id": 1, "text": null}]}', 10)
    Traceback (most recent call last):
    flows.scoring.requests.RequestError: entry 0: the text is not a string
    """
    try:
        messages = Messages.model_validate_json(body).messages
    except ValidationError as error:
        raise request_error(error) from error
    if len(messages) > most:
        raise RequestError(
            422, f"{len(messages):,} messages, more than {most:,} (production.endpoint.messages); send several requests"
        )
    check_keys(json.loads(body, object_pairs_hook=list))
    return [{"id": message.id, "text": message.text} for message in messages]


def check_keys(content: Pairs) -> None:
    """Raise RequestError if an object of a valid body, as a list of pairs, has a key twice: pydantic takes the last.

    >>> check_keys([("messages", [[("id", 1), ("text", "one"), ("text", "other")]])])
    Traceback (most recent call last):
    flows.scoring.requests.RequestError: entry 0: the key 'text' occurs twice
    """
    if len(content) > 1:
        raise RequestError(422, f"the key {content[0][0]!r} occurs twice; {EXPECTED}")
    problems = [
        {"entry": entry, "problem": f"the key {next(name for name, number in names.items() if number > 1)!r} occurs twice"}
        for entry, message in enumerate(content[0][1])
        if (names := Counter(name for name, _ in message)).total() > len(names)
    ]
    if problems:
        raise entries_error(422, problems)


def request_error(error: ValidationError) -> RequestError:
    """What is wrong with a body, in words that hold nothing of its texts."""
    details = error.errors(include_input=False, include_url=False, include_context=False)
    if details[0]["type"] == "json_invalid":
        return RequestError(
            400, f"the body is not JSON in UTF-8: {details[0]['msg'].removeprefix('Invalid JSON: ')}; {EXPECTED}"
        )
    problems: dict[int, str] = {}
    for detail in details:
        match detail["loc"]:
            case ("messages", int(entry), *rest):
                problems.setdefault(entry, entry_problem(detail["type"], [str(part) for part in rest]))
    if problems:
        return entries_error(422, [{"entry": entry, "problem": problem} for entry, problem in problems.items()])
    name = str(details[0]["loc"][0])[:SHOWN_NAME] if details[0]["loc"] else ""
    found = {
        "missing": "no key 'messages'",
        "extra_forbidden": f"unknown key {name!r}",
        "too_short": "no messages",
    }.get(details[0]["type"], "the messages are not a list of objects" if name else "the body is not an object")
    return RequestError(422, f"{found}; {EXPECTED}")


def entry_problem(kind: str, place: Sequence[str]) -> str:
    """What is wrong with a message, from the kind of pydantic's error and its place within the message."""
    if not place:
        return "is not an object with id and text"
    if kind == "missing":
        return f"no {place[0]}"
    if kind == "extra_forbidden":
        return f"unknown key {place[0][:SHOWN_NAME]!r}; expected id and text"
    return WORDS.get(place[0], "is invalid")


def entries_error(status: int, errors: Sequence[Mapping[str, Any]]) -> RequestError:
    """The error of a request with wrong entries; its sentence names the first."""
    more = f" ({len(errors) - 1:,} more entries are wrong)" if len(errors) > 1 else ""
    return RequestError(status, f"entry {errors[0]['entry']}: {errors[0]['problem']}{more}", errors)
