"""ClickHouse's HTTP interface over chDB, the engine itself in a library: for the sandbox and tests.

Every request has a connection of its own to the engine, a session one that stays: settings, the
database in use and temporary tables are a connection's, and queries of several run side by side.
Bodies of inserts stream into the engine. What a real server has besides (users, `system.query_log`,
replication, its native protocol) the library has not.
"""

import base64
import gzip
import hmac
import json
import re
import sys
import threading
import time
import urllib.parse
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import policy
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import chdb
import lz4.frame
from chdb import ChdbError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

READ_BYTES = 1 << 17
HEAD_BYTES = 1 << 18  # the statement of an insert ends before this, its rows follow
SESSION_SECONDS = 60.0
ERROR_CODE = re.compile(r"Code:\s*(\d+)")
# What of the url is the interface's own; the rest are settings.
TRANSPORT = {
    "query",
    "database",
    "default_format",
    "user",
    "password",
    "role",
    "quota_key",
    "query_id",
    "session_id",
    "session_timeout",
    "session_check",
    "close_session",
    "compress",
    "decompress",
    "enable_http_compression",
    "http_zlib_compression_level",
    "wait_end_of_query",
    "buffer_size",
    "client_protocol_version",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "cancel_http_readonly_queries_on_client_close",
}
# The data is thrown away with the server, so nothing waits for a disk.
UNHURRIED = {"fsync_metadata": "0"}
# Of HTTPHandler's mapping, the codes that clients act on; anything else is 500.
STATUSES = {
    **dict.fromkeys((194,), 401),
    **dict.fromkeys((192, 193, 512, 516), 403),
    **dict.fromkeys((46, 47, 50, 56, 60, 73, 81, 115, 372), 404),
    **dict.fromkeys((6, 15, 26, 27, 33, 36, 38, 41, 42, 43, 44, 53, 62, 70, 72, 117), 400),
    **dict.fromkeys((373,), 423),
    **dict.fromkeys((48,), 501),
}
CANNOT_PARSE_INPUT, CANNOT_READ_ALL_DATA, NOT_IMPLEMENTED, SYNTAX_ERROR = 27, 33, 48, 62
SESSION_NOT_FOUND, SESSION_IS_LOCKED, AUTHENTICATION_FAILED, UNKNOWN_ERROR = 372, 373, 516, 1002

# What can hold a semicolon or a keyword that is none, then the words that decide.
TOKENS = re.compile(
    rb"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|`(?:[^`\\]|\\.)*`|--[^\n]*|/\*.*?\*/"
    rb"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"
    rb"|(?P<end>;)"
    rb"|\bFORMAT\s+(?P<format>[A-Za-z]\w*)"
    rb"|\b(?P<word>[A-Za-z_]\w*)\b"
    rb"|(?P<other>[^\s\w])",
    re.IGNORECASE | re.DOTALL,
)
NOT_A_STREAM = {b"SELECT", b"WITH", b"VALUES", b"INFILE"}
AFTER_FORMAT = re.compile(rb"[ \t]*;?[ \t]*(?:\r?\n)?")


