"""A web page of another origin, a stranger and a run's own settings against `make serve`, in a real browser (slow)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page
from prefect.workers.process import ProcessWorker

from flows.prefect_server.work_pool import POOL, TEMPLATE
from tests.browser import chromium
from tests.project import ROOT
from tests.serve_fixtures import Served, belonging, served, site

pytestmark = pytest.mark.slow
# A name of somebody else's that means this machine: another site, or the server itself under a wrong name.
EVIL = "evil.example"
# What a page tries, and what it learns: a body that it could read, an error, or "opaque" where it may not know.
TRIES = """
async ([server, id]) => {
  const body = JSON.stringify({ parameters: { window: "evil" }, job_variables: { command: "touch ran" } });
  const start = `${server}/api/deployments/${id}/create_flow_run`;
  const json = { "Content-Type": "application/json" };
  const ask = async (url, options) => {
    try {
      const answer = await fetch(url, options);
      return answer.type === "opaque" ? "opaque" : `${answer.status} ${await answer.text()}`;
    } catch (error) {
      return "error";
    }
  };
  const socket = (path) => new Promise((resolve) => {
    const made = new WebSocket(`${server.replace("http", "ws")}${path}`, "prefect");
    made.onopen = () => made.send(JSON.stringify({ type: "auth", token: "ballast:guess" }));
    made.onmessage = (message) => resolve(message.data);
    made.onclose = () => resolve("closed");
  });
  const form = () => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), { name: "target", onload: () => resolve("posted") });
    document.body.append(frame);
    const options = { action: start, method: "post", enctype: "text/plain", target: "target" };
    const sent = Object.assign(document.createElement("form"), options);
    sent.append(Object.assign(document.createElement("input"), { name: body.slice(0, -1) + ', "x": "', value: '"}' }));
    document.body.append(sent);
    sent.submit();
  });
  const framed = () => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), { src: server });
    frame.onload = () => {
      try { resolve(frame.contentDocument === null ? "out of reach" : "readable"); } catch (error) { resolve("out of reach"); }
    };
    document.body.append(frame);
  });
  return {
    read: await ask(`${server}/api/health`),
    settings: await ask(`${server}/ui-settings`),
    "read with cookies": await ask(`${server}/api/deployments/${id}`, { credentials: "include" }),
    start: await ask(start, { method: "POST", headers: json, body }),
    "start unasked": await ask(start, { method: "POST", mode: "no-cors", body }),
    "start with a guess": await ask(start, { method: "POST", headers: { ...json, Authorization: "Basic eDp5" }, body }),
    event: await socket("/api/events/in"),
    events: await socket("/api/events/out"),
    logs: await socket("/api/logs/out"),
    form: await form(),
    frame: await framed(),
  };
}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(site(tmp_path_factory.mktemp("site"))) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(f"--host-resolver-rules=MAP {EVIL} 127.0.0.1") as launched:
        yield launched


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


