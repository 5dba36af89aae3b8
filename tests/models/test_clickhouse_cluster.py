"""Models on a cluster of ClickHouse (CLICKHOUSE_CLUSTER): replicated, distributed, ON CLUSTER.

The engine here has no Keeper, which is what replicas and ON CLUSTER need. So dbt talks to a proxy
that writes down what it is asked, takes just these two out of it, and sends the rest to a server
with a cluster of one shard: distributed tables are real, and so is what comes out of them.
"""

from __future__ import annotations

import http.client
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import ROOT
from tests.models.scratch import ClickhouseScratch, clickhouse_scratch, model, reading
from tests.models.test_replacement import ABC, KEYS, MACROS, PERIODS, TOUCHED

D1, D2, D4 = date(2024, 12, 2), date(2024, 12, 3), date(2024, 12, 5)
CLUSTER = "shards"
CONFIG = f"""<clickhouse>
    <tcp_port>9000</tcp_port>
    <remote_servers><{CLUSTER}><shard>
        <internal_replication>true</internal_replication>
        <replica><host>127.0.0.1</host><port>9000</port></replica>
    </shard></{CLUSTER}></remote_servers>
</clickhouse>"""
MODELS = {
    "days": reading("days"),
    "whole": reading("whole", "whole", where="1 = 1"),
    "period": model(PERIODS.format(name="period", where="{{ in_window_periods() }}"), "period"),
    "key": model(KEYS, "key", "unique_key=['k', 'l']", touched_keys=TOUCHED),
    "joined": model(
        "select a.ds as ds, a.id as id, b.id as id_before from {{ ref('days') }} as a"
        " left join {{ ref('days') }} as b on a.id = b.id + 1 where {{ in_window('a.ds') }}"
    ),
    "seen": "{{ config(materialized='view') }} select * from {{ ref('days') }}",
}
ON_CLUSTER = re.compile(rb"\bon\s+cluster\s+[\"'`]?shards[\"'`]?", re.IGNORECASE)