class ClickhouseError(Exception):
    """An error as a server reports it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Insert:
    """An insert of rows that follow it: the statement without its format, and what was read of them."""

    statement: str
    format: str
    rows: bytes


def as_insert(head: bytes) -> Insert | None:
    """Take the beginning of a body apart; None when no rows in a format follow a statement."""
    place = None
    for token in TOKENS.finditer(head):
        word = (token["word"] or b"").upper()
        if place is None:
            if token["format"] or token["other"] or word not in (b"", b"INSERT"):
                return None
            place = token.start() if word else None
        elif token["end"] or word in NOT_A_STREAM:
            return None
        elif token["format"]:
            skipped = AFTER_FORMAT.match(head, token.end())
            rows = head[skipped.end() if skipped else token.end() :]
            return Insert(head[place : token.start()].decode(), token["format"].decode(), rows)
    return None


def output_format(statement: bytes) -> str | None:
    """The format that a statement names, if it does. Raises ClickhouseError for several statements."""
    ended, found = False, None
    for token in TOKENS.finditer(statement):
        if token["end"]:
            ended = True
        elif ended and (token["word"] or token["format"] or token["other"]):
            raise ClickhouseError(
                SYNTAX_ERROR,
                f"Code: {SYNTAX_ERROR}. DB::Exception: Syntax error (Multi-statements are not"
                " allowed). (SYNTAX_ERROR)",
            )
        if token["format"]:
            found = token["format"].decode()
    return found


@dataclass(frozen=True)
class Answer:
    """What a statement gave: bytes in a format, and counts for the summary."""

    body: bytes
    format: str
    summary: Mapping[str, str]


@dataclass
class Session:
    """A connection that a client comes back to."""

    connection: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    expires: float = 0.0


class Engine:
    """The library, opened on a folder; the one place that talks to it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept = chdb.connect(path)  # the engine lives as long as any connection
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self.version, self.timezone = str(
            self._kept.query("select version(), timezone()", "TSV")
        ).split()

    @contextmanager
    def connection(self, query: Mapping[str, str]) -> Iterator[Any]:
        """A connection for one request: that of its session, or a new one."""
        name = query.get("session_id")
        if not name:
            fresh = chdb.connect(self._path)
            try:
                yield fresh
            finally:
                fresh.close()
            return
        session = self._session(name, must_exist=query.get("session_check") == "1")
        if not session.lock.acquire(blocking=False):
            raise ClickhouseError(
                SESSION_IS_LOCKED,
                f"Code: {SESSION_IS_LOCKED}. DB::Exception: Session {name} is locked by a"
                " concurrent client. (SESSION_IS_LOCKED)",
            )
        try:
            yield session.connection
        finally:
            seconds = float(query.get("session_timeout") or SESSION_SECONDS)
            session.expires = time.monotonic() + seconds
            session.lock.release()
            if query.get("close_session") == "1":
                self._forget([name])

    def _session(self, name: str, *, must_exist: bool) -> Session:
        with self._lock:
            now = time.monotonic()
            expired = [
                other
                for other, session in self._sessions.items()
                if session.expires < now and not session.lock.locked()
            ]
            for other in expired:
                self._sessions.pop(other).connection.close()
            if name not in self._sessions:
                if must_exist:
                    raise ClickhouseError(
                        SESSION_NOT_FOUND,
                        f"Code: {SESSION_NOT_FOUND}. DB::Exception: Session {name} not found."
                        " (SESSION_NOT_FOUND)",
                    )
                self._sessions[name] = Session(chdb.connect(self._path))
            # Not before its first request has begun.
            self._sessions[name].expires = now + SESSION_SECONDS
            return self._sessions[name]

    def _forget(self, names: Iterable[str]) -> None:
        with self._lock:
            for name in names:
                if session := self._sessions.pop(name, None):
                    session.connection.close()


def prepared(
    connection: Any, query: Mapping[str, str], *, database: str | None, reads_only: bool
) -> list[str]:
    """Apply a request's database, parameters and settings; returns the settings, to be reset."""
    if database:
        connection.query(f"USE {_quoted(database, '`')}")
    settings = {**UNHURRIED, **{n: value for n, value in query.items() if n not in TRANSPORT}}
    if reads_only:
        settings["readonly"] = "2"
    for name in settings:
        if not re.fullmatch(r"\w+", name):
            raise ClickhouseError(
                115, f"Code: 115. DB::Exception: Unknown setting '{name}'. (UNKNOWN_SETTING)"
            )
    assigned = ", ".join(f"{name} = {_quoted(value, chr(39))}" for name, value in settings.items())
    connection.query(f"SET {assigned}")
    return [name for name in settings if not name.startswith("param_")]


def executed(connection: Any, statement: bytes, wanted_format: str) -> Answer:
    """Run a statement that no rows follow."""
    began = time.perf_counter_ns()
    chosen = output_format(statement) or wanted_format
    result = connection.query(statement.decode(), wanted_format)
    summary = {
        "read_rows": str(result.storage_rows_read()),
        "read_bytes": str(result.storage_bytes_read()),
        "written_rows": str(result.rows_written()),
        "written_bytes": str(result.bytes_written()),
        "total_rows_to_read": "0",
        "result_rows": str(result.rows_read()),
        "result_bytes": str(result.size()),
        "elapsed_ns": str(time.perf_counter_ns() - began),
    }
    return Answer(result.bytes() or b"", chosen, summary)


def inserted(connection: Any, insert: Insert, more: Iterable[bytes]) -> Answer:
    """Stream rows into the engine; a body that breaks off cancels what the engine has not written."""
    began = time.perf_counter_ns()
    with connection.send_insert(insert.statement, insert.format) as stream:
        size = len(insert.rows)
        if insert.rows:
            stream.append(insert.rows)
        for chunk in more:
            size += len(chunk)
            stream.append(chunk)
        result = stream.finish()
    summary = {
        "read_rows": str(result.rows_written),
        "read_bytes": str(size),
        "written_rows": str(result.rows_written),
        "written_bytes": str(size),
        "total_rows_to_read": "0",
        "result_rows": str(result.rows_written),
        "result_bytes": str(size),
        "elapsed_ns": str(time.perf_counter_ns() - began),
    }
    return Answer(b"", "TabSeparated", summary)


# --- bodies -----------------------------------------------------------------------------------------


