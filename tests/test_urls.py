"""URLs with user info, a signature, a chain or an IPv6 address: they are read, and no secret of theirs is shown or stored."""

from __future__ import annotations

import base64
import doctest
import http.server
import io
import json
import os
import socket
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pandas as pd
import pytest
from pyarrow import parquet

from ballast.exceptions import UserError
from ballast.io import urls
from ballast.io.secret_urls import add_secret_url, full_url
from ballast.io.urls import SECRET_URLS, SECRET_URLS_FILE, file_name, file_path, public_url, redact, secrets_in
from flows import score as flow_of_scoring
from flows.commands import run_command
from flows.failures import StageFailed
from flows.pipeline import pipeline
from flows.settings import check_before_dvc
from stages.store.files import read_json
from stages.store.params import read_params
from stages.store.project import PROJECT
from tests.deployed import deploy, prior_model
from tests.flow_fixtures import StandIn, free_port, stand_in
from tests.project import ROOT, Project, corpus

USER, PASSWORD, SIGNATURE = "someone", "p@ss%word:1", "sig%2Fnature+1"
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), "ss%word", "sig%2Fnature", "sig/nature", "nature+1", "nature 1")
MESSAGES = corpus({"ham": 20, "spam": 10}, twins=0)
CSV = MESSAGES.to_csv(index=False).encode()
LONG = "X-Amz-Credential=" + "x" * 200 + "&X-Amz-Signature=" + "0" * 64


@dataclass(frozen=True)
class Site:
    """A web server: what is under /private wants a password, what is under /signed a signature."""

    host: str

    def private(self, name: str, password: str = quote(PASSWORD, safe="")) -> str:
        return f"http://{USER}:{password}@{self.host}/private/{name}"

    def signed(self, name: str) -> str:
        return f"http://{self.host}/signed/{name}?{LONG}&sig={SIGNATURE}#top"

    def public(self, name: str) -> str:
        return f"http://{self.host}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(True)

    def do_HEAD(self) -> None:
        self.answer(False)

    def answer(self, body: bool) -> None:
        parts = urlsplit(self.path)
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        allowed = self.headers.get("Authorization") == expected if parts.path.startswith("/private") else True
        if parts.path.startswith("/signed"):
            allowed = unquote(parts.query).endswith("sig=sig/nature+1")
        content = archive() if parts.path.endswith(".zip") else CSV
        known = parts.path.endswith((".csv", ".zip")) and "gone" not in parts.path
        self.send_response((200 if known else 404) if allowed else 401)
        self.send_header("Content-Length", str(len(content) if allowed and known else 0))
        self.end_headers()
        if body and allowed and known:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("inside/a.csv", CSV)
    return buffer.getvalue()


