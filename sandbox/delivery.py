"""What the order source delivers at a time: a report, or the increment of a day."""

import base64
import datetime as dt
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

FILES = ("customer_research", "user_order_log", "user_activity_log", "price_log")
_ID_LENGTH = 32  # characters, which leaves base64 with a `=`
_ID = re.compile(f"[0-9a-f]{{{_ID_LENGTH}}}")


class Kind(StrEnum):
    """The two kinds of delivery."""

    REPORT = "report"
    INCREMENT = "increment"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Files as they are in S3, by their names in SPEC.md; one that is not delivered is not in it.

    `date` is an increment's day and None for a report; `start` and `end` (inclusive) are what the
    API says of a report, and the day itself for an increment.
    """

    kind: Kind
    date: dt.date | None
    id: str  # report_id or increment_id
    start: dt.date
    end: dt.date
    files: Mapping[str, bytes] = field(repr=False)


def report(start: dt.date, end: dt.date, files: Mapping[str, bytes], *key: object) -> Delivery:
    """A report of the days [start, end]; its id comes of the dates and of `key`."""
    return Delivery(Kind.REPORT, None, _made_id(Kind.REPORT, start, end, *key), start, end, files)


def increment(day: dt.date, files: Mapping[str, bytes], *key: object) -> Delivery:
    """The increment of a day; its id comes of the day and of `key`."""
    return Delivery(
        Kind.INCREMENT, day, _made_id(Kind.INCREMENT, day, *key), start=day, end=day, files=files
    )


def is_id(text: str) -> bool:
    """Whether it could be the id of a delivery, of this run of the sandbox or of an earlier one."""
    try:
        return _ID.fullmatch(base64.b64decode(text, validate=True).decode()) is not None
    except ValueError:
        return False


def _made_id(*key: object) -> str:
    """An id as that API makes them: base64 of text, with the `=` at its end."""
    text = hashlib.sha256("/".join(map(str, key)).encode()).hexdigest()[:_ID_LENGTH]
    return base64.b64encode(text.encode()).decode()
