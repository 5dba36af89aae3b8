"""What the sandbox's HTTP servers share: a server in a thread, refusals, and balking by count."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response
from werkzeug.http import http_date
from werkzeug.serving import WSGIRequestHandler, make_server

from sandbox.misbehaviour import json_bytes

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

RetryAfter = int | timedelta | str | None


class QuietHandler(WSGIRequestHandler):
    """Leaves the log to the server's own: standard error belongs to the one who runs it."""

    def log(self, kind: str, message: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serving(
    application: "WSGIApplication",
    name: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    handler: type[WSGIRequestHandler] = QuietHandler,
) -> Iterator[str]:
    """Serve an application from a thread; yields its url. On loopback and a free port unless told."""
    # Listens from here on: a request that comes before the thread runs waits in the backlog.
    http = make_server(host, port, application, threaded=True, request_handler=handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), name=name, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@dataclass
class Balking:
    """Counts the authorized requests of a server and says which of them it refuses.

    A refused request counts too, so that the one after it passes.
    """

    _scripted: list[int] = field(default_factory=list, repr=False)
    _counted: int = field(default=0, repr=False)

    def script(self, *statuses: int) -> None:
        """Answer the next requests with these statuses, one each; 200 stands for a real answer."""
        self._scripted.extend(statuses)

    def refusal(
        self, *, rate_limit_every: int, failure_every: int, retry_after: RetryAfter
    ) -> Response | None:
        """Count a request; return what it gets instead of an answer: each nth 429 or 503, 0: none."""
        self._counted += 1
        if self._scripted and (status := self._scripted.pop(0)) != HTTPStatus.OK:
            return refusal(status, retry_after)
        if self._is_nth(rate_limit_every):
            return refusal(HTTPStatus.TOO_MANY_REQUESTS, retry_after)
        if self._is_nth(failure_every):
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, retry_after)
        return None

    def _is_nth(self, every: int) -> bool:
        return every > 0 and self._counted % every == 0


def refusal(status: int, retry_after: RetryAfter = None, message: str | None = None) -> Response:
    """A refusal as JSON. `Retry-After` goes with 429 and 5xx: seconds, a date that far off, or as is."""
    response = Response(
        json_bytes({"error": message or HTTPStatus(status).phrase}),
        status=status,
        mimetype="application/json",
    )
    retriable = status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500
    if retriable and isinstance(retry_after, timedelta):
        response.headers["Retry-After"] = http_date(datetime.now(UTC) + retry_after)
    elif retriable and retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