class Blank(BaseHTTPRequestHandler):
    """A page with nothing in it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of another server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def here(running: Served) -> str:
    return f"http://127.0.0.1:{running.port}"


@pytest.mark.parametrize("host", [EVIL, "127.0.0.1"])
def test_a_page_of_another_origin_neither_reads_nor_starts_anything(
    running: Served, page: Page, elsewhere: int, host: str
) -> None:
    before = len(running.runs("watch"))
    page.goto(f"http://{host}:{elsewhere}/")
    learned = page.evaluate(TRIES, [here(running), running.deployment("watch")["id"]])
    assert learned == {
        "read": "error",
        "settings": "error",
        "read with cookies": "error",
        "start": "error",
        # Of a request that it need not ask for, a page may not see the answer, which was 401.
        "start unasked": "error",
        "start with a guess": "error",
        "event": "closed",
        "events": "closed",
        "logs": "closed",
        "form": "posted",
        "frame": "out of reach",
    }
    assert len(running.runs("watch")) == before
    assert not (running.folder / "ran").exists()


def test_a_page_under_a_name_that_means_this_machine_is_not_the_servers(running: Served, page: Page) -> None:
    answer = page.goto(f"http://{EVIL}:{running.port}/")
    assert answer is not None
    assert (answer.status, answer.text()) == (400, "Invalid host header")
    tried = page.evaluate(
        """async () => {
          const answer = await fetch("/api/deployments/filter", { method: "POST", body: "{}" });
          const closed = (path) => new Promise((resolve) => {
            const socket = new WebSocket(`ws://${location.host}${path}`, "prefect");
            socket.onopen = () => resolve("open");
            socket.onclose = () => resolve("refused");
          });
          return [answer.status, await closed("/api/events/in")];
        }"""
    )
    assert tried == [400, "refused"]


def test_a_stranger_is_told_nothing(running: Served) -> None:
    start = f"deployments/{running.deployment('watch')['id']}/create_flow_run"
    asked = [("GET", "version"), ("GET", "admin/settings"), ("GET", "csrf-token?client=me"), ("GET", "docs")]
    asked += [("POST", "flow_runs/filter"), ("POST", start), ("DELETE", f"work_pools/{POOL}"), ("GET", "no/such/path")]
    guesses: list[dict[str, str]] = [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer x"}]
    for method, path in asked:
        for headers in guesses:
            # With a CSRF token, too, that nobody gave.
            sent = headers | {"Prefect-Csrf-Token": "x", "Prefect-Csrf-Client": "x", "Origin": f"https://{EVIL}"}
            for more in (headers, sent):
                answer = httpx.request(method, f"{running.server.url}/{path}", headers=more, timeout=30)
                assert (answer.status_code, answer.json()) == (401, {"exception_message": "Unauthorized"}), (method, path)
                assert "access-control-allow-origin" not in answer.headers
    assert running.server.login is not None
    for host in (EVIL, f"{EVIL}:{running.port}", f"127.0.0.1.{EVIL}", "[::2]", ""):
        headers = {"Host": host}
        assert httpx.get(f"{running.server.url}/health", headers=headers, timeout=30).status_code == 400
        assert running.ask("GET", "version", headers=headers).status_code == 400, "also for one who knows the string"
    assert httpx.get(f"{running.server.url}/health", timeout=30).json() is True, "for whoever watches the server"


def test_a_change_needs_a_csrf_token_too(running: Served) -> None:
    user, word = running.server.word.split(":")
    answer = httpx.post(f"{running.server.url}/flow_runs/filter", json={}, auth=(user, word), timeout=30)
    assert (answer.status_code, answer.json()) == (403, {"detail": "Missing CSRF token."})
    assert running.ask("POST", "flow_runs/filter", json={}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_pages_work_for_who_logs_in_and_ask_nobody_else(running: Served, page: Page, host: str) -> None:
    own, others = f"http://{host}:{running.port}", list[str]()

    def note(event: Any) -> None:
        if not event.url.startswith((own, "data:", "blob:")):
            others.append(event.url)

    page.on("response", note)
    page.goto(f"{own}/")
    page.locator("input").first.fill("ballast:wrong")
    page.get_by_role("button", name="Login").click()
    page.locator("p.text-destructive").wait_for()
    page.locator("input").first.fill(running.server.word)
    page.get_by_role("button", name="Login").click()
    page.wait_for_url("**/dashboard**")
    for deployments in ("v2/deployments", "deployments"):
        page.goto(f"{own}/{deployments}")
        for name in ("pipeline", "promote", "retrain", "score", "watch"):
            page.get_by_role("link", name=name, exact=True).first.wait_for()
    assert others == []


def asked_of_a_run(running: Served) -> dict[str, Any]:
    """What a run would like to change of how it runs."""
    command = f"touch {running.folder / 'ran'}"
    path = {"PATH": str(running.folder), "PYTHONPATH": str(running.folder), "LD_PRELOAD": "evil.so", "BALLAST_ROOT": "/"}
    return {"command": command, "env": path, "working_dir": "/", "env.PATH": "/", "stream_output": False}


def test_a_run_does_not_choose_its_command(running: Served) -> None:
    watch, wanted = running.deployment("watch"), asked_of_a_run(running)
    for name, value in wanted.items():
        body = {"parameters": {"window": "none"}, "job_variables": {name: value}}
        answer = running.ask("POST", f"deployments/{watch['id']}/create_flow_run", json=body)
        assert answer.status_code == 422
        assert f"'{name}' was unexpected" in answer.text
    # Prefect does not check what comes on these ways, so that a worker has to leave it.
    assert running.ask("PATCH", f"deployments/{watch['id']}", json={"job_variables": wanted}).status_code == 204
    body = {"flow_id": watch["flow_id"], "deployment_id": watch["id"], "work_pool_name": POOL, "job_variables": wanted}
    body |= {"parameters": {"window": "by-hand"}, "state": {"type": "SCHEDULED"}}
    answer = running.ask("POST", "flow_runs/", json=body)
    assert answer.status_code == 201, answer.text
    assert running.ends(answer.json()["id"]) == "COMPLETED"
    assert f"start watch by-hand in {running.folder} with {Path(sys.executable).parent}/python\n" in running.steps
    assert not (running.folder / "ran").exists()
    assert running.ask("PATCH", f"deployments/{watch['id']}", json={"job_variables": {}}).status_code == 204


def by_hand(running: Served, *lines: str, url: str = "") -> subprocess.CompletedProcess[str]:
    """Run a few lines of Python as somebody in the checkout who names the server only."""
    command = [sys.executable, "-c", "\n".join(lines)]
    env = {**running.environment, "PREFECT_API_URL": url or running.server.url}
    return subprocess.run(command, cwd=running.folder, env=env, capture_output=True, text=True, check=False, timeout=120)


def test_a_pool_of_an_older_version_gets_the_template(running: Served) -> None:
    older = ProcessWorker.get_default_base_job_template()
    assert running.ask("PATCH", f"work_pools/{POOL}", json={"base_job_template": older}).status_code == 204
    done = by_hand(
        running,
        "import asyncio, flows.commands, flows.prefect_server.work_pool, prefect",
        "async def prepared():",
        "    async with prefect.get_client() as client:",
        "        await flows.prefect_server.work_pool.prepare(client)",
        "asyncio.run(prepared())",
    )
    assert done.returncode == 0, done.stderr
    template = running.ask("GET", f"work_pools/{POOL}").json()["base_job_template"]
    assert template == json.loads((ROOT / TEMPLATE).read_text(encoding="utf-8"))


def test_a_flow_started_by_hand_finds_the_string_for_this_server_only(running: Served) -> None:
    flow = [
        "from flows.failures import readable_errors",
        "from flows.watch import watch",
        "with readable_errors():",
        "    watch('by hand')",
    ]
    done = by_hand(running, *flow)
    assert done.returncode == 0, done.stderr
    assert running.server.word not in done.stdout + done.stderr
    other = running.server.url.replace("127.0.0.1", "localhost")
    refused = by_hand(running, *flow, url=other)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(
        f"ballast.exceptions.UserError: {other}: the Prefect server rejects the auth string; set PREFECT_API_AUTH_STRING"
    )


def test_the_secret_is_the_owners_and_on_no_command_line_and_in_no_log(running: Served) -> None:
    home, secret = running.folder / "production/prefect", running.server.word.partition(":")[2]
    assert home.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in home.iterdir() if path.is_file()}
    assert modes.keys() >= {"auth_string", "address", "prefect.db", "server.log", "serve.lock"}
    assert {name for name, mode in modes.items() if mode != 0o600} == set()
    processes = [psutil.Process(running.process.pid), *belonging(running.folder)]
    assert len(processes) >= 3, "ours, the server, the worker"
    assert [each for each in processes if secret in " ".join(each.cmdline())] == []
    for log in (running.folder / "serve.log", home / "server.log"):
        assert secret not in log.read_text()
    assert f"Log in with the auth string that `cat {home}/auth_string` shows.\n" in running.output
    # The worker and its runs are told what they send, not what the server asks for.
    worker = psutil.Process(running.pid("worker")).environ()
    assert worker["PREFECT_API_AUTH_STRING"] == running.server.word
    assert "PREFECT_SERVER_API_AUTH_STRING" not in worker
