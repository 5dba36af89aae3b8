"""An S3 server with one bucket: moto's, on loopback, with what moto leaves out.

moto asks for no credentials; here a request needs those of `environment()` (the access key is
compared, the signature is not). It can fail, cut a file short, and tells what was read.
`python -m sandbox.s3` runs it as a process of its own.
"""

import io
import re
import secrets
import shlex
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from sandbox.lifetime import unwinding_on_termination
from sandbox.serving import serving

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from types_boto3_s3 import S3Client

REGION = "us-east-1"  # the one that moto, like S3 itself, takes when nothing is said
FOREIGN_HOST = "https://storage.example.net"
_CREDENTIAL = re.compile(r"Credential=([^/]+)/")
_DELETED_AT_ONCE = 1000  # objects; S3 takes no more
_CHUNK_BYTES = 1 << 16


class UrlStyle(StrEnum):
    """How the url of a file is written."""

    ENDPOINT = "endpoint"  # path-style, on the server's own address
    FOREIGN = "foreign"  # path-style, on a host that is not there: what counts is S3_ENDPOINT_URL
    S3 = "s3"  # s3://bucket/key


@dataclass(frozen=True, slots=True)
class Access:
    """A request for an object and what became of it."""

    method: str
    key: str
    status: int


@dataclass
class S3Server:
    """The running server, seen from the test that holds it. Safe to use from several threads."""

    bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    url: str = ""  # what S3_ENDPOINT_URL is set to
    _accesses: list[Access] = field(default_factory=list, repr=False)
    _scripted: list[int] = field(default_factory=list, repr=False)
    _cuts: dict[str, int] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def put(self, key: str, content: bytes) -> None:
        """Store an object, in place of the one of that key if there is one."""
        # In parts when it is large, as AWS's own tools do: then the ETag is no MD5.
        self._client.upload_fileobj(io.BytesIO(content), self.bucket, key)

    def get(self, key: str) -> bytes:
        """The bytes of an object. Raises botocore's ClientError when there is none."""
        return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def delete(self, *keys: str) -> None:
        """Take objects away; one that is not there is no error."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            some = keys[start : start + _DELETED_AT_ONCE]
            self._client.delete_objects(
                Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in some]}
            )

    def keys(self) -> list[str]:
        """The keys of all objects, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", ()))

    def url_of(self, key: str, style: UrlStyle = UrlStyle.ENDPOINT) -> str:
        """Where an object is, in the way asked for."""
        if style is UrlStyle.S3:
            return f"s3://{self.bucket}/{key}"
        host = FOREIGN_HOST if style is UrlStyle.FOREIGN else self.url
        return f"{host}/{self.bucket}/{quote(key, safe='/=')}"

    def environment(self) -> dict[str, str]:
        """The settings by which ingestion finds this server."""
        return {
            "S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }

    @property
    def accesses(self) -> list[Access]:
        """The requests for objects so far, refused ones and the sandbox's own too."""
        with self._lock:
            return list(self._accesses)

    def reads(self, key: str) -> int:
        """How often the content of an object was asked for."""
        return sum(each.method == "GET" and each.key == key for each in self.accesses)

    def fail_next(self, *statuses: int) -> None:
        """Answer the next requests for objects with these statuses; 200 is a real answer."""
        with self._lock:
            self._scripted.extend(statuses)

    @contextmanager
    def cut_short(self, key: str, after: int) -> Iterator[None]:
        """Within the block, end each download of an object after so many bytes of what it promised."""
        with self._lock:
            self._cuts[key] = after
        try:
            yield
        finally:
            with self._lock:
                del self._cuts[key]

    def guarded(self, moto: "WSGIApplication") -> "WSGIApplication":
        """moto's application behind a check of the access key, the log and the faults."""

        def application(
            environ: "WSGIEnvironment", start_response: "StartResponse"
        ) -> Iterable[bytes]:
            key = self._key(environ)
            status = self._refused_with(environ, key)
            if status is not None:
                self._log(environ, key, status)
                return _error(status, environ, start_response)
            seen: list[str] = []

            def noting(line: str, *rest: object) -> object:
                seen.append(line)
                return start_response(line, *rest)  # type: ignore[arg-type]

            body = moto(environ, noting)  # type: ignore[arg-type]
            self._log(environ, key, int(seen[0].split()[0]))
            cut = self._cuts.get(key) if environ["REQUEST_METHOD"] == "GET" else None
            return body if cut is None else _first(body, cut)

        return application

    def _refused_with(self, environ: "WSGIEnvironment", key: str) -> int | None:
        credential = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        if credential is None or credential[1] != self.access_key_id:
            return HTTPStatus.FORBIDDEN
        with self._lock:
            if key and self._scripted and (status := self._scripted.pop(0)) != HTTPStatus.OK:
                return status
        return None

    def _log(self, environ: "WSGIEnvironment", key: str, status: int) -> None:
        if key:
            with self._lock:
                self._accesses.append(Access(environ["REQUEST_METHOD"], key, status))

    def _key(self, environ: "WSGIEnvironment") -> str:
        """The key that a request names, '' for one of the bucket or the server."""
        path = unquote(environ.get("RAW_URI") or environ.get("PATH_INFO", "")).partition("?")[0]
        return path.removeprefix(f"/{self.bucket}").lstrip("/")

    @cached_property
    def _client(self) -> "S3Client":
        # Imported when it is needed: it costs a tenth of a second, and most tests need no S3.
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )


@contextmanager
def s3_server(
    *,
    bucket: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[S3Server]:
    """Yield a server with an empty bucket, with random credentials unless told; empty afterwards."""
    # moto starts a Flask and reads its tables: a third of a second that only orders need.
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )

    class Handler(MotoRequestHandler):
        """moto's handler without its log; the rest of the server is silent too."""

        def log(self, kind: str, message: str, *args: object) -> None:
            """Log nothing: `S3Server.accesses` has it."""

    server = S3Server(
        # moto keeps the buckets of a whole process together.
        bucket=bucket or f"reports-{secrets.token_hex(4)}",
        access_key_id=access_key_id or secrets.token_hex(10).upper(),
        secret_access_key=secret_access_key or secrets.token_urlsafe(30),
    )
    application = server.guarded(DomainDispatcherApplication(create_backend_app))
    with serving(application, "s3", host=host, port=port, handler=Handler) as server.url:
        server._client.create_bucket(Bucket=server.bucket)
        try:
            yield server
        finally:
            server._scripted.clear()
            server.delete(*server.keys())
            server._client.delete_bucket(Bucket=server.bucket)


def _first(body: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The first bytes of a body; the server has promised them all by then."""
    for chunk in body:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


def _error(
    status: int, environ: "WSGIEnvironment", start_response: "StartResponse"
) -> Iterable[bytes]:
    """An error as S3 writes it; what the request brought along is read, as S3 does."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    while length > 0 and (read := environ["wsgi.input"].read(min(length, _CHUNK_BYTES))):
        length -= len(read)
    known = {HTTPStatus.FORBIDDEN: "InvalidAccessKeyId", HTTPStatus.SERVICE_UNAVAILABLE: "SlowDown"}
    code = known.get(HTTPStatus(status), "InternalError")
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode()
    start_response(
        f"{status} {HTTPStatus(status).phrase}",
        [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))],
    )
    return [body] if environ["REQUEST_METHOD"] != "HEAD" else []


def main() -> None:
    """Serve an empty bucket until told to stop; print the addresses."""
    with suppress(KeyboardInterrupt), unwinding_on_termination(), s3_server() as server:
        for name, value in server.environment().items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        print(f"# the bucket: {server.bucket}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
