"""The CRM's REST API, well behaved or not: GET {url}/api/clients?updated_from=<instant>.

It answers in the order in which records were put in (`serve`), whatever their instants, page by
page, refuses wrong tokens, limits the rate, fails now and then, and can be told to misbehave.
`crm_server` runs it inside a test; `python -m sandbox.crm` runs it as a process of its own.
"""

import argparse
import json
import os
import secrets
import shlex
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, request
from werkzeug.datastructures import MultiDict

from sandbox.lifetime import unwinding_on_termination
from sandbox.misbehaviour import (
    Body,
    Misbehaviour,
    Next,
    json_bytes,
    json_list,
    spoiled,
    wrong_next,
)
from sandbox.serving import Balking, refusal, serving

__all__ = [
    "CLIENTS_PATH",
    "CLIENT_FIELDS",
    "Body",
    "ClientRecord",
    "CrmServer",
    "Links",
    "Misbehaviour",
    "Next",
    "RawRecord",
    "Request",
    "Settings",
    "crm_server",
]

CLIENTS_PATH = "/api/clients"
# How a record usually looks; the server passes on whatever it is given.
CLIENT_FIELDS = ("id", "segment", "country", "plan", "created_at", "updated_at")

ClientRecord = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as bytes that no JSON encoder makes: invalid UTF-8, `\\u0000`, no JSON at all.

    `instant` is what `updated_from` compares with; None: the record is always served.
    """

    payload: bytes
    instant: datetime | None = None


class Links(StrEnum):
    """Where an answer says what comes next."""

    ABSOLUTE = "absolute"  # `next`: a whole URL, null on the last page
    RELATIVE = "relative"  # `next`: path and query, null on the last page
    QUERY = "query"  # `next`: the query alone, null on the last page
    HEADER = "header"  # `Link: <…>; rel="next"`, no `next` in any body
    HEADER_TOO = "header_too"  # `next` is right, and a Link header points back to the first page


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was received and what became of it."""

    path: str
    params: Mapping[str, str]
    page: int  # 1 is the first page of a call
    sent_token: bool  # any Authorization header at all
    authorized: bool  # the right one
    status: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server pages and how often it balks.

    Counts run over all authorized requests. A refused request counts too, so that the one after
    it passes.
    """

    page_size: int = 100
    links: Links = Links.ABSOLUTE
    present_only: bool = False  # of each id only what was put in last, as a CRM would
    rate_limit_every: int = 0  # each nth request gets 429; 0: none
    failure_every: int = 0  # each nth request gets 503; 0: none
    retry_after: int | timedelta | str | None = 1  # sent with both


@dataclass
class CrmServer:
    """The running server, seen from the test that holds it. Safe to use from several threads."""

    token: str = field(repr=False)
    settings: Settings
    url: str = ""  # without a path: what CRM_API_URL is set to
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    _entries: list["_Entry"] = field(default_factory=list, repr=False)
    _requests: list[Request] = field(default_factory=list, repr=False)
    _balking: Balking = field(default_factory=Balking, repr=False)
    _misbehaved: int = field(default=0, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def serve(self, records: Iterable[ClientRecord | RawRecord]) -> None:
        """Put records behind those that are there; they are served in this order."""
        entries = [_Entry.of(record) for record in records]
        with self._lock:
            self._entries.extend(entries)

    def forget(self) -> None:
        """Take all records and the log of requests away."""
        with self._lock:
            self._entries.clear()
            self._requests.clear()

    @property
    def requests(self) -> list[Request]:
        """The requests received so far, refused ones too."""
        with self._lock:
            return list(self._requests)

    def fail_next(self, *statuses: int) -> None:
        """Answer the next requests with these statuses, one each; 200 stands for a real answer."""
        with self._lock:
            self._balking.script(*statuses)

    def misbehave(self, misbehaviour: Misbehaviour) -> None:
        """Do this from now on; `Misbehaviour()` ends it."""
        with self._lock:
            self.misbehaviour = misbehaviour
            self._misbehaved = 0

    @contextmanager
    def misbehaving(self, misbehaviour: Misbehaviour) -> Iterator[None]:
        """Misbehave within the block."""
        before = self.misbehaviour
        self.misbehave(misbehaviour)
        try:
            yield
        finally:
            self.misbehave(before)

    def environment(self) -> dict[str, str]:
        """Return the settings by which ingestion finds this server."""
        return {"CRM_API_URL": self.url, "CRM_API_TOKEN": self.token}

    def answer(self, path: str, params: MultiDict[str, str], authorization: str | None) -> Response:
        """Answer a request for clients and write it into the log."""
        ask = _Ask.of(params)
        authorized = secrets.compare_digest(
            (authorization or "").encode(), f"Bearer {self.token}".encode()
        )
        with self._lock:
            fault = self._fault_for(ask) if authorized else None
            response = self._respond(path, ask, authorization, authorized, fault)
            self._requests.append(
                Request(
                    path=path,
                    params=params.to_dict(),
                    page=ask.page,
                    sent_token=authorization is not None,
                    authorized=authorized,
                    status=response.status_code,
                    received_at=datetime.now(UTC),
                )
            )
        if fault is not None:
            time.sleep(fault.delay_seconds)
        return response

    def _fault_for(self, ask: "_Ask") -> Misbehaviour | None:
        """Return the misbehaviour if it is due for this request, and count it."""
        fault = self.misbehaviour
        if fault == Misbehaviour() or fault.on_page not in (None, ask.page):
            return None
        if fault.times is not None and self._misbehaved >= fault.times:
            return None
        self._misbehaved += 1
        return fault

    def _respond(
        self,
        path: str,
        ask: "_Ask",
        authorization: str | None,
        authorized: bool,
        fault: Misbehaviour | None,
    ) -> Response:
        if authorization is None:
            return refusal(HTTPStatus.UNAUTHORIZED)
        if not authorized:
            return refusal(HTTPStatus.FORBIDDEN)
        if ask.error is not None:
            return refusal(HTTPStatus.BAD_REQUEST, message=ask.error)
        balked = self._balking.refusal(
            rate_limit_every=self.settings.rate_limit_every,
            failure_every=self.settings.failure_every,
            retry_after=self.settings.retry_after,
        )
        if balked is not None:
            return balked
        if fault is not None and fault.status is not None:
            return refusal(fault.status, fault.retry_after)
        if fault is not None and fault.redirect is not None:
            return Response(status=HTTPStatus.FOUND, headers={"Location": fault.redirect})
        return self._page(path, ask, fault or Misbehaviour())

    def _page(self, path: str, ask: "_Ask", fault: Misbehaviour) -> Response:
        """Make the answer: the records from `ask.position` on and the way to those behind them."""
        chosen, end = self._select(ask)
        following = path + "?" + ask.query(page=ask.page + 1, position=end) if end else None
        first = path + "?" + ask.query(page=1, position=0)
        links = self.settings.links
        members: dict[str, bytes] = {"clients": json_list(entry.payload for entry in chosen)}
        headers = {}
        if fault.next is not None:
            itself = path + "?" + ask.query(page=ask.page, position=ask.position)
            members.update(wrong_next(fault, following, first=self.url + first, itself=itself))
        elif links is Links.HEADER:
            if following:
                headers["Link"] = f'<{self.url}{following}>; rel="next"'
        else:
            members["next"] = json_bytes(self._link(following, links) if following else None)
            if links is Links.HEADER_TOO and following:
                headers["Link"] = f'<{self.url}{first}>; rel="next"'
        content = spoiled(members, fault.body)
        response = Response(content, mimetype=_mimetype(fault.body), headers=headers)
        if fault.body is Body.TRUNCATED:
            response.set_data(content[: len(content) // 2])
            response.headers["Content-Length"] = str(len(content))
        return response

    def _link(self, following: str, links: Links) -> str:
        if links is Links.QUERY:
            return following[following.index("?") :]
        return following if links is Links.RELATIVE else self.url + following

    def _select(self, ask: "_Ask") -> tuple[list["_Entry"], int]:
        """Return one page's entries, and the position to go on from, 0 when nothing follows.

        Positions count what was ever put in, so that records which come in while a client reads
        shift nothing: they are on pages to come.
        """
        latest: dict[str | None, int] = {}
        if self.settings.present_only:
            latest = {entry.id: position for position, entry in enumerate(self._entries)}
        chosen: list[_Entry] = []
        for position in range(ask.position, len(self._entries)):
            entry = self._entries[position]
            if entry.instant is not None and entry.instant < ask.updated_from:
                continue
            if entry.id is not None and latest.get(entry.id, position) != position:
                continue
            if len(chosen) == self.settings.page_size:
                return chosen, position
            chosen.append(entry)
        return chosen, 0


@contextmanager
def crm_server(
    records: Iterable[ClientRecord | RawRecord] = (),
    *,
    token: str | None = None,
    settings: Settings | None = None,
    misbehaviour: Misbehaviour | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[CrmServer]:
    """Yield a server on loopback, on a free port unless told one, with a random token likewise."""
    server = CrmServer(
        token=token or secrets.token_urlsafe(24),
        settings=settings or Settings(),
        misbehaviour=misbehaviour or Misbehaviour(),
    )
    server.serve(records)
    with serving(_application(server), "crm", host=host, port=port) as server.url:
        yield server


def _application(server: CrmServer) -> Flask:
    app = Flask(__name__)

    @app.get(CLIENTS_PATH)
    def clients() -> Response:
        return server.answer(request.path, request.args, request.headers.get("Authorization"))

    return app


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record as it is sent, and what is needed to choose it."""

    payload: bytes
    instant: datetime | None
    id: str | None

    @classmethod
    def of(cls, record: ClientRecord | RawRecord) -> "_Entry":
        if isinstance(record, RawRecord):
            return cls(record.payload, record.instant, None)
        stamp = record.get("updated_at")
        if stamp is None:
            stamp = record.get("created_at")
        identity = record.get("id")
        return cls(json_bytes(record), _instant(stamp), None if identity is None else str(identity))


