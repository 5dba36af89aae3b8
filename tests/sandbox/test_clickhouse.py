"""The throw-away ClickHouse: what a real server would answer, and that nothing of it is left."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from sandbox import clickhouse
from sandbox.clickhouse import (
    ClickhouseRefusedError,
    ClickhouseServer,
    ClickhouseStartError,
    clickhouse_server,
)
from sandbox.clickhouse_http import COMPRESSORS, as_insert, output_format

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30.0
ROWS = 100_000

# Starts a server, says where it is, and waits to be ended.
HOLDER = """
import threading
from sandbox.clickhouse import clickhouse_server
with clickhouse_server() as server:
    print(server.pid, flush=True)
    threading.Event().wait()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ClickhouseServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CLICKHOUSE_HOST", raising=False)
        with clickhouse_server() as running:
            yield running


@pytest.fixture
def raw(server: ClickhouseServer) -> Iterator[ClickhouseServer]:
    """A server with a table raw.t (n Int64, s Nullable(String))."""
    server.ask("create database raw")
    server.ask("create table raw.t (n Int64, s Nullable(String)) engine MergeTree order by n")
    yield server
    server.empty()


def client(server: ClickhouseServer, **how: Any) -> Client:
    """clickhouse-connect, as dbt uses it."""
    made: Client = clickhouse_connect.get_client(
        host=server.host,
        port=server.port,
        username=server.user,
        password=server.password,
        **how,
    )
    return made