class Decompressor(Protocol):
    """What zlib, lz4 and zstd have in common: one frame each."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, /) -> bytes: ...


DECOMPRESSORS: Mapping[str, Callable[[], Decompressor]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "deflate": zlib.decompressobj,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
}
COMPRESSORS: Mapping[
    str, Callable[[bytes], bytes]
] = {  # in the order in which a server prefers them
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": zlib.compress,
}


def inflated(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Undo a Content-Encoding. Clients send a frame a block, one after the other: all are read.

    Raises ClickhouseError when the encoding is unknown or the last frame is not whole.
    """
    if encoding in ("", "identity"):
        yield from chunks
        return
    if encoding not in DECOMPRESSORS:
        raise ClickhouseError(
            NOT_IMPLEMENTED,
            f"Code: 48. DB::Exception: Content-Encoding {encoding}. (NOT_IMPLEMENTED)",
        )
    frame: Decompressor | None = None
    for chunk in chunks:
        rest = chunk
        while rest:
            if frame is None:
                frame = DECOMPRESSORS[encoding]()
            try:
                if out := frame.decompress(rest):
                    yield out
            except (RuntimeError, zlib.error, zstd.ZstdError) as error:
                raise _cut_short(f"{encoding}: {error}") from error
            rest = b""
            if frame.eof:
                rest, frame = frame.unused_data or b"", None
    if frame is not None:
        raise _cut_short(f"the last frame of {encoding} is not whole")


def _cut_short(why: str) -> ClickhouseError:
    return ClickhouseError(
        CANNOT_READ_ALL_DATA,
        f"Code: {CANNOT_READ_ALL_DATA}. DB::Exception: Cannot read all data: {why}."
        " (CANNOT_READ_ALL_DATA)",
    )


def _quoted(text: str, quote: str) -> str:
    escaped = text.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    return f"{quote}{escaped}{quote}"


