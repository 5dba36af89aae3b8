"""A client of ClickHouse's HTTP interface, as small as landing needs it: bytes in, lines out.

Every statement has a connection of its own: a server may close an idle one at any moment, and a
statement that writes must not be sent twice because nobody knows whether it arrived.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from ingestion.errors import SinkError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 3_600.0
MESSAGE_BYTES = 1 << 16
# Of every statement, whatever the server's profile says.
SETTINGS: Mapping[str, str] = {
    "async_insert": "0",
    # Errors as a status, not behind the first rows; an answer when it is done and not before.
    "wait_end_of_query": "1",
    "mutations_sync": "2",
    "alter_sync": "2",
    # Text exactly as it is written down: no guesses at dates, doubles to their last bit.
    "date_time_input_format": "basic",
    "date_time_output_format": "simple",
    "precise_float_parsing": "1",
    "output_format_json_quote_64bit_integers": "0",
    "session_timezone": "UTC",
    "join_use_nulls": "1",
}
# An identical block is other rows that look the same, never a mistake of ours. Newer servers, which
# have the settings below it, do not ask the first one any more.
NO_DEDUPLICATION: Mapping[str, str] = {
    "insert_deduplicate": "0",
    "deduplicate_insert": "disable",
    "deduplicate_insert_select": "disable",
}
UNKNOWN_TABLE, TABLE_EXISTS, UNKNOWN_DATABASE, INCOMPATIBLE_COLUMNS = 60, 57, 81, 122
SECRET = re.compile(r"\bpassword=[^&\s]*", re.IGNORECASE)


class ClickhouseError(SinkError):
    """What the server answered instead; `code` is ClickHouse's, 0 if there was no answer."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Clickhouse:
    """A server, and who we are to it."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str = "default"
    cluster: str = ""
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)

    def connected(self) -> Clickhouse:
        """The same, once it has answered, with the settings that this server knows.

        Raises SinkError when it does not answer, or has not the whole calendar.
        """
        first, last, version, known = self.row(
            "select toString(toDate32('0001-01-01')), toString(toDate32('9999-12-31')), version(),"
            " (select groupArray(name) from system.settings where name in {names:Array(String)})",
            names=list(NO_DEDUPLICATION),
        )
        if (first, last) != ("0001-01-01", "9999-12-31"):
            # It would move them to the years that it has, without a word.
            raise ClickhouseError(
                f"ClickHouse {version} has no days before 1900 or after 2299: use a newer one"
            )
        never_dropped = {name: NO_DEDUPLICATION[name] for name in known}
        return replace(self, settings={**self.settings, **never_dropped})

    @property
    def on_cluster(self) -> str:
        """What a statement says that is for all servers of a cluster, if there is one."""
        return f" on cluster {quoted(self.cluster)}" if self.cluster else ""

    def run(self, statement: str, **values: object) -> None:
        """Run a statement; `values` are its parameters, `{name:Type}`."""
        with self._answered(statement, values) as response:
            response.read()

    def rows(self, query: str, **values: object) -> Iterator[list[Any]]:
        """The rows of a query as they arrive; instants and days are texts."""
        with self._answered(f"{query} format JSONCompactEachRow", values) as response:
            while True:
                with self._speaking():
                    line = response.readline()
                if not line:
                    return
                yield json.loads(line)

    def row(self, query: str, **values: object) -> list[Any]:
        """The one row of a query."""
        (found,) = self.rows(query, **values)
        return found

    def insert(self, statement: str, body: Iterable[bytes], **values: object) -> None:
        """Run an insert whose rows follow it as a stream of bytes; constant memory.

        When the stream raises, what the server has got of it is not inserted (it may be, of a very
        large one: insert into a table of your own).
        """
        with self._answered(statement, values, body) as response:
            response.read()

    @contextmanager
    def _answered(
        self, statement: str, values: Mapping[str, object], body: Iterable[bytes] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        query = {"database": self.database, "query_id": str(uuid.uuid4()), **self.settings}
        query |= {f"param_{name}": literal(value) for name, value in values.items()}
        if body is not None:
            query["query"] = statement
        connection = http.client.HTTPConnection(self.host, self.port, timeout=CONNECT_SECONDS)
        try:
            with self._speaking():
                connection.connect()
                connection.sock.settimeout(ANSWER_SECONDS)
                connection.putrequest("POST", f"/?{urllib.parse.urlencode(query)}")
                connection.putheader("Authorization", self._credentials())
                connection.putheader("Connection", "close")
            if body is None:
                with self._speaking():
                    content = statement.encode()
                    connection.putheader("Content-Length", str(len(content)))
                    connection.endheaders(content)
            else:
                self._stream(connection, body)
            with self._speaking():
                response = connection.getresponse()
                if response.status != http.HTTPStatus.OK:
                    raise _refusal(response)
            yield response
        finally:
            connection.close()

    def _stream(self, connection: http.client.HTTPConnection, body: Iterable[bytes]) -> None:
        with self._speaking():
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
        for chunk in body:  # whatever the source raises is the source's
            if chunk:
                try:
                    connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                except (BrokenPipeError, ConnectionResetError):
                    return  # it has answered before the end: with an error, which is worth reading
        with self._speaking():
            connection.send(b"0\r\n\r\n")

    def _credentials(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            where = f"{self.user}@{self.host}:{self.port}"
            raise ClickhouseError(
                f"the warehouse {where} does not answer: {type(error).__name__}: {error}"
            ) from error


def _refusal(response: http.client.HTTPResponse) -> ClickhouseError:
    code = int(response.headers.get("X-ClickHouse-Exception-Code") or 0)
    message = response.read(MESSAGE_BYTES).decode(errors="replace").strip()
    message = message or f"HTTP status {response.status}"
    if code in (UNKNOWN_TABLE, UNKNOWN_DATABASE):
        message += "\nRun first: python -m ingestion init"
    return ClickhouseError(f"the warehouse refused it: {SECRET.sub('password=…', message)}", code)


def literal(value: object) -> str:
    """A value as ClickHouse reads it from a parameter of its type."""
    match value:
        case None:
            return "\\N"
        case bool():
            return str(int(value))
        case datetime():
            return instant(value)
        case date():
            return value.isoformat()
        case list() | tuple():
            return "[" + ",".join(quoted(str(each)) for each in value) + "]"
        case _:
            # As in TabSeparated: a backslash begins an escape.
            text = str(value).replace("\\", "\\\\")
            return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def instant(value: datetime) -> str:
    """An aware instant as ClickHouse writes one of DateTime64(6, 'UTC')."""
    utc = value.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(sep=" ", timespec="microseconds")


def quoted(text: str) -> str:
    """A text as a literal of a statement."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def named(*parts: str) -> str:
    """A name, qualified and quoted."""
    return ".".join("`" + part.replace("\\", "\\\\").replace("`", "\\`") + "`" for part in parts)
