"""What the sandbox's APIs can be told to do wrong, and how they do it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Body(StrEnum):
    """What to send instead of a page."""

    INVALID_JSON = "invalid_json"
    TRUNCATED = "truncated"  # half of the page, with the Content-Length of all of it
    EMPTY = "empty"
    HTML = "html"
    NOT_AN_OBJECT = "not_an_object"  # the list of clients without anything around it
    NO_CLIENTS = "no_clients"  # the list goes by another name
    CLIENTS_NOT_A_LIST = "clients_not_a_list"
    CLIENTS_NULL = "clients_null"
    CLIENTS_NOT_OBJECTS = "clients_not_objects"  # a list of the ids


class Next(StrEnum):
    """What to say of the next page instead of the truth."""

    ITSELF = "itself"  # the page that was just asked for
    FIRST = "first"  # round in a circle
    OTHER_HOST = "other_host"  # the right path and query on `Misbehaviour.other_host`
    MISSING = "missing"  # the bare page: no `next`, no header, and nothing ever follows
    NULL = "null"
    NUMBER = "number"  # not even text


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """What the server does wrong. The default is nothing.

    `on_page` (1 is the first of a call) and `times` (answers, not pages) say when it does it.
    """

    body: Body | None = None
    next: Next | None = None
    other_host: str | None = None  # scheme, host and port
    status: int | None = None  # answered with instead of the page
    retry_after: int | timedelta | str | None = None  # seconds | an HTTP date that far off | as is
    redirect: str | None = None  # a URL
    delay_seconds: float = 0.0  # before the answer
    on_page: int | None = None
    times: int | None = None


def wrong_next(
    fault: Misbehaviour, following: str | None, *, first: str, itself: str
) -> dict[str, bytes]:
    """Return the member `next` as the misbehaviour wants it, or none at all."""
    match fault.next:
        case Next.ITSELF:
            return {"next": json_bytes(itself)}
        case Next.FIRST:
            return {"next": json_bytes(first)}
        case Next.OTHER_HOST:
            return {"next": json_bytes(f"{fault.other_host}{following or itself}")}
        case Next.NULL:
            return {"next": json_bytes(None)}
        case Next.NUMBER:
            return {"next": json_bytes(2)}
        case _:
            return {}


def spoiled(members: Mapping[str, bytes], body: Body | None) -> bytes:
    """Return an answer's bytes, spoilt as `body` says; a truncated one is cut by the server.

    What spoils the list of clients is for answers that have one.
    """
    clients = members.get("clients", json_list(members.values()))
    match body:
        case Body.NOT_AN_OBJECT:
            return clients
        case Body.NO_CLIENTS:
            return json_object({"items": clients, "next": members.get("next", b"null")})
        case Body.CLIENTS_NOT_A_LIST:
            return json_object({**members, "clients": b'{"0": ' + clients + b"}"})
        case Body.CLIENTS_NULL:
            return json_object({**members, "clients": b"null"})
        case Body.CLIENTS_NOT_OBJECTS:
            return json_object({**members, "clients": b'["c-1", 2, null]'})
        case Body.INVALID_JSON:
            return json_object(members).removesuffix(b"}") + b", }"
        case Body.EMPTY:
            return b""
        case Body.HTML:
            return b"<!doctype html><title>Sign in</title>"
        case _:
            return json_object(members)


def json_bytes(value: object) -> bytes:
    """Write a value as JSON; half a surrogate pair, which UTF-8 can't hold, as an escape."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def json_list(items: Iterable[bytes]) -> bytes:
    return b"[" + b", ".join(items) + b"]"


def json_object(members: Mapping[str, bytes]) -> bytes:
    """Put members together that are JSON already (or are meant to be none)."""
    return (
        b"{"
        + b", ".join(json_bytes(name) + b": " + value for name, value in members.items())
        + b"}"
    )
