"""The social app's ClickHouse: the tables `feed_actions` and `message_actions`.

Data flow: rows (`sandbox.social`) -> JSONEachRow -> the tables
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import quote

from sandbox.clickhouse import ClickhouseServer

Row = Mapping[str, Any]
TABLES = ("feed_actions", "message_actions")
SPELLINGS = ("reciever_id", "receiver_id")
ROWS_AT_ONCE = 20_000

_ATTRIBUTES = {
    "gender": "Nullable(Int8)",
    "age": "Nullable(Int16)",
    "country": "LowCardinality(String)",
    "city": "String",
    "os": "LowCardinality(Nullable(String))",
    "source": "LowCardinality(String)",
    "exp_group": "Int8",
}
_TYPES: Mapping[str, Mapping[str, str]] = {
    "feed_actions": {
        "user_id": "UInt32",
        "post_id": "UInt32",
        "action": "LowCardinality(String)",
        "time": "DateTime",
        **_ATTRIBUTES,
    },
    "message_actions": {
        "user_id": "UInt32",
        "reciever_id": "Nullable(UInt32)",
        "receiver_id": "Nullable(UInt32)",
        "time": "DateTime",
        **_ATTRIBUTES,
    },
}


@dataclass(frozen=True)
class FeedServer:
    """The app's database on a running ClickHouse."""

    server: ClickhouseServer = field(repr=False)
    database: str

    @property
    def url(self) -> str:
        """Where ingestion finds it."""
        password = quote(self.server.password, safe="")
        return (
            f"clickhouse://{quote(self.server.user, safe='')}:{password}"
            f"@{self.server.host}:{self.server.port}/{self.database}"
        )

    def create(
        self,
        spellings: Iterable[str] = SPELLINGS[:1],
        types: Mapping[str, str] | None = None,
    ) -> None:
        """Make the empty tables anew. `types` gives columns other types than ours."""
        kept = set(spellings)
        for table, columns in _TYPES.items():
            definitions = ", ".join(
                f"`{name}` {(types or {}).get(name, declared)}"
                for name, declared in columns.items()
                if name not in SPELLINGS or name in kept
            )
            self.ask(f"drop table if exists {table} sync")
            self.ask(
                f"create table {table} ({definitions}) engine = MergeTree order by time"
                " settings allow_nullable_key = 1"
            )

    def insert(self, table: str, rows: Iterable[Row]) -> int:
        """Add rows and return how many; keys that are no columns of the table are left out."""
        given, added = iter(rows), 0
        while batch := list(islice(given, ROWS_AT_ONCE)):
            lines = "\n".join(json.dumps({k: _cell(v) for k, v in row.items()}) for row in batch)
            self.ask(
                f"insert into {table} settings input_format_skip_unknown_fields = 1"
                " format JSONEachRow",
                lines.encode(),
            )
            added += len(batch)
        return added

    def ask(self, statement: str, rows: bytes = b"") -> bytes:
        """Run a statement in the app's database."""
        return self.server.ask(statement, rows, database=self.database)


@contextmanager
def feed_server(server: ClickhouseServer, database: str = "social") -> Iterator[FeedServer]:
    """Empty tables in a database of their own, which goes at the end."""
    server.ask(f"drop database if exists {database} sync")
    server.ask(f"create database {database}")
    made = FeedServer(server, database)
    made.create()
    try:
        yield made
    finally:
        server.ask(f"drop database if exists {database} sync")


def _cell(value: object) -> object:
    """An instant as seconds since 1970: text would be read in the server's zone."""
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return value