@contextmanager
def site_at(address: str) -> Iterator[Site]:
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with Server((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Site(f"[{address}]:{server.server_port}" if ":" in address else f"{address}:{server.server_port}")
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with site_at("127.0.0.1") as running:
        yield running


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test knows the secrets of another one."""
    monkeypatch.setattr(urls, "_secrets", set())
    urls.register_environment.cache_clear()
    for name in (SECRET_URLS, SECRET_URLS_FILE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ready(workspace: Project) -> Project:
    """A workspace with a deployed model."""
    deploy(workspace.folder, prior_model({"ham": 0.8, "spam": 0.2}))
    return workspace


def without_secrets(*texts: str | bytes) -> bool:
    joined = "\n".join(text if isinstance(text, str) else text.decode("utf-8", "replace") for text in texts)
    return not [secret for secret in (*SECRETS, USER, "X-Amz", "xxxx") if secret in joined]


def test_the_examples_of_the_module() -> None:
    assert doctest.testmod(urls).failed == 0 and doctest.testmod(urls).attempted >= 5


@pytest.mark.parametrize(
    ("url", "public", "path"),
    [
        ("data/raw/a#1?.csv", "data/raw/a#1?.csv", "data/raw/a#1?.csv"),
        ("http://host/a%20b.csv", "http://host/a%20b.csv", "/a b.csv"),
        ("https://user:p@ss@host:8443/a.csv?x=/b.txt#c.tsv", "https://host:8443/a.csv", "/a.csv"),
        ("https://token@host/a.csv", "https://host/a.csv", "/a.csv"),
        ("HTTPS://user:pa/ss?w#o@host/a.csv", "HTTPS://host/a.csv", "/a.csv"),
        ("http://user:a::b@[fe80::1]:80/a.csv?q", "http://[fe80::1]:80/a.csv", "/a.csv"),
        ("http://host/~@me/a.csv", "http://host/~@me/a.csv", "/~@me/a.csv"),
        ("s3://bucket/a#1.csv?versionId=3", "s3://bucket/a#1.csv", "bucket/a#1.csv"),
        ("abfs://container@account/a.csv", "abfs://container@account/a.csv", "container@account/a.csv"),
        ("zip://in/a.csv::http://user:pw@host/x.zip?sig=1", "zip://in/a.csv::http://host/x.zip", "in/a.csv"),
        ("zip://in/a?.csv::x.zip", "zip://in/a?.csv::x.zip", "in/a?.csv"),
        ("simplecache::https://u:p@h/a.csv?b", "simplecache::https://h/a.csv", "/a.csv"),
        ("zip://a.tsv::zip://x.zip::https://u@[::1]/y.zip?b", "zip://a.tsv::zip://x.zip::https://[::1]/y.zip", "a.tsv"),
        ("file:///data/a#1?.csv", "file:///data/a#1?.csv", "/data/a#1?.csv"),
        ("remote://store/a.csv", "remote://store/a.csv", "/a.csv"),
    ],
)
def test_the_public_form_of_a_url_and_the_path_that_names_its_file(url: str, public: str, path: str) -> None:
    assert public_url(url) == public
    assert public_url(public) == public
    assert file_path(url) == path
    assert len(file_name(f"http://host/{'ä' * 300}.csv?x").encode()) <= 255
    assert file_name(f"http://host/{'ä' * 300}.csv?x").endswith("ä.csv")


def test_secrets_are_hidden_wherever_they_stand_in_a_text() -> None:
    url = f"zip://a.csv::https://{USER}:{quote(PASSWORD)}@host/x.zip?sig={SIGNATURE}"
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    texts = [url, f"'{url}',", PASSWORD, quote(PASSWORD), repr(PASSWORD), "sig/nature+1", "sig/nature 1", token]
    assert not without_secrets(*texts)
    full_url(url)
    assert [text for text in texts if not without_secrets(redact(text)) or token in redact(text)] == []
    assert redact(f"cannot read {url}: 401") == "cannot read zip://a.csv::https://host/x.zip: 401"
    assert redact("https://host/a.csv, and 3 :: others @ http://h?") == "https://host/a.csv, and 3 :: others @ http://h"
    assert str(UserError(f"{url}: away")) == "zip://a.csv::https://host/x.zip: away"


def test_a_long_text_is_searched_in_time() -> None:
    began = time.process_time()
    for text in ("a" * 1_000_000, "a://" * 250_000, "a::" * 300_000, "http://" + "u:p@" * 200_000, "::" * 500_000):
        redact(text)
    assert time.process_time() - began < 20


def test_a_short_secret_spoils_no_other_word() -> None:
    full_url("https://a:ham@host/x.csv?type=csv")
    assert redact("the label hamster of ham in a csv") == "the label hamster of *** in a csv"


@pytest.mark.parametrize("kind", ["environment", "file"])
def test_the_environment_knows_the_secrets_of_a_public_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    lines = [
        "# a remark",
        "https://user:pw@host/a.csv",
        "",
        "https://user:folder@host/all/",
        "https://user:deeper@host/all/deep/?sig=1",
    ]
    if kind == "environment":
        monkeypatch.setenv(SECRET_URLS, "\n".join(lines))
    else:
        path = tmp_path / "urls.txt"
        path.write_text("\n".join(lines))
        path.chmod(0o644)
        monkeypatch.setenv(SECRET_URLS_FILE, str(path))
        with pytest.raises(UserError, match=r"other users may read it \(BALLAST_SECRET_URLS_FILE\); run `chmod 600"):
            full_url("https://host/a.csv")
        path.chmod(0o600)
    assert full_url("https://host/a.csv") == "https://user:pw@host/a.csv"
    assert full_url("zip://x.csv::https://host/a.csv") == "zip://x.csv::https://user:pw@host/a.csv"
    assert full_url("https://host/all/b.csv") == "https://user:folder@host/all/b.csv"
    assert full_url("https://host/all/deep/b.csv") == "https://user:deeper@host/all/deep/b.csv?sig=1"
    for other in ("https://host/other.csv", "https://other/a.csv", "https://me:own@host/a.csv", "all/b.csv"):
        assert full_url(other) == other


def test_settings_with_secrets_are_found() -> None:
    repeated: dict[str, Any] = {"path": "https://user@host/a.csv"}
    repeated["again"] = repeated
    params = {
        "ingest": repeated,
        "probe": {"texts": ["http://host/?win=1"]},
        "production": {"score": {"source": "https://h/{window}?sig=1"}, "webhook": "$HOOK"},
        "texts": ["see https://host/?a=1 for more", "s3://bucket/a.csv", "ray://head:10001"],
        "list": [{"url": "zip://a.csv::https://u:p@h/x.zip"}, "https://user:two words@h/a.csv"],
    }
    assert secrets_in(params, skip="probe") == {
        "ingest.path": "https://host/a.csv",
        "production.score.source": "https://h/{window}",
        "list.0.url": "zip://a.csv::https://h/x.zip",
        "list.1": "https://h/a.csv",
    }


def sources(site: Site) -> dict[str, str]:
    return {
        "user info": site.private("a.csv"),
        "unescaped password": site.private("a.csv", PASSWORD.replace("%", "%25")),
        "signature": site.signed("a.csv"),
        "archive": "zip://inside/a.csv::" + site.private("x.zip"),
        "signed archive": "zip://inside/a.csv::" + site.signed("x.zip").partition("#")[0],
    }


@pytest.mark.parametrize("kind", ["user info", "unescaped password", "signature", "archive", "signed archive"])
def test_a_url_with_secrets_is_read_and_stored_without_them(ready: Project, site: Site, kind: str) -> None:
    url = sources(site)[kind]
    ready.edit({"ingest.source": "file", "ingest.path": url})
    ingested, scored = ready.stage_here("ingest"), ready.stage_here("score", source=url, window="w")
    assert (ingested.code, scored.code) == (0, 0), ingested.stderr + scored.stderr
    files = [path.read_bytes() for path in (ready.folder / "data", ready.folder / "production") for path in path.rglob("*.*")]
    assert without_secrets(ingested.stderr, scored.stderr, *files)
    assert read_json(ready.folder / PROJECT.ingest)["served_by"] == f"file {public_url(url)}"
    path = ready.folder / "production/scored/w.parquet"
    assert json.loads(parquet.read_schema(path).metadata[b"ballast"])["source"] == public_url(url)
    assert len(pd.read_parquet(path)) == len(MESSAGES)


@pytest.mark.parametrize("kind", ["user info", "signature", "archive"])
@pytest.mark.parametrize("wrong", ["gone", "dead", "malformed", "pinned", "ending", "column"])
def test_no_error_says_a_secret(ready: Project, site: Site, kind: str, wrong: str) -> None:
    url = sources(site)[kind]
    changes: dict[str, Any] = {"ingest.source": "csv"}
    if wrong == "gone":
        url = url.replace("/a.csv", "/gone.csv").replace("x.zip", "gone.zip")
    elif wrong == "dead":
        url = url.replace(site.host, f"127.0.0.1:{free_port()}")
    elif wrong == "malformed":
        url = url.replace(site.host, "127.0.0.1:port")
    elif wrong == "ending":
        url, changes = url.replace("a.csv", "a.exe"), {"ingest.source": "file"}
    elif wrong == "pinned":
        changes["ingest.sha256"] = "0" * 64
    else:
        changes |= {"ingest.text_column": "texts", "production.score.text_column": "texts"}
    ready.edit({"ingest.path": url, **changes})
    failed = ready.stage_here("ingest")
    assert without_secrets(failed.error)
    if wrong != "pinned":
        failed = ready.stage_here("score", source=url, window="w")
        assert without_secrets(failed.error)
    assert not (ready.folder / PROJECT.ingest).exists() and not (ready.folder / "production/scored/w.parquet").exists()


def test_rows_in_quarantine_name_the_public_url(ready: Project, site: Site) -> None:
    ready.edit({"production.score.longest_text": 5})
    failed = ready.stage_here("score", source=site.private("a.csv"), window="w")
    kept = (ready.folder / "production/quarantine/w.jsonl").read_text()
    assert json.loads(kept.splitlines()[0])["source"] == site.public("private/a.csv")
    assert without_secrets(failed.error, kept)


def test_an_address_of_ipv6_and_what_the_environment_adds(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with site_at("::1") as site:
        monkeypatch.setenv(SECRET_URLS, f"{site.private('')}\n{site.signed('x.zip').partition('#')[0]}")
        for source in (site.public("private/a.csv"), f"zip://inside/a.csv::{site.public('signed/x.zip')}"):
            ready.edit({"ingest.path": source})
            ingested, scored = ready.stage_here("ingest"), ready.stage_here("score", source=source, window="w")
            assert (ingested.code, scored.code) == (0, 0), ingested.stderr + scored.stderr
            assert read_json(ready.folder / PROJECT.ingest)["served_by"] == f"file {source}"


def test_a_password_from_netrc_as_for_dvc(ready: Project, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = ready.write("netrc", f"machine 127.0.0.1\nlogin {USER}\npassword {PASSWORD}\n".encode())
    netrc.chmod(0o600)
    ready.edit({"ingest.path": site.public("private/a.csv")})
    assert "401" in ready.stage_here("ingest").error
    monkeypatch.setenv("NETRC", str(netrc))
    done = ready.stage_here("ingest")
    assert done.code == 0, done.stderr


def test_the_flow_passes_the_public_form_only(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(flow_of_scoring, "score", lambda *given: calls.append(given))
    flow_of_scoring.main(site.private("a.csv"), "w")
    assert calls == [(site.public("private/a.csv"), "w")]
    assert os.environ[SECRET_URLS] == site.private("a.csv")
    with pytest.raises(UserError, match=rf"use {site.public('signed/a.csv')} and put the full URL into the .* {SECRET_URLS}"):
        flow_of_scoring.no_secrets(site.signed("a.csv"))
    monkeypatch.chdir(tmp_path)
    source = site.signed("{window}")
    Path("params.yaml").write_text(f"production: {{score: {{source: '{source}', window: '%Y', hours: 24}}}}")
    with pytest.raises(UserError, match=f"production.score.source is a URL with .* variable {SECRET_URLS}"):
        flow_of_scoring.window_of(None, "w", None)  # type: ignore[arg-type]


# DVC


@pytest.fixture
def graph(tmp_path: Path) -> StandIn:
    """A DVC repository whose one stage is the real ingest."""
    made = stand_in(tmp_path / "graph")
    source = corpus({"ham": 20, "spam": 10})
    made.write(
        "dvc.yaml",
        b"""
stages:
  ingest:
    cmd: python -m stages.ingest
    deps: ["${ingest.path}"]
    params: [ingest]
    outs: [data/messages.parquet]
""",
    )
    (made.folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    made.write(
        "data/feedback.parquet", pd.DataFrame({name: pd.Series(dtype="str") for name in ("id", "text", "label", "split")})
    )
    made.write("shelf/a.csv", source)
    made.edit({"ingest.source": "file", "ingest.path": "shelf/a.csv"})
    return made


def test_dvc_never_learns_a_secret(graph: StandIn, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    graph.edit({"ingest.path": site.private("a.csv")})
    words = ["params.yaml: ingest.path is a URL with user info", site.public("private/a.csv"), "~/.netrc", "remote://NAME/path"]
    failed = graph.run(sys.executable, "-m", "flows.settings")
    assert all(word in failed.error for word in words) and without_secrets(failed.stderr)
    monkeypatch.chdir(graph.folder)
    with pytest.raises(UserError, match=r"params.yaml: ingest.path is a URL"):
        pipeline.fn()
    failed = graph.run("dvc", "repro")
    assert failed.code != 0 and words[0] in failed.stderr
    assert not (graph.folder / "dvc.lock").exists()
    netrc = graph.write("netrc", f"machine 127.0.0.1\nlogin {USER}\npassword {PASSWORD}\n".encode())
    netrc.chmod(0o600)
    graph.edit({"ingest.path": site.public("private/a.csv")})
    done = graph.run("dvc", "repro", NETRC=str(netrc))
    assert done.code == 0, done.stderr
    assert site.public("private/a.csv") in (graph.folder / "dvc.lock").read_text()
    assert without_secrets((graph.folder / "dvc.lock").read_bytes())


def test_a_dvc_remote_is_a_source(graph: StandIn, site: Site) -> None:
    for command in (
        ["remote", "add", "store", f"http://{site.host}/private"],
        ["remote", "modify", "--local", "store", "auth", "basic"],
        ["remote", "modify", "--local", "store", "user", USER],
        ["remote", "modify", "--local", "store", "password", PASSWORD],
    ):
        assert graph.run("dvc", *command).code == 0
    graph.edit({"ingest.path": "remote://store/a.csv"})
    done = graph.run("dvc", "repro")
    assert done.code == 0, done.stderr
    assert read_json(graph.folder / PROJECT.ingest)["served_by"] == "file remote://store/a.csv"
    assert without_secrets((graph.folder / "dvc.lock").read_bytes(), (graph.folder / PROJECT.ingest).read_bytes())
    graph.edit({"ingest.path": "remote://nobody/a.csv"})
    assert "remote 'nobody' doesn't exist" in graph.stage_here("ingest").error


def test_what_dvc_would_read_without_end_is_refused_before(graph: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(graph.folder)
    check_before_dvc()
    for name, source in (("shelf/b.csv", "shelf"), ("dvc.lock", "shelf/a.csv"), ("data/feedback.parquet", "shelf/a.csv")):
        graph.edit({"ingest.path": source})
        (graph.folder / name).unlink(missing_ok=True)
        os.mkfifo(name)
        with pytest.raises(UserError, match=f"^{name}: is a FIFO; expected a regular file$"):
            check_before_dvc()
        (graph.folder / name).unlink()


def test_a_version_holds_no_secret(workspace: Project) -> None:
    from stages.production.candidate import copy_public

    workspace.edit({"ingest.path": f"https://{USER}:{quote(PASSWORD)}@host/a.csv?sig={SIGNATURE}"})
    copied = workspace.folder / "copied.yaml"
    copy_public(workspace.folder / "params.yaml", copied)
    assert without_secrets(copied.read_bytes())
    assert read_params(copied).ingest.path == "https://host/a.csv"
    workspace.write("params.yaml", b'ingest: {path: "https:\\/\\/user:pw@host/a.csv"}')
    with pytest.raises(UserError, match=r"params.yaml: ingest.path holds a URL"):
        copy_public(workspace.folder / "params.yaml", copied)


@pytest.mark.parametrize(
    "setting", ["https://hooks.example/T0/secret", "https://user:pw@hooks.example", "https://hooks.example?key=1", "hook", ""]
)
def test_an_address_of_a_webhook_is_no_setting(workspace: Project, setting: str) -> None:
    workspace.edit({"production.webhook": setting})
    error = workspace.stage_here("params").error
    assert "params.yaml: production.webhook: the address is a secret" in error and "$NAME" in error and "file:PATH" in error
    assert "secret/" not in error and "T0" not in error and "pw" not in error
    for accepted in ("$HOOK", "file:production/hook.txt", "https://hooks.example", None):
        workspace.edit({"production.webhook": accepted})
        assert workspace.stage_here("params").code == 0


def test_commands_of_a_flow_carry_no_secret(ready: Project, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ready.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command, lines = [*flow_of_scoring.STAGE, "--window", "w", "--", add_secret_url(site.private("a.csv"))], list[str]()
    run_command("score", command, lines.append)
    assert "30 messages scored" in lines[-1]
    # Whatever a child prints.
    with pytest.raises(StageFailed) as failed:
        run_command("other", ["sh", "-c", f"echo '{site.private('a.csv')} {PASSWORD}' >&2; false"], lines.append)
    assert lines[-1] == f"{site.public('private/a.csv')} ***"
    assert without_secrets(*command, *lines, str(failed.value))


@pytest.mark.slow
def test_prefect_keeps_no_secret(ready: Project, site: Site) -> None:
    home = ready.folder / "prefect"
    settings = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    url = f"{site.private('gone.csv')}?{LONG}"
    failed = ready.run(sys.executable, "-m", "flows.score", url, "--window", "w", **settings)
    assert site.public("private/gone.csv") in failed.error
    kept = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert any(site.public("private/gone.csv").encode() in content for content in kept)
    assert without_secrets(failed.stdout, failed.stderr, *kept)


def test_the_newest_of_equal_secret_urls_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_URLS, "https://host.test/a.csv?signature=expired")
    public = add_secret_url("https://host.test/a.csv?signature=fresh")
    assert (public, full_url(public)) == ("https://host.test/a.csv", "https://host.test/a.csv?signature=fresh")


def test_a_url_that_lost_a_slash_shows_no_secret() -> None:
    assert redact("no file at /x/https:/user:SECRET@host.test/a.csv") == "no file at /x/https:/host.test/a.csv"
