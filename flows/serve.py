"""Run production on this machine until Ctrl-C: a Prefect server, a worker, the deployments of infra/prefect.yaml, the endpoint.

The server stores its data in an SQLite file in production/prefect, or in the database that
PREFECT_SERVER_DATABASE_CONNECTION_URL names. With PREFECT_API_URL, neither server nor endpoint is started: worker and
deployments use that server. Every request to the server needs the auth string in production/prefect/auth_string, or the one in
PREFECT_SERVER_API_AUTH_STRING.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from prefect.client.orchestration import PrefectClient, get_client
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, get_current_settings, temporary_settings

from ballast.cli import parser, run
from ballast.exceptions import UserError
from flows.failures import explained_api_errors
from flows.ports import check_port
from flows.prefect_server.auth import (
    ADDRESS_FILE,
    ANY_ADDRESS,
    AUTH_FILE,
    CLIENT,
    LOOPBACK,
    SERVER,
    client_settings,
    configured_auth_string,
    host_names,
    server_home,
    server_settings,
    stored_auth_string,
    url_host,
    write_private,
)
from flows.prefect_server.options import add_server_options
from flows.prefect_server.secured_environment import OWN
from flows.prefect_server.services import MARK, Service, locked_home, record_processes, show, stop_services
from flows.prefect_server.work_pool import DEPLOYMENTS, POOL, TEMPLATE, deploy, prepare, table
from flows.prefect_server.zombie_runs import restart_monitoring

START_SECONDS = 180.0
# Variables that the worker and its runs must not see: the server's database password and auth string.
SERVER_ONLY = ("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_", SERVER)
ENDPOINT_PORT = 8300
WORKER = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--install-policy", "never"]


async def wait_until_ready(client: PrefectClient, server: Service | None) -> None:
    """Wait until the server answers; raises UserError if it ends or does not answer in time."""
    deadline = time.monotonic() + START_SECONDS
    while (problem := await client.api_healthcheck()) is not None:
        if server is not None and server.process is not None and server.process.poll() is not None:
            raise UserError(f"the server ended with exit code {server.process.returncode}; see {server.output}")
        if server is None or time.monotonic() > deadline:
            raise UserError(f"no Prefect server answers at {client.api_url}: {problem}")
        await asyncio.sleep(0.3)


async def set_up(server: Service | None, environment: Mapping[str, str], login: str) -> None:
    """Wait for the server, create the work pool and the deployments, and show them."""
    async with get_client() as client:
        await wait_until_ready(client, server)
        await prepare(client)
        await asyncio.to_thread(deploy, environment)
        await restart_monitoring(client)
        show(f"Prefect: {str(client.api_url).rstrip('/').removesuffix('/api')}\n{login}")
        show("\n".join(await table(client)))


def interrupt(number: int, frame: object) -> None:
    """Handle a signal as Ctrl-C."""
    raise KeyboardInterrupt


def main(host: str, port: int, name: Sequence[str], endpoint_port: int) -> None:
    for needed in (DEPLOYMENTS, TEMPLATE):
        if not needed.is_file():
            raise UserError(f"{needed}: no such file; run this command in the root of the repository")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    mark = uuid4().hex
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, MARK: mark, "PATH": path, "BALLAST_ROOT": str(Path.cwd())}
    if PREFECT_API_URL.value():
        login = f"Log in with the server's auth string, if it has one; here, that is {CLIENT}."
        supervise([Service("worker", WORKER, environment)], None, environment, mark, login)
    else:
        remove_temporary_server_settings()
        for variable in OWN:
            environment.pop(variable, None)
        serve_with_own_server(host, port, name, endpoint_port, environment, mark)


def serve_with_own_server(
    host: str, port: int, names: Sequence[str], endpoint_port: int, environment: dict[str, str], mark: str
) -> None:
    """Start a server, a worker and, unless its port is 0, the endpoint; supervise them until Ctrl-C."""
    check_port(host, port)
    if endpoint_port:
        check_port(LOOPBACK[0], endpoint_port, "--endpoint-port")
    home = server_home()
    with locked_home(home) as lock:
        origin = f"http://{'127.0.0.1' if host in ANY_ADDRESS else url_host(host)}:{port}"
        url = f"{origin}/api"
        auth_string, login = auth_string_and_login(home, url)
        settings = get_current_settings()
        client = {"PREFECT_HOME": str(home), "PREFECT_API_URL": url, **client_settings(settings, auth_string)}
        origins = [f"http://{host_name}:{port}" for host_name in host_names(host, names)]
        for_server = environment | client | server_settings(settings, auth_string, origins)
        for_worker = {name: value for name, value in environment.items() if not name.startswith(SERVER_ONLY)} | client
        services = [own_server(host, port, names, home, lock, for_server), Service("worker", WORKER, for_worker, lock)]
        if endpoint_port:
            services.append(own_endpoint(endpoint_port, home, lock, for_worker))
            login += f"\nEndpoint: http://{LOOPBACK[0]}:{endpoint_port}/docs"
        if url_host(host) not in LOOPBACK:
            show(f"warning: {host} accepts unencrypted connections from other machines; infra/README.md has safer ways")
        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: auth_string}):
            supervise(services, home, for_worker, mark, login)


def own_server(host: str, port: int, names: Sequence[str], home: Path, lock: int, environment: Mapping[str, str]) -> Service:
    """The server as a service; only its owner can read its files."""
    command = [sys.executable, "-m", "flows.server", "--host", host, "--port", str(port)]
    command += [part for name in names for part in ("--name", name)]
    pages = {
        # By default, Prefect puts its pages among the installed packages, where servers on other ports would replace them.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "pages"),
        # Relative, so that the pages also work through a tunnel or a proxy.
        "PREFECT_SERVER_UI_API_URL": "/api",
    }
    return Service("server", command, pages | dict(environment), lock, home / "server.log", umask=0o077)


def own_endpoint(port: int, home: Path, lock: int, environment: Mapping[str, str]) -> Service:
    """The endpoint as a service, for this machine only; it needs nothing of Prefect."""
    command = [sys.executable, "-m", "flows.endpoint", "--port", str(port)]
    without_prefect = {name: value for name, value in environment.items() if not name.startswith("PREFECT_")}
    return Service("endpoint", command, without_prefect, lock, home / "endpoint.log", umask=0o077)


def auth_string_and_login(home: Path, url: str) -> tuple[str, str]:
    """The auth string of the server, configured or stored in its home, and a line that says how to log in."""
    # Flows that are started by hand read the stored string, but only for the address in this file.
    (home / ADDRESS_FILE).unlink(missing_ok=True)
    if (configured := configured_auth_string(get_current_settings())) is not None:
        return configured, f"Log in with the auth string that you set as {SERVER} or {CLIENT}."
    stored = stored_auth_string(home)
    write_private(home / ADDRESS_FILE, url)
    return stored, f"Log in with the auth string that `cat {home / AUTH_FILE}` shows."


def remove_temporary_server_settings() -> None:
    """Remove the settings for a temporary server, which this process does not start."""
    for name in OWN:
        os.environ.pop(name, None)
    refresh_global_settings_context()


def supervise(services: Sequence[Service], home: Path | None, environment: Mapping[str, str], mark: str, login: str) -> None:
    """Start the services, deploy, and restart services that end, until Ctrl-C."""
    server = next((service for service in services if service.name == "server"), None)
    try:
        if server is not None:
            server.start()
            record_processes(home, services)
        with explained_api_errors():
            asyncio.run(set_up(server, environment, login))
        for service in services:
            if service is not server:
                service.start()
        record_processes(home, services)
        show("Press Ctrl-C to stop.")
        while True:
            time.sleep(1.0)
            restarted = [service.restart_if_due() for service in services]
            if any(restarted):
                record_processes(home, services)
    except KeyboardInterrupt:
        show("stopping")
    finally:
        stop_services(services, mark)


if __name__ == "__main__":
    arguments = parser(__doc__)
    add_server_options(arguments)
    arguments.add_argument(
        "--endpoint-port",
        type=int,
        default=ENDPOINT_PORT,
        metavar="PORT",
        help=f"port of the endpoint on 127.0.0.1 (default {ENDPOINT_PORT}; 0: no endpoint)",
    )
    run(main, arguments.parse_args())
