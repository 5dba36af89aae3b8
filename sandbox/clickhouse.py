"""A throw-away ClickHouse for the sandbox and the tests: PyPI's `chdb`, the real engine, behind HTTP.

No registry carries ClickHouse's server, and this is none: no replication, no users but one, no
native protocol (see `sandbox.clickhouse_http`). Nobody should keep data in it. It runs in a process
of its own that dies with its owner. When CLICKHOUSE_HOST is set, that server is used instead, if it
has none of Vitrina's databases yet: they are dropped at the end.

`python -m sandbox.clickhouse` runs one until it is told to stop.
"""

import argparse
import http.client
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import urllib.parse
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from sandbox.lifetime import dying_with_parent, unwinding_on_termination
from sandbox.scratch import scratch_folder

ROOT = Path(__file__).parents[1]
USER = "vitrina"
DATABASES = ("raw", "raw_work", "staging", "ods", "core", "marts")
# Neither UTC nor the business zone, and half an hour off: what relies on the server's zone shows.
SERVER_TIMEZONE = "Asia/Kolkata"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
ANSWER_SECONDS = 600.0
LOG_TAIL_LINES = 20


class ClickhouseStartError(RuntimeError):
    """The server didn't come up, or may not be used; the message says why."""


class ClickhouseRefusedError(RuntimeError):
    """The server refused a statement; the message is the server's."""


@dataclass(frozen=True)
class ClickhouseServer:
    """A server to send statements to as `user`; `database` is where they are run by default."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str = "default"
    pid: int | None = None  # of a server that is ours

    def environment(self) -> dict[str, str]:
        """Return the settings by which ingestion and dbt find it."""
        return {
            "CLICKHOUSE_HOST": self.host,
            "CLICKHOUSE_PORT": str(self.port),
            "CLICKHOUSE_USER": self.user,
            "CLICKHOUSE_PASSWORD": self.password,
            "CLICKHOUSE_DB": self.database,
        }

    def ask(self, statement: str, rows: bytes = b"", **settings: str) -> bytes:
        """Run a statement, the rows of an insert behind it; its output as the server formats it.

        Raises ClickhouseRefusedError with the server's message.
        """
        credentials = b64encode(f"{self.user}:{self.password}".encode()).decode()
        query = urllib.parse.urlencode({"database": self.database, **settings})
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(
                "POST",
                f"/?{query}",
                statement.encode() + (b"\n" + rows if rows else b""),
                {"Authorization": f"Basic {credentials}"},
            )
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise ClickhouseRefusedError(body.decode(errors="replace").strip())
        return body

    def databases(self) -> list[str]:
        """Return the names of Vitrina's databases that are there."""
        there = self.ask("select name from system.databases format TSV").decode().splitlines()
        return [name for name in DATABASES if name in there]

    def empty(self) -> None:
        """Drop Vitrina's databases with all that is in them."""
        for name in self.databases():
            self.ask(f"drop database if exists {name} sync")


@contextmanager
def clickhouse_server() -> Iterator[ClickhouseServer]:
    """Yield a running server and stop it; CLICKHOUSE_HOST in the environment is taken instead.

    Enter it in a thread that lives as long as the server should (see
    `sandbox.lifetime.dying_with_parent`).

    Raises ClickhouseStartError when chdb is not installed, the server ends before it answers, or
    that of the environment holds Vitrina's databases, which the tests would drop.
    """
    if os.environ.get("CLICKHOUSE_HOST"):
        with unwinding_on_termination(), _environment_server() as server:
            yield server
    else:
        with unwinding_on_termination(), _own_server() as server:
            yield server


@contextmanager
def _environment_server() -> Iterator[ClickhouseServer]:
    server = ClickhouseServer(
        host=os.environ["CLICKHOUSE_HOST"],
        port=int(os.environ.get("CLICKHOUSE_PORT") or 8123),
        user=os.environ.get("CLICKHOUSE_USER") or "default",
        password=os.environ.get("CLICKHOUSE_PASSWORD") or "",
        database=os.environ.get("CLICKHOUSE_DB") or "default",
    )
    if found := server.databases():
        raise ClickhouseStartError(
            f"{server.host} has the databases {', '.join(found)}: the sandbox drops them at its"
            " end, so it takes a server only that has none of them"
        )
    try:
        yield server
    finally:
        server.empty()


@contextmanager
def _own_server() -> Iterator[ClickhouseServer]:
    if find_spec("chdb") is None:
        raise ClickhouseStartError(
            f"PyPI's chdb is not installed for {sys.executable}; "
            "install it, or set CLICKHOUSE_HOST to use a server that runs already"
        )
    with scratch_folder() as folder:
        password, log = secrets.token_urlsafe(24), folder / "clickhouse.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "sandbox.clickhouse", "--path", str(folder / "data")],
                cwd=ROOT,
                # By the environment: arguments can be read by every user of the machine. Bare, as
                # the caller's CLICKHOUSE_* are no business here.
                env={
                    "PATH": os.defpath,
                    "LC_ALL": "C.UTF-8",
                    "HOME": str(folder),
                    "TZ": SERVER_TIMEZONE,
                    "CLICKHOUSE_PASSWORD": password,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                # Ctrl-C is its owner's: who decides when it stops.
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGKILL),
            )
        try:
            (folder / "clickhouse.pid").write_text(str(process.pid))
            port = _port_of(process, log)
            yield ClickhouseServer("127.0.0.1", port, USER, password, pid=process.pid)
        finally:
            # What it holds is thrown away, so nothing is waited for.
            process.kill()
            process.wait(STOP_SECONDS)
            if process.stdout:
                process.stdout.close()


def _port_of(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Wait for the line that tells the port; raise when there is none."""
    assert process.stdout is not None
    impatience = threading.Timer(START_SECONDS, process.kill)
    impatience.start()
    try:
        for line in process.stdout:
            name, _, value = line.decode(errors="replace").strip().partition("=")
            if name == "export CLICKHOUSE_PORT":
                return int(value)
    finally:
        impatience.cancel()
    tail = log.read_text(errors="replace").rstrip().splitlines()[-LOG_TAIL_LINES:]
    raise ClickhouseStartError("\n".join([f"chdb ended with status {process.wait()}:", *tail]))


def main(arguments: Iterable[str] | None = None) -> int:
    """Serve a folder until told to stop; print the settings by which it is found."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.clickhouse", description=main.__doc__)
    parser.add_argument("--path", type=Path, help="where the data lies; default: nowhere for long")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--user", default=USER)
    options = parser.parse_args(None if arguments is None else list(arguments))
    password = os.environ.get("CLICKHOUSE_PASSWORD") or secrets.token_urlsafe(24)
    with suppress(KeyboardInterrupt), unwinding_on_termination():
        if options.path is not None:
            _serve(options.path, options.host, options.port, options.user, password)
        else:
            with scratch_folder() as folder:
                _serve(folder / "data", options.host, options.port, options.user, password)
    return 0


def _serve(path: Path, host: str, port: int, user: str, password: str) -> None:
    # Here: the library is 600 MB, and whoever only wants a server must not load it.
    from sandbox.clickhouse_http import Engine, Server

    with Server(host, port, Engine(str(path)), user, password) as server:
        found = ClickhouseServer(host, server.server_address[1], user, password)
        for name, value in found.environment().items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
