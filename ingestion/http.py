"""JSON over HTTP with secrets in headers: requests with urllib3's retries, and errors that keep secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import InvalidHeader
from urllib3.util import parse_url
from urllib3.util.retry import Retry

from ingestion.errors import SourceError
from ingestion.settings import HttpSettings, header_text

# 429 and every 5xx; 501 and 505 are answers about us and do not change by waiting.
RETRIED = frozenset({429, *range(500, 600)} - {501, 505})
# Python refuses to read longer numbers, and with them the whole page: they stay text.
LONGEST_NUMBER = 4_000


class Patience(Retry):
    """urllib3's retries, for which a `Retry-After` that can't be read is none, and no failure."""

    def parse_retry_after(self, retry_after: str) -> float:
        try:
            return super().parse_retry_after(retry_after)
        except InvalidHeader:
            return 0


class BearerAuth(AuthBase):
    """The token as a header. An AuthBase, since otherwise requests prefers what a .netrc says."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = "Bearer " + header_text(
            self._token.get_secret_value(), "Authorization"
        )
        return request


class HeadersAuth(AuthBase):
    """Headers that say who asks, secrets among them."""

    def __init__(self, headers: Mapping[str, SecretStr]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        for name, text in self._headers.items():
            request.headers[name] = header_text(text.get_secret_value(), name)
        return request


@dataclass(frozen=True)
class Answer:
    """A page: decoded, as it was served, and the url of its `Link: rel="next"` header, if any.

    Bytes that are no UTF-8 are lone surrogates in both (PEP 383), so that one bad record can be
    told from the others and given back as it came.
    """

    content: object
    text: str
    link: str | None

    def items(self, name: str) -> list[bytes]:
        """The bytes of each item of the list `name`, a member of the object, as they were served."""
        items: list[str] = []
        at = _after_space(self.text, self.text.index("{") + 1)
        while self.text[at] != "}":
            key, at = DECODER.raw_decode(self.text, at)
            at = _after_space(self.text, _after_space(self.text, at) + 1)
            if key == name and self.text[at] == "[":
                items, at = _list_items(self.text, at)
            else:
                _, at = DECODER.raw_decode(self.text, at)
            at = _after_comma(self.text, at)
        return [item.encode("utf-8", errors="surrogateescape") for item in items]


class JsonApi:
    """JSON objects from one origin (scheme, host and port), with patience.

    429 and 5xx are retried with backoff, `Retry-After` honoured up to the longest backoff.
    """

    def __init__(self, name: str, base_url: str, auth: AuthBase, settings: HttpSettings) -> None:
        self._name = name
        self._origin = _origin(base_url)
        self._timeout = settings.timeout_seconds
        self._session = requests.Session()
        self._session.auth = auth
        self._session.headers["Accept"] = "application/json"
        retry = Patience(
            total=settings.retries,
            backoff_factor=settings.backoff_seconds,
            backoff_max=settings.backoff_max_seconds,
            retry_after_max=int(settings.backoff_max_seconds),
            status_forcelist=RETRIED,
            # A POST that is sent again asks for a second report, which harms nobody.
            allowed_methods={"GET", "POST"},
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def get(
        self, url: str, params: Mapping[str, str] | None = None, *, method: str = "GET"
    ) -> Answer:
        """Ask for one page, or with another method for something to be done.

        Raises SourceError for another origin, a refusal, patience at its end or an answer that is
        no JSON.
        """
        try:
            request = self._session.prepare_request(requests.Request(method, url, params=params))
            url = request.url or ""
            # Of the url that would be asked for, which is not always what the text seems to say.
            origin = _origin(url)
        except ValueError as error:
            raise SourceError(
                f"{self._name} points to what is no url ({type(error).__name__})"
            ) from None
        if origin != self._origin:
            raise SourceError(
                f"{self._name} points to another host, {origin}: not followed,"
                " and the token stays here"
            )
        try:
            answer = self._session.send(
                request,
                timeout=self._timeout,
                allow_redirects=False,
                **self._session.merge_environment_settings(url, {}, None, None, None),
            )
        except requests.RequestException as error:
            raise SourceError(f"{self._name}: {_reason(error)} at {_place(url)}") from None
        if answer.status_code in (401, 403):
            raise SourceError(
                f"{self._name} refuses our token ({answer.status_code}) at {_place(url)}"
            )
        if answer.status_code != requests.codes.ok:
            raise SourceError(f"{self._name} answers {answer.status_code} at {_place(url)}")
        text = answer.content.decode("utf-8-sig", errors="surrogateescape")
        try:
            content = DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            kind = answer.headers.get("Content-Type", "no type")
            raise SourceError(
                f"{self._name} answers no JSON ({kind}) at {_place(url)}: {error}"
            ) from None
        return Answer(content, text, answer.links.get("next", {}).get("url"))


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_NUMBER else digits


DECODER = json.JSONDecoder(parse_int=_integer)
SPACE = re.compile(r"[ \t\n\r]*")


def _list_items(text: str, at: int) -> tuple[list[str], int]:
    """The texts of a list's items, and where it ends."""
    items = []
    at = _after_space(text, at + 1)
    while text[at] != "]":
        _, end = DECODER.raw_decode(text, at)
        items.append(text[at:end])
        at = _after_comma(text, end)
    return items, at + 1


def _after_comma(text: str, at: int) -> int:
    at = _after_space(text, at)
    return _after_space(text, at + 1) if text[at] == "," else at


def _after_space(text: str, at: int) -> int:
    space = SPACE.match(text, at)
    assert space is not None
    return space.end()


def _origin(url: str) -> str:
    """Scheme, host and port, found as requests finds them: parsers differ over hostile urls."""
    parts = parse_url(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme or "")
    return f"{parts.scheme}://{parts.host}:{port}"


def _place(url: str) -> str:
    """The url without user, password, query and fragment, any of which may hold a secret."""
    return f"{_origin(url)}{parse_url(url).path or ''}"


def _reason(error: requests.RequestException) -> str:
    """What happened, without the url that requests puts in its messages."""
    cause = error.args[0] if error.args else error
    reason = getattr(cause, "reason", None) or cause
    return f"{type(error).__name__} ({type(reason).__name__})"