@dataclass
class Proxy:
    """An address that passes requests on, without what needs a Keeper; the statements it was sent."""

    to: ClickhouseServer
    statements: list[str] = field(default_factory=list)

    def passed_on(self, body: bytes) -> bytes:
        """A statement as the server without a Keeper can do it."""
        self.statements.append(re.sub(r"\s+", " ", body.decode(errors="replace")).strip())
        if re.match(rb"\s*(/\*.*?\*/)?\s*system sync replica", body, re.IGNORECASE | re.DOTALL):
            return b"select 1"
        return ON_CLUSTER.sub(b"", body).replace(b"ReplicatedMergeTree", b"MergeTree")

    def server(self) -> ThreadingHTTPServer:
        """The address, not serving yet."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = proxy.passed_on(body) if body else body
                there = http.client.HTTPConnection(proxy.to.host, proxy.to.port, timeout=120)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "content-length"}
                there.request(self.command, self.path, body, headers)
                answer = there.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                there.close()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickhouseServer]:
    """A server of its own that is a cluster of one."""
    if os.environ.get("CLICKHOUSE_HOST"):
        pytest.skip("the cluster of a server that is given is not ours to define")
    folder = tmp_path_factory.mktemp("shard")
    (folder / "config.xml").write_text(CONFIG)
    password = secrets.token_hex(8)
    place = f"{folder / 'data'}?config-file={folder / 'config.xml'}"
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.clickhouse", "--path", place],
        cwd=ROOT,
        env={**os.environ, "CLICKHOUSE_PASSWORD": password},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = {}
    try:
        for line in process.stdout:
            name, _, value = line.strip().removeprefix("export ").partition("=")
            found[name] = value
            if name == "CLICKHOUSE_DB":
                break
        assert "CLICKHOUSE_PORT" in found, "the server did not come up"
        yield ClickhouseServer(
            "127.0.0.1", int(found["CLICKHOUSE_PORT"]), found["CLICKHOUSE_USER"], password
        )
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def built(
    shard: ClickhouseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ClickhouseScratch, Proxy]]:
    """Each model built from nothing, and then for a window of changed rows."""
    proxy = Proxy(shard)
    serving = proxy.server()
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    there = ClickhouseServer("127.0.0.1", serving.server_address[1], shard.user, shard.password)
    files = {f"{name}.sql": text for name, text in MODELS.items()}
    folder = tmp_path_factory.mktemp("cluster")
    settings = {"CLICKHOUSE_CLUSTER": CLUSTER}
    with clickhouse_scratch(there, folder, files, MACROS, settings) as dbt:
        columns = "ds date, k text, l int, n int, gone bool"
        dbt.hand("days", ABC)
        dbt.hand("whole", ABC)
        dbt.hand("period", "('2024-12-31'), ('2025-01-01'), ('2025-02-03')", "ds date")
        dbt.hand(
            "key", "('2024-12-02', 'a', 1, 10, null), ('2024-12-03', 'b', 1, 1, null)", columns
        )
        dbt.run(*MODELS)
        dbt.hand("days", "('2024-12-02', 10, 'x'), ('2024-12-05', 40, null)")
        dbt.hand("whole", "('2024-12-02', 10, 'x')")
        dbt.hand("period", "('2024-12-31'), ('2025-01-01'), ('2025-01-01')", "ds date")
        dbt.hand(
            "key", "('2024-12-02', 'a', 1, 11, null), ('2024-12-03', 'b', 1, 2, null)", columns
        )
        dbt.run(*MODELS, days=[D1, D2, "2024-12-31"])
        yield dbt, proxy
    serving.shutdown()
    serving.server_close()


def test_rows_are_replaced_as_on_one_server(built: tuple[ClickhouseScratch, Proxy]) -> None:
    dbt, _ = built
    assert dbt.rows("marts.days") == [(D1, 10, "x"), (D4, 4, "d")]
    assert dbt.rows("marts.seen") == dbt.rows("marts.days")
    assert dbt.rows("marts.joined") == [(D1, 10, None), (D4, 4, 3)]
    assert dbt.rows("marts.whole") == [(D1, 10, "x")]
    assert dbt.rows("marts.key") == [("a", 1, 11), ("b", 1, 2)]
    assert dbt.rows("marts.period") == [
        ("monthly", date(2024, 12, 1), 1),
        ("monthly", date(2025, 1, 1), 1),
        ("monthly", date(2025, 2, 1), 1),
        ("weekly", date(2024, 12, 30), 3),
        ("weekly", date(2025, 2, 3), 1),
    ]


def test_tables_are_distributed_over_local_ones(built: tuple[ClickhouseScratch, Proxy]) -> None:
    dbt, _ = built
    found = dbt.rows("(select name, engine from system.tables where database = 'marts')")
    tables = [name for name in MODELS if name != "seen"]
    expected = [(name, "Distributed") for name in tables]
    expected += [(f"{name}_local", "MergeTree") for name in tables]
    assert found == sorted([*expected, ("seen", "View")], key=str), (
        "and nothing is left beside them"
    )


def test_all_that_is_defined_is_defined_on_the_cluster(
    built: tuple[ClickhouseScratch, Proxy],
) -> None:
    dbt, proxy = built
    said = [re.sub(r"^/\*.*?\*/ ?", "", s) for s in proxy.statements]
    defined = [
        s
        for s in said
        if re.match(r"(create|alter|drop|rename|exchange|system sync)\b", s, re.IGNORECASE)
        and not re.search(
            r"\bhand\b|__dbt_exchange_test|create database if not exists marts$|sync$", s
        )
    ]
    assert len(defined) > 30
    assert [s for s in defined if 'on cluster "shards"' not in s.lower()] == []
    made = [s for s in defined if s.startswith("create table") and "_begun" not in s]
    assert made
    assert [s for s in made if "engine = ReplicatedMergeTree" not in s] == []
    over = [s for s in defined if s.startswith("create or replace table")]
    assert over
    for s in over:
        assert re.search(r"engine = Distributed\('shards', 'marts', '\w+_local', rand\(\)\)", s), s
    replaced = [s for s in defined if "replace partition" in s]
    assert len(replaced) == 2, "a statement a model of days"
    for s in replaced:
        side = s.split(" from ")[1].split()[0].rstrip(",")
        synced = [
            x for x in said[: said.index(s)] if x.startswith("system sync replica") and side in x
        ]
        assert synced, "every replica has what is put in its place"
    for s in said:
        if s.startswith("insert into"):
            assert not re.search(r"_local\b", s), f"rows go through the distributed table: {s}"
    assert dbt.engine == "clickhouse"