# --- HTTP -------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """One client's connection; the class is made anew for each server, with its engine and user."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    engine: Engine
    user: str
    password: str
    _unread: Iterator[bytes]

    def log_message(self, *_: object) -> None:
        """Say nothing: the sandbox's output is for people."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path in ("/ping", "/replicas_status") or (url.path == "/" and not url.query):
            self._send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
        else:
            self._handle(url)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self._handle(urllib.parse.urlsplit(self.path))

    def _handle(self, url: urllib.parse.SplitResult) -> None:
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        query_id = query.get("query_id") or str(uuid.uuid4())
        try:
            answer = self._answer(query)
        except ClickhouseError as error:
            self._refuse(error.code, str(error), query_id)
        except (
            ChdbError,
            RuntimeError,
        ) as error:  # what the library raises for all that it refuses
            found = ERROR_CODE.search(str(error))
            code = int(found[1]) if found else UNKNOWN_ERROR
            if found is None and "codec can't decode" in str(error):
                # The library cuts a message in the middle of a character, then can't read it. Only
                # those that show a piece of a malformed row have such characters.
                code = CANNOT_PARSE_INPUT
            message = str(error)[found.start() if found else 0 :]
            self._refuse(code, message, query_id)
        except UnicodeDecodeError as error:
            self._refuse(
                SYNTAX_ERROR, f"Code: 62. DB::Exception: {error}. (SYNTAX_ERROR)", query_id
            )
        else:
            self._succeed(answer, query, query_id)

    def _answer(self, query: dict[str, str]) -> Answer:
        self._unread = self._body()
        self._authenticate(query)
        for name in ("compress", "decompress"):
            if query.get(name) == "1":
                raise ClickhouseError(
                    NOT_IMPLEMENTED,
                    f"Code: 48. DB::Exception: {name}=1, the native block compression, is not in the"
                    " sandbox: use Content-Encoding. (NOT_IMPLEMENTED)",
                )
        encoding = self.headers.get("Content-Encoding", "").lower()
        body = inflated(self._unread, encoding)
        if self.headers.get("Content-Type", "").startswith("multipart/form-data"):
            query.update(self._form(b"".join(body)))
            body = iter(())
        asked = query.get("query", "").encode()
        head = bytearray(asked + b"\n" if asked else b"")
        for chunk in body:
            head += chunk
            if len(head) > HEAD_BYTES:
                break
        if not head.strip():
            raise ClickhouseError(
                SYNTAX_ERROR, "Code: 62. DB::Exception: Syntax error: Empty query. (SYNTAX_ERROR)"
            )
        database = self.headers.get("X-ClickHouse-Database") or query.get("database")
        wanted = self.headers.get("X-ClickHouse-Format") or query.get("default_format")
        with self.engine.connection(query) as connection:
            # A session outlives the request: what GET may not do would stay forbidden there.
            reads_only = self.command != "POST" and "session_id" not in query
            settings = prepared(connection, query, database=database, reads_only=reads_only)
            try:
                if insert := as_insert(bytes(head)):
                    return inserted(connection, insert, body)
                statement = b"".join([bytes(head), *body])
                return executed(connection, statement, wanted or "TabSeparated")
            finally:
                if "session_id" in query:
                    reset = ", ".join(f"{name} = DEFAULT" for name in settings)
                    connection.query(f"SET {reset}")

    def _authenticate(self, query: Mapping[str, str]) -> None:
        user = self.headers.get("X-ClickHouse-User") or query.get("user")
        password = self.headers.get("X-ClickHouse-Key") or query.get("password") or ""
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                decoded = base64.b64decode(credentials).decode()
            except ValueError:
                decoded = ""
            user, _, password = decoded.partition(":")
        user = user or "default"
        known = hmac.compare_digest(user.encode(), self.user.encode())
        if not hmac.compare_digest(password.encode(), self.password.encode()) or not known:
            raise ClickhouseError(
                AUTHENTICATION_FAILED,
                f"Code: {AUTHENTICATION_FAILED}. DB::Exception: {user}: Authentication failed:"
                " password is incorrect, or there is no user with such name."
                " (AUTHENTICATION_FAILED)",
            )

    def _body(self) -> Iterator[bytes]:
        """The body as sent. Raises ClickhouseError when it ends before it should."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := self._chunk_size():
                yield from self._exactly(size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                continue
        else:
            yield from self._exactly(int(self.headers.get("Content-Length") or 0))

    def _chunk_size(self) -> int:
        line = self.rfile.readline().partition(b";")[0].strip()
        try:
            return int(line, 16)
        except ValueError:
            raise self._broken("a chunk has no size") from None

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            try:
                chunk = self.rfile.read1(min(size, READ_BYTES))
            except ConnectionError as error:
                raise self._broken(str(error)) from None
            if not chunk:
                raise self._broken("the client is gone")
            size -= len(chunk)
            yield chunk

    def _broken(self, why: str) -> ClickhouseError:
        self.close_connection = True
        return _cut_short(why)

    def _form(self, body: bytes) -> dict[str, str]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        fields = {}
        for part in BytesParser(policy=policy.HTTP).parsebytes(head + body).iter_parts():
            if part.get_filename():
                raise ClickhouseError(
                    NOT_IMPLEMENTED,
                    "Code: 48. DB::Exception: External tables are not in the sandbox."
                    " (NOT_IMPLEMENTED)",
                )
            name = part.get_param("name", header="content-disposition")
            fields[str(name)] = bytes(part.get_payload(decode=True) or b"").decode()
        return fields

    def _succeed(self, answer: Answer, query: Mapping[str, str], query_id: str) -> None:
        headers = {
            "Content-Type": _content_type(answer.format),
            "X-ClickHouse-Server-Display-Name": "sandbox",
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Format": answer.format,
            "X-ClickHouse-Timezone": self.engine.timezone,
            "X-ClickHouse-Summary": json.dumps(answer.summary),
        }
        body = answer.body
        if query.get("enable_http_compression") == "1" and body:
            accepted = {
                each.partition(";")[0].strip().lower()
                for each in self.headers.get("Accept-Encoding", "").split(",")
            }
            chosen = next((name for name in COMPRESSORS if name in accepted), None)
            if chosen:
                headers["Content-Encoding"] = chosen
                body = COMPRESSORS[chosen](body)
        self._send(200, body, headers)

    def _refuse(self, code: int, message: str, query_id: str) -> None:
        # What is left of a body would be taken for the next request, and a client that is still
        # sending would not read this.
        with suppress(ClickhouseError):
            for _ in self._unread:
                continue
        text = f"{message.rstrip()} (version {self.engine.version} (sandbox))\n"
        self._send(
            STATUSES.get(code, 500),
            text.encode(),
            {
                "Content-Type": "text/plain; charset=UTF-8",
                "X-ClickHouse-Exception-Code": str(code),
                "X-ClickHouse-Query-Id": query_id,
            },
        )

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True


def _content_type(name: str) -> str:
    if name.startswith("JSON"):
        return "application/json; charset=UTF-8"
    if name.startswith(("TabSeparated", "TSV")):
        return "text/tab-separated-values; charset=UTF-8"
    if name.startswith("CSV"):
        return "text/csv; charset=UTF-8"
    return "application/octet-stream"


class Server(ThreadingHTTPServer):
    """The interface on an address; `server_address` has the port that was found."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, engine: Engine, user: str, password: str) -> None:
        bound = {"engine": engine, "user": user, "password": password}
        super().__init__((host, port), type("BoundHandler", (Handler,), bound))

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over clients that went away; what else goes wrong is said as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
