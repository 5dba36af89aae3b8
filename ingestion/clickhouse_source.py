"""ClickHouse as a source, over its HTTP interface: queries, and answers as streams of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from ingestion.errors import SourceError, UsageError
from ingestion.settings import HttpSettings, header_text

CHUNK_BYTES = 256 * 1024
DEFAULT_PORTS = {"clickhouse": 8123, "http": 8123, "https": 8443}
# A query that ClickHouse refuses has 4xx or 500, and is refused again.
RETRIED = frozenset({502, 503, 504})
MESSAGE_CHARACTERS = 500


@dataclass(frozen=True)
class Address:
    """Where a ClickHouse server is; `secure` is https."""

    host: str
    port: int
    user: str
    password: SecretStr
    database: str
    secure: bool = False

    @property
    def url(self) -> str:
        """Without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}/"


def read_address(setting: str, url: SecretStr) -> Address:
    """The address that a url names: `clickhouse://user:password@host:port/db`, or http(s) likewise.

    Raises UsageError that names the setting and never shows a piece of the url.
    """
    try:
        parts = urlsplit(url.get_secret_value())
        port = parts.port
    except ValueError:
        parts, port = None, None
    if parts is None or parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise UsageError(
            f"settings: {setting}: no url of the form clickhouse://user:password@host:port/database"
            " (or http, https), special characters of the password percent-encoded"
        )
    asked = parse_qs(parts.query).get("database", ["default"])[-1]
    return Address(
        host=parts.hostname,
        port=port or DEFAULT_PORTS[parts.scheme],
        user=unquote(parts.username or "default"),
        password=SecretStr(unquote(parts.password or "")),
        database=unquote(parts.path.strip("/")) or asked,
        secure=parts.scheme == "https",
    )


class ClickHouse:
    """One server, asked with patience; every failure is a SourceError that shows no password."""

    def __init__(self, name: str, address: Address, settings: HttpSettings) -> None:
        self._name = name
        self._address = address
        self._timeout = settings.timeout_seconds
        self._session = requests.Session()
        self._session.trust_env = False  # a .netrc would win over our user
        self._session.headers.update(
            {
                "X-ClickHouse-User": header_text(address.user, "X-ClickHouse-User"),
                "X-ClickHouse-Key": header_text(
                    address.password.get_secret_value(), "X-ClickHouse-Key"
                ),
                "Accept-Encoding": "identity",
            }
        )
        retry = Retry(
            total=settings.retries,
            backoff_factor=settings.backoff_seconds,
            backoff_max=settings.backoff_max_seconds,
            status_forcelist=RETRIED,
            allowed_methods={"POST"},
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def rows(self, query: str) -> Iterator[list[object]]:
        """The rows of a query, as they come."""
        with self._answer(f"{query} format JSONCompactEachRow") as answer, self._told_apart():
            for line in answer.iter_lines(chunk_size=CHUNK_BYTES, delimiter=b"\n"):
                if line:
                    yield json.loads(line)

    def stream(self, query: str, output: str) -> Iterator[bytes]:
        """The bytes of a query's answer in one of ClickHouse's formats."""
        with self._answer(f"{query} format {output}") as answer, self._told_apart():
            yield from answer.iter_content(CHUNK_BYTES)

    def close(self) -> None:
        """Hang up."""
        self._session.close()

    @contextmanager
    def _answer(self, statement: str) -> Iterator[requests.Response]:
        parameters = {
            "database": self._address.database,
            # Otherwise a query that fails in the middle has said 200 by then, and its error is
            # taken for rows. The server keeps the answer, on its disk where it is large.
            "wait_end_of_query": "1",
        }
        with self._told_apart():
            answer = self._session.post(
                self._address.url,
                params=parameters,
                data=statement.encode(),
                timeout=self._timeout,
                stream=True,
                allow_redirects=False,
            )
        with answer:
            if answer.status_code != requests.codes.ok:
                raise SourceError(
                    f"{self._name} refuses ({answer.status_code}):"
                    f" {answer.text.strip()[:MESSAGE_CHARACTERS]}"
                )
            yield answer

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        try:
            yield
        except requests.RequestException as error:
            reason = getattr(error.args[0] if error.args else error, "reason", None) or error
            raise SourceError(
                f"{self._name} does not answer at {self._address.url}: {type(reason).__name__}"
            ) from None
