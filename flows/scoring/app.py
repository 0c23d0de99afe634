"""The application of the endpoint: its paths, and what each answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from flows.scoring.batching import Batcher, BatchError, Overloaded
from flows.scoring.logs import log
from flows.scoring.metrics import Metrics
from flows.scoring.page import page
from flows.scoring.requests import Answers, Messages, Problems, RequestError, entries_error, parse_messages, read_body
from flows.scoring.supervisor import Supervisor, Unavailable

DESCRIPTION = "Labels of messages from the deployed model. Each error says what is wrong and what to do."
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problems, "description": "The body is not JSON in UTF-8."},
    408: {"model": Problems, "description": "The body arrives too slowly."},
    409: {"model": Problems, "description": "Another text was answered under the same id."},
    413: {"model": Problems, "description": "The body is too large."},
    415: {"model": Problems, "description": "The content type is not application/json."},
    422: {"model": Problems, "description": "A message or a key is invalid; nothing was scored."},
    500: {"model": Problems, "description": "An error of the endpoint."},
    503: {"model": Problems, "description": "No model is ready, or too many messages wait; send the request again."},
}
# What `Guard` answers, with a token and without one.
WITH_TOKEN: dict[int | str, dict[str, Any]] = {401: {"model": Problems, "description": "The token is missing or wrong."}}
WITHOUT_TOKEN: dict[int | str, dict[str, Any]] = {
    421: {"model": Problems, "description": "The host name is not of this server."}
}


def request_body() -> dict[str, Any]:
    """The body of a request to /score, for the OpenAPI description; the paths read it themselves, within limits."""
    schema = Messages.model_json_schema()
    schema["properties"]["messages"]["items"] = schema.pop("$defs")["Message"]
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def json_response(content: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON response; a client that must wait learns how long."""
    headers = {"retry-after": "1"} if status == 503 else {}
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    return Response(body, status, headers, "application/json")


async def answers_to(request: Request, supervisor: Supervisor, batcher: Batcher) -> dict[str, Any]:
    """The answers to a request; raises RequestError."""
    settings = supervisor.settings
    if not settings:
        raise RequestError(503, f"no model is ready: {supervisor.problem}")
    body = await read_body(request, settings["megabytes"])
    try:
        messages = parse_messages(body, settings["messages"])
        request.state.messages = len(messages)
        result = await batcher.answer(messages)
    except Overloaded as error:
        raise RequestError(503, "too many messages wait (production.endpoint.waiting); send the request again later") from error
    except Unavailable as error:
        raise RequestError(503, f"no model is ready: {error}") from error
    except BatchError as error:
        # The reason names files of the server, which are not for clients.
        log("batch_failed", error=str(error))
        raise RequestError(503, "the messages could not be scored or written; the log of the endpoint says why") from error
    if "malformed" in result:
        raise entries_error(422, result["malformed"])
    if "conflicts" in result:
        raise entries_error(409, result["conflicts"])
    return result


def application(*, token: bool) -> FastAPI:
    """The application; its lifespan runs the process that scores.

    token : whether clients need a token, for the description; `Guard` checks it.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        supervisor = Supervisor(metrics)
        app.state.supervisor, app.state.batcher = supervisor, Batcher(supervisor, metrics)
        batches, processes = asyncio.create_task(app.state.batcher.run()), asyncio.create_task(supervisor.run())
        try:
            yield
        finally:
            # The server has answered all requests by now.
            for task in (batches, processes):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    # FastAPI's own pages load scripts from another host.
    app = FastAPI(
        title="Ballast",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={} if token else WITHOUT_TOKEN,
    )
    # A redirection would name the host that the request names.
    app.router.redirect_slashes = False
    guarded = APIRouter(
        dependencies=[Depends(HTTPBearer(auto_error=False))] if token else [], responses=WITH_TOKEN if token else {}
    )
    add_score(app, guarded, metrics)
    add_state(app, guarded, metrics)
    app.include_router(guarded)
    return app


def add_score(app: FastAPI, guarded: APIRouter, metrics: Metrics) -> None:
    """Add the path that scores."""

    @guarded.post("/score", response_model=Answers, responses=ERRORS, openapi_extra={"requestBody": request_body()})
    async def score(request: Request) -> Response:
        """Label messages. Nothing is scored unless every message is valid; the same id and text get the same answer."""
        started = time.perf_counter()
        request.state.messages = 0
        try:
            content, status = await answers_to(request, app.state.supervisor, app.state.batcher), 200
        except RequestError as error:
            content, status = error.content, error.status
        except Exception as error:
            # The words of an unexpected error may hold a text, so only its type is logged.
            log("failed", error=type(error).__name__)
            content, status = {"detail": "an error of the endpoint; its log names the type", "errors": []}, 500
        seconds = time.perf_counter() - started
        metrics.seconds.observe(seconds)
        metrics.requests.labels("/score", str(status)).inc()
        more = {"reason": content["detail"]} if status >= 500 else {}
        log("request", path="/score", status=status, messages=request.state.messages, ms=round(1000 * seconds, 1), **more)
        return json_response(content, status)


def add_state(app: FastAPI, guarded: APIRouter, metrics: Metrics) -> None:
    """Add the paths that show the state of the endpoint."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether this process answers: it does."""
        return {"status": "ok"}

    @app.get("/ready", response_model=None, responses={200: {"model": dict[str, str]}, 503: {"model": Problems}})
    async def ready() -> Response:
        """Whether a model is loaded; if not, why."""
        supervisor: Supervisor = app.state.supervisor
        if supervisor.ready is None:
            return json_response({"detail": supervisor.problem or "the model is loading", "errors": []}, 503)
        return json_response({"status": "ready"})

    @guarded.get("/version", response_model=None, responses={200: {"model": dict[str, Any]}, 503: {"model": Problems}})
    async def version() -> Response:
        """The version that answers, its labels, and why no newer one does (`problem`)."""
        supervisor: Supervisor = app.state.supervisor
        if (state := supervisor.ready) is None:
            return json_response({"detail": supervisor.problem or "the model is loading", "errors": []}, 503)
        return json_response({"version": state["version"], "labels": state["labels"], "problem": supervisor.problem})

    @guarded.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    )
    async def prometheus() -> Response:
        """The metrics of this process, in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(
            page(app.openapi()), headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
        )
