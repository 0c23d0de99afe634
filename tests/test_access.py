"""Who may use a server: the auth string and its file, whom it is told, and the settings that servers and clients get."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import Settings
from prefect.workers.process import ProcessJobConfiguration

from ballast.exceptions import UserError
from flows.prefect_server import auth
from flows.prefect_server.auth import (
    CLIENT,
    SERVER,
    auth_string_for,
    host_names,
    make_private,
    missing_settings,
    stored_auth_string,
)
from flows.prefect_server.work_pool import TEMPLATE
from tests.project import ROOT

WORD = "ballast:word"


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of Prefect, in a folder without any."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "none.toml"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_the_string_is_made_once_for_its_owner_only(home: Path) -> None:
    before = os.umask(0)
    try:
        word = stored_auth_string(home)
    finally:
        os.umask(before)
    assert auth.FORM.fullmatch(word) and len(word) > 40
    assert (home / "auth_string").stat().st_mode & 0o777 == 0o600
    assert stored_auth_string(home) == word, "kept over restarts"
    assert auth.new_auth_string() != word
    assert [path.name for path in home.iterdir()] == ["auth_string"]


@pytest.mark.parametrize("content", ["", "\n", "word", ":word", "ballast:", "a b:c", "ballast:wörd", "a:b\nc:d", "\x00:\x01"])
def test_what_is_no_auth_string_is_refused(home: Path, content: str) -> None:
    auth.write_private(home / "auth_string", content)
    with pytest.raises(UserError, match=r"auth_string: expected user:password .* delete it, and the next start creates one$"):
        stored_auth_string(home)
    assert (home / "auth_string").read_text() == content + "\n"


def test_undecodable_bytes_are_no_auth_string(home: Path) -> None:
    auth.write_private(home / "auth_string", "")
    (home / "auth_string").write_bytes(b"ballast:\xff\xfe")
    with pytest.raises(UserError, match=r"auth_string: expected user:password"):
        stored_auth_string(home)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_string_that_others_can_read_is_refused(home: Path, mode: int) -> None:
    word = stored_auth_string(home)
    (home / "auth_string").chmod(mode)
    with pytest.raises(UserError, match=rf"other users can read it \(mode 0{mode:o}, expected 0600\); delete it") as caught:
        stored_auth_string(home)
    assert word not in str(caught.value)


def test_a_folder_in_its_place_is_refused(home: Path) -> None:
    (home / "auth_string").mkdir()
    with pytest.raises(UserError, match="expected a regular file with user:password"):
        stored_auth_string(home)


def test_what_an_older_version_left_open_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "production/prefect"
    home.mkdir(parents=True, mode=0o755)
    for name in ("prefect.db", "prefect.db-wal", "server.log", "serve.lock"):
        (home / name).touch(0o644)
    make_private(home)
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o600}
    # What somebody named may hold other things.
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    (tmp_path / "shared/notes").touch(0o644)
    make_private(tmp_path / "shared")
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "shared/notes").stat().st_mode & 0o777 == 0o644


def test_a_run_without_a_server_gets_one_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, another = missing_settings(Settings()), missing_settings(Settings())
    assert made[SERVER] == made[CLIENT] != another[CLIENT]
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.server.api.cors_allowed_origins == auth.NO_ORIGIN
    assert settings.server.api.csrf_protection_enabled and settings.client.csrf_support_enabled
    assert missing_settings(settings)[SERVER] == made[SERVER], "a command that it starts uses the same"


def test_what_a_user_sets_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "https://mine.example")
    monkeypatch.setenv("PREFECT_SERVER_CSRF_PROTECTION_ENABLED", "false")
    for name in (SERVER, CLIENT):
        monkeypatch.setenv(name, WORD)
        made = missing_settings(Settings())
        assert (made[SERVER], made[CLIENT]) == (WORD, WORD)
        monkeypatch.delenv(name)
    assert made["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"] == "https://mine.example"
    assert made["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "false"
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:4200/api")
    assert missing_settings(Settings()) == {}


def test_strings_that_differ_or_are_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER, WORD)
    monkeypatch.setenv(CLIENT, "ballast:other")
    with pytest.raises(UserError, match=f"{SERVER} and {CLIENT} differ") as caught:
        missing_settings(Settings())
    assert "other" not in str(caught.value)
    monkeypatch.setenv(CLIENT, "password")
    monkeypatch.delenv(SERVER)
    with pytest.raises(UserError, match="expected user:password") as caught:
        missing_settings(Settings())
    assert "password" not in str(caught.value).replace("user:password", "")


def test_nobody_but_the_server_here_is_told_the_string(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = stored_auth_string(home)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        assert auth_string_for(home, url) is None, "nothing says whose server that is"
        auth.write_private(home / "address", url)
        (home / "serve.lock").write_text(f"serve 1\nserver {os.getpid()}\n")
        assert auth_string_for(home, url) == auth_string_for(home, f"{url}/") == word
        monkeypatch.setenv("PREFECT_API_URL", url)
        assert missing_settings(Settings()) == {CLIENT: word, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"}
        for other in (url.replace("127.0.0.1", "localhost"), url.replace("http", "https"), "http://127.0.0.1:1/api"):
            assert auth_string_for(home, other) is None
        (home / "serve.lock").write_text(f"serve 1\nserver {os.getppid()}\n")
        assert auth_string_for(home, url) is None, "another process listens there"
    (home / "serve.lock").write_text(f"serve 1\nserver {os.getpid()}\n")
    assert auth_string_for(home, url) is None, "it has ended"


def test_the_names_of_a_server() -> None:
    assert host_names("127.0.0.1", []) == ["127.0.0.1", "localhost", "[::1]"]
    assert host_names("10.0.0.7", ["ballast.example"]) == ["127.0.0.1", "localhost", "[::1]", "10.0.0.7", "ballast.example"]
    everywhere = host_names("0.0.0.0", [])
    assert len([name for name in everywhere if name.count(":") == 5 and len(name) == 19]) == 0, "no address of hardware"
    assert socket.gethostname() in everywhere and "*" not in everywhere and "0.0.0.0" not in everywhere


def test_a_worker_takes_neither_command_nor_environment_nor_folder_from_a_run() -> None:
    template = json.loads((ROOT / TEMPLATE).read_text(encoding="utf-8"))
    wanted = {"command": "evil", "env": {"PATH": "/evil"}, "env.LD_PRELOAD": "evil.so", "working_dir": "/", "gpus": 2}

    run = FlowRun(flow_id=uuid4(), name="run")

    def configuration(values: dict[str, object]) -> ProcessJobConfiguration:
        made = asyncio.run(ProcessJobConfiguration.from_template_and_values(template, values, client=object()))
        made.prepare_for_flow_run(run)
        return made

    asked, plain = configuration(wanted), configuration({})
    assert asked.model_dump() == plain.model_dump()
    assert not asked._command_configured
    assert asked.working_dir is None and asked.env["PATH"] == os.environ["PATH"]