def request(
    server: ClickhouseServer, path: str, body: bytes = b"", method: str = "POST", **headers: Any
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """A request as the wire has it; underscores of header names are hyphens."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_SECONDS)
    credentials = b64encode(f"{server.user}:{server.password}".encode()).decode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if not any("ClickHouse" in name or name == "Authorization" for name in named):
        named["Authorization"] = f"Basic {credentials}"
    connection.request(method, path, body or None, named)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


# --- who may --------------------------------------------------------------------------------------


def test_ping_asks_for_no_password(server: ClickhouseServer) -> None:
    status, _, body = request(server, "/ping", method="GET", Authorization="Basic nonsense")
    assert (status, body) == (200, b"Ok.\n")


def test_the_ways_to_say_who_one_is(server: ClickhouseServer) -> None:
    header: dict[str, Any] = {"X_ClickHouse_User": server.user, "X_ClickHouse_Key": server.password}
    assert request(server, "/?query=select%201", **header)[0] == 200
    url = f"/?query=select%201&user={server.user}&password={server.password}"
    assert request(server, url, X_ClickHouse_Format="TSV")[2] == b"1\n"
    assert request(server, "/?query=select%201")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X_ClickHouse_User": "vitrina", "X_ClickHouse_Key": "wrong"},
        {"X_ClickHouse_User": "nobody", "X_ClickHouse_Key": ""},
        {"X_ClickHouse_Format": "TSV"},  # nobody at all is `default` without a password
        {"Authorization": "Basic " + b64encode(b"vitrina:").decode()},
        {"Authorization": "Basic nonsense"},
    ],
)
def test_a_wrong_password_is_refused(server: ClickhouseServer, headers: dict[str, Any]) -> None:
    status, answered, body = request(server, "/?query=select%201", **headers)
    assert (status, answered["X-ClickHouse-Exception-Code"]) == (403, "516")
    assert b"Authentication failed" in body


# --- statements -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "status", "code"),
    [
        ("select", 400, "62"),
        ("select 1; select 2", 400, "62"),
        ("select * from nowhere.t", 404, "81"),
        ("select * from raw.nowhere", 404, "60"),
        ("select nothing from raw.t", 404, "47"),
        ("select noSuchFunction()", 404, "46"),
        ("select throwIf(1)", 500, "395"),
        ("insert into raw.t format TSV\nnot a number\tx\n", 400, "27"),
        ("insert into raw.t format CSV\n1,2," + "\u044e" * 500 + "\n", 400, "117"),
        ("", 400, "62"),
    ],
)
def test_errors_have_their_code_and_status(
    raw: ClickhouseServer, statement: str, status: int, code: str
) -> None:
    answered = request(raw, "/", statement.encode())
    assert (answered[0], answered[1]["X-ClickHouse-Exception-Code"]) == (status, code), answered[2]
    assert answered[2].startswith(f"Code: {code}. DB::Exception".encode())
    assert raw.ask("select count() from raw.t") == b"0\n"


def test_an_unknown_setting_and_an_unknown_database(server: ClickhouseServer) -> None:
    assert request(server, "/?query=select%201&no_such_thing=1")[0] == 404
    assert request(server, "/?query=select%201&database=nowhere")[0] == 404


def test_a_get_may_not_write(raw: ClickhouseServer) -> None:
    status, headers, _ = request(raw, "/?query=truncate%20table%20raw.t", method="GET")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "164")
    assert request(raw, "/?query=select%201&max_threads=1", method="GET")[2] == b"1\n"


def test_settings_are_the_querys_own(server: ClickhouseServer) -> None:
    asks = "select getSetting('join_use_nulls')"
    assert server.ask(asks, join_use_nulls="1") == b"true\n"
    assert server.ask(asks) == b"false\n"
    server.ask("set join_use_nulls = 1")
    assert server.ask(asks) == b"false\n"


def test_a_session_keeps_what_was_set_and_its_temporary_tables(server: ClickhouseServer) -> None:
    ours, other = client(server, session_id="ours"), client(server, session_id="other")
    ours.command("set join_use_nulls = 1")
    ours.command("create temporary table t (n Int64)")
    other.command("create temporary table t (n Int64)")
    ours.insert("t", [[7]], column_names=["n"])
    assert ours.command("select getSetting('join_use_nulls'), (select count() from t)") == [
        "true",
        "1",
    ]
    assert other.command("select getSetting('join_use_nulls'), (select count() from t)") == [
        "false",
        "0",
    ]
    # Settings of one request don't stay in a session.
    ours.command("select 1", settings={"max_block_size": 17})
    assert ours.command("select getSetting('max_block_size')") != 17


def test_a_session_is_locked_while_in_use_and_checked_if_asked(server: ClickhouseServer) -> None:
    sleeping = threading.Thread(
        target=server.ask,
        args=["select sleepEachRow(0.2) from numbers(5) settings max_block_size = 1"],
        kwargs={"session_id": "busy"},
    )
    sleeping.start()
    time.sleep(0.3)
    with pytest.raises(ClickhouseRefusedError, match="SESSION_IS_LOCKED"):
        server.ask("select 1", session_id="busy")
    sleeping.join()
    assert server.ask("select 1", session_id="busy", session_check="1") == b"1\n"
    server.ask("select 1", session_id="busy", close_session="1")
    with pytest.raises(ClickhouseRefusedError, match="SESSION_NOT_FOUND"):
        server.ask("select 1", session_id="busy", session_check="1")


def test_queries_run_side_by_side(server: ClickhouseServer) -> None:
    slow = "select sleepEachRow(0.25) from numbers(4) settings max_block_size = 1"
    began = time.monotonic()
    both = [threading.Thread(target=server.ask, args=[slow]) for _ in range(2)]
    for thread in both:
        thread.start()
    assert server.ask("select 1") == b"1\n"
    assert time.monotonic() - began < 0.9  # a second each
    for thread in both:
        thread.join()
    assert time.monotonic() - began < 1.9


def test_parameters_and_formats(server: ClickhouseServer) -> None:
    text = "it's a\ttab, a \\ and\na line: \u044e"
    found = client(server).query(
        "select {n:Int64} + 1, {s:String}, {d:Date32}",
        parameters={"n": 1, "s": text, "d": "1900-01-02"},
    )
    assert [str(cell) for cell in found.result_rows[0]] == ["2", text, "1900-01-02"]
    fields = client(server, form_encode_query_params=True)  # a form of several parts
    assert fields.query("select {s:String}", parameters={"s": text}).result_rows == [(text,)]
    _, headers, body = request(server, "/?default_format=JSONEachRow", b"select 1 as one")
    assert (headers["X-ClickHouse-Format"], body) == ("JSONEachRow", b'{"one":1}\n')
    _, headers, body = request(server, "/", b"select 1 as one format CSVWithNames")
    assert (headers["X-ClickHouse-Format"], body) == ("CSVWithNames", b'"one"\n1\n')


def test_query_id_zone_and_summary(raw: ClickhouseServer) -> None:
    _, headers, _ = request(
        raw, "/?query_id=mine", b"insert into raw.t select number, 'x' from numbers(5)"
    )
    assert headers["X-ClickHouse-Query-Id"] == "mine"
    assert headers["X-ClickHouse-Timezone"] == clickhouse.SERVER_TIMEZONE
    assert json.loads(headers["X-ClickHouse-Summary"])["written_rows"] == "5"


# --- inserts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_many_blocks_by_clickhouse_connect(raw: ClickhouseServer, compress: str | bool) -> None:
    """It sends a frame of compression a block, and may read them compressed too."""
    connected = client(raw, compress=compress)
    connected.insert("raw.t", [[n, None] for n in range(ROWS)], column_names=["n", "s"])
    assert connected.query("select count(), sum(n) from raw.t").result_rows == [
        (ROWS, ROWS * (ROWS - 1) // 2)
    ]
    assert len(connected.query("select * from raw.t").result_rows) == ROWS


def test_frames_one_after_the_other(raw: ClickhouseServer) -> None:
    rows = [f"{n}\t\\N\n".encode() for n in range(1, 6)]
    url = "/?query=insert%20into%20raw.t%20format%20TSV"
    for encoding, pack in COMPRESSORS.items():
        body = b"".join(map(pack, rows))
        assert request(raw, url, body, Content_Encoding=encoding)[0] == 200
        cut = request(raw, url, body[:-3], Content_Encoding=encoding)
        assert (cut[0], cut[1]["X-ClickHouse-Exception-Code"]) == (400, "33")
    assert raw.ask("select count(), sum(n) from raw.t") == b"20\t60\n"
    assert request(raw, url, b"x", Content_Encoding="br")[0] == 501


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"insert into raw.t format TSV\n1\tx\n2\t\\N\n", [("1", "x"), ("2", "\\N")]),
        (b'insert into raw.t (s, n) FORMAT CSV\n"a, b",1\n', [("1", "a, b")]),
        (b'/* insert; */ insert into raw.t format JSONEachRow {"n": 1}', [("1", "\\N")]),
        (
            b"insert into raw.t values (1, 'format TSV'), (2, ';')",
            [("1", "format TSV"), ("2", ";")],
        ),
        (
            b"insert into raw.t settings max_threads = 1 format TSV\n1\tformat CSV\n",
            [("1", "format CSV")],
        ),
        (b"insert into raw.t select 1, 'select' format Null", [("1", "select")]),
        (b"insert into raw.t format TSV\n", []),
    ],
)
def test_statements_and_their_rows(
    raw: ClickhouseServer, body: bytes, expected: list[tuple[str, str]]
) -> None:
    assert request(raw, "/", body)[0] == 200
    found = raw.ask("select n, s from raw.t order by n").decode().splitlines()
    assert [tuple(line.split("\t")) for line in found] == expected


def test_where_a_statement_ends() -> None:
    insert = as_insert(b"INSERT INTO t (`format x`) FORMAT Native\n\x00;SELECT")
    assert insert is not None
    assert (insert.statement, insert.format) == ("INSERT INTO t (`format x`) ", "Native")
    assert insert.rows == b"\x00;SELECT"
    assert as_insert(b"insert into t select 1 format TSV\n") is None
    assert output_format(b"select ';', '''', 1 -- ;\n format TSV ;\n -- end") == "TSV"


def test_a_body_that_breaks_off_inserts_nothing(raw: ClickhouseServer) -> None:
    """As when the client is killed in the middle of its stream."""
    credentials = b64encode(f"{raw.user}:{raw.password}".encode()).decode()
    head = (
        "POST /?query=insert%20into%20raw.t%20format%20TSV HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Basic {credentials}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for end in (b"4\r\n1\tx\n\r\n", b"4\r\n1\tx\n\r\n3\r\n2\t", b"4\r\n1\tx\n\r\nnonsense\r\n"):
        with socket.create_connection((raw.host, raw.port)) as connection:
            connection.sendall(head.encode() + end)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert raw.ask("select count() from raw.t") == b"0\n"


def test_a_large_insert_in_constant_memory(raw: ClickhouseServer) -> None:
    def rows() -> Generator[bytes, None, None]:
        for block in range(200):
            yield b"".join(b"%d\t%s\n" % (block, b"x" * 1000) for _ in range(1_000))

    began = _resident_mb(raw)
    client(raw).raw_insert("raw.t", ["n", "s"], rows(), fmt="TSV")
    assert raw.ask("select count() from raw.t") == b"200000\n"
    assert (
        _resident_mb(raw) - began < 450
    )  # MB; the body has 200, a block of the engine's up to 256


def _resident_mb(server: ClickhouseServer) -> float:
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(found.split()[1]) / 1024


def test_native_block_compression_is_refused(server: ClickhouseServer) -> None:
    for name in ("compress", "decompress"):
        with pytest.raises(ClickhouseRefusedError, match="NOT_IMPLEMENTED"):
            server.ask("select 1", b"", **{name: "1"})


def test_clickhouse_connect_tells_what_went_wrong(server: ClickhouseServer) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        client(server).query("select * from nothing")


# --- its life -------------------------------------------------------------------------------------


def running(pid: int) -> bool:
    try:
        return "sandbox.clickhouse" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_its_owner(end: signal.Signals) -> None:
    env = {name: value for name, value in os.environ.items() if name != "CLICKHOUSE_HOST"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=ROOT, env=env, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    pid = int(holder.stdout.readline())
    assert running(pid)
    holder.send_signal(end)
    holder.wait(PATIENCE_SECONDS)
    holder.stdout.close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_its_databases_go_and_come(raw: ClickhouseServer) -> None:
    assert raw.databases() == ["raw"]
    raw.empty()
    assert raw.databases() == []


def test_a_server_of_the_environment_is_taken_if_it_is_empty(
    server: ClickhouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    with clickhouse_server() as found:
        assert (found.port, found.pid) == (server.port, None)
        found.ask("create database marts")
    assert server.databases() == []
    server.ask("create database ods")
    with pytest.raises(ClickhouseStartError, match="ods"), clickhouse_server():
        pass
    assert server.databases() == ["ods"]
    server.empty()


def test_the_password_is_in_no_argument(server: ClickhouseServer) -> None:
    shown = Path(f"/proc/{server.pid}/cmdline").read_text()
    assert server.password not in shown
    assert server.password not in repr(server)