@dataclass(frozen=True, slots=True)
class _Ask:
    """The parameters of a request. `page` and `position` are ours, from a `next` link."""

    updated_from: datetime
    spelled: str
    page: int
    position: int
    error: str | None

    @classmethod
    def of(cls, params: Mapping[str, str]) -> "_Ask":
        spelled = params.get("updated_from", "1970-01-01T00:00:00Z")
        since = _instant(spelled)
        page, position = params.get("page", "1"), params.get("position", "0")
        error = None
        if since is None:
            error = f"updated_from is no instant: {spelled}"
        elif not (page.isdecimal() and position.isdecimal()):
            error = "page and position come from a next link"
        if error is not None or since is None:
            return cls(datetime.min.replace(tzinfo=UTC), spelled, 1, 0, error)
        return cls(since, spelled, int(page), int(position), None)

    def query(self, *, page: int, position: int) -> str:
        return urlencode({"updated_from": self.spelled, "page": page, "position": position})


def _instant(stamp: object) -> datetime | None:
    """Read an ISO 8601 instant, UTC unless it says otherwise; None if it is none."""
    if not isinstance(stamp, str):
        return None
    try:
        read = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def _mimetype(body: Body | None) -> str:
    return "text/html" if body is Body.HTML else "application/json"


def main() -> None:
    """Serve records from a file of JSON lines until told to stop; print the addresses."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.crm", description=main.__doc__)
    parser.add_argument("--records", type=argparse.FileType("rb"), help="JSON lines; - is stdin")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--page-size", type=int, default=Settings().page_size)
    parser.add_argument("--links", type=Links, choices=list(Links), default=Links.ABSOLUTE)
    parser.add_argument("--rate-limit-every", type=int, default=0, metavar="N")
    parser.add_argument("--failure-every", type=int, default=0, metavar="N")
    chosen = parser.parse_args()
    settings = Settings(
        page_size=chosen.page_size,
        links=chosen.links,
        rate_limit_every=chosen.rate_limit_every,
        failure_every=chosen.failure_every,
    )
    records = [json.loads(line) for line in chosen.records or ()]
    # The token comes by the environment: arguments can be read by every user of the machine.
    token = os.environ.get("CRM_API_TOKEN") or None
    with (
        suppress(KeyboardInterrupt),
        unwinding_on_termination(),
        crm_server(records, token=token, settings=settings, port=chosen.port) as server,
    ):
        for name, value in server.environment().items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
