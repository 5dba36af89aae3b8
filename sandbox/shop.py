"""A made-up shop and the files that its order source delivers, the same to the byte for a seed.

    shop = Shop(seed=7, start=date(2024, 12, 28), days=10)
    shop.report(date(2025, 1, 2))              # a Delivery: the days up to it (exclusive)
    shop.increment(date(2025, 1, 2))           # that day's; None: NOT FOUND
    shop.increment(date(2025, 1, 2), version=1)  # the same day, delivered again, corrected

Data flow: seed -> orders and refunds of each day (`sandbox.trade`) -> lines of a delivery, some sent
more than once, some in no usable state -> CSV as the source happens to write it that day

What makes it worth testing against:
- Ids repeat, within a file, across files and across days; some copies differ.
- Refunds are rows of their own, on the day or later; some customers have nothing else.
- Days come out of step: an increment holds rows of days before it, and of days before the shop.
- One day is NOT FOUND at first, one is empty (a header alone), though the report has rows of it.
- Each file is written in one of the ways of `_WAYS`: without `status`, without `uniq_id`, columns in
  another order, new ones, a BOM and CRLF, everything quoted, no newline at the end.
- Cells hold Russian text, quotes, commas, newlines, backslashes; money has too many decimals.
- Some lines can't be used: no number, negative, an unknown status, a wrong number of cells, no UTF-8.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from sandbox.chance import Chance
from sandbox.delivery import Delivery, Kind, increment, report
from sandbox.trade import Line, Trade, moved

__all__ = ["ORDER_COLUMNS", "Delivery", "Kind", "Shop"]

# The contract's columns in the order of SPEC.md; the source adds and drops some.
ORDER_COLUMNS = (
    "id",
    "uniq_id",
    "date_time",
    "city_id",
    "city_name",
    "customer_id",
    "first_name",
    "last_name",
    "item_id",
    "item_name",
    "quantity",
    "payment_amount",
    "status",
)
NEW_COLUMNS = ("channel", "комментарий")
_OPTIONAL = frozenset({"id", "uniq_id", "city_name", "first_name", "last_name", "item_name"})

_SHARE_SENT_AGAIN = 0.35  # of the lines, within a file
_SHARE_OF_COPIES_THAT_DIFFER = 0.2
_SHARE_UNUSABLE = 0.02  # of the lines, and three at least
_RESENT = 10  # lines of days before, in each increment
_RESENT_FROM_DAYS = 4
_SMALLEST_WITH_ODD_DAYS = 6  # days


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the ways in which the source writes a file."""

    without: frozenset[str] = frozenset()
    new_columns: bool = False
    shuffled: bool = False
    bom: bool = False
    newline: str = "\n"
    all_quoted: bool = False
    last_newline: bool = True
    broken_lines: bool = False  # lines that no CSV reader takes for records of this file


_PLAIN = _Way()
# By turns, from the shop's first day on.
_WAYS = (
    _Way(without=_OPTIONAL, new_columns=True, shuffled=True),
    _Way(without=frozenset({"status"})),
    _Way(without=frozenset({"uniq_id"}), broken_lines=True),
    _Way(bom=True, newline="\r\n"),
    _Way(shuffled=True, new_columns=True),
    _Way(all_quoted=True, last_newline=False, broken_lines=True),
    _PLAIN,
)

# What a cell becomes in a line that can't be used.
_UNUSABLE: Sequence[tuple[str, str]] = (
    ("payment_amount", "-100.00"),
    ("payment_amount", ""),
    ("payment_amount", "сто рублей"),
    ("payment_amount", "NaN"),
    ("payment_amount", "12,50"),
    ("payment_amount", "1e20"),  # beyond numeric(18, 2)
    ("quantity", "-1"),
    ("quantity", "Infinity"),
    ("quantity", ""),
    ("quantity", "два"),
    ("date_time", ""),
    ("date_time", "2024-13-45T00:00:00"),
    ("date_time", "yesterday"),  # words that PostgreSQL takes for instants
    ("date_time", "infinity"),
    ("status", "cancelled"),
    ("status", "SHIPPED"),
    ("status", "refunded "),
)


@dataclass(frozen=True)
class Shop:
    """`days` business days from `start` on. All oddities are in it from 10 days on."""

    seed: int
    start: date
    days: int = 10
    customers: int = 60
    orders_per_day: int = 40

    @property
    def end(self) -> date:
        """The first day that is out."""
        return self.start + timedelta(days=self.days)

    @property
    def late_day(self) -> date | None:
        """The one day that is NOT FOUND until its version 1; a short shop has none."""
        return self._odd_day(self.days - 2)

    @property
    def empty_day(self) -> date | None:
        """The one day whose increment is a header alone; a short shop has none."""
        return self._odd_day(self.days - 3)

    def report(self, until: date, version: int = 0) -> Delivery:
        """The days [start, until), which is at least one. A later version is corrected."""
        days = [self.start + timedelta(days=number) for number in range((until - self.start).days)]
        if not days:
            raise ValueError(f"a report up to {until} has no day: the shop starts on {self.start}")
        chance = Chance(self.seed, "report", until, version)
        lines = [line for day in days for line in self._corrected(day, version)]
        files = self._files(_sent(lines, chance), days, _PLAIN, chance)
        return report(days[0], days[-1], files, self.seed, version)

    def increment(self, day: date, version: int = 0) -> Delivery | None:
        """A day's increment as it is at first or, by version, after so many corrections.

        None (NOT FOUND) for a day out of the shop's, and for `late_day` at first. The first
        correction replaces the files under the id of the original, the next one has its own.
        """
        if not self.start <= day < self.end or (day == self.late_day and version == 0):
            return None
        chance = Chance(self.seed, "increment", day, version)
        way = _WAYS[(day - self.start).days % len(_WAYS)]
        lines: list[Line] = []
        if day != self.empty_day:
            lines = _sent([*self._corrected(day, version), *self._resent(day, chance)], chance)
        files = self._files(lines, [day], way, chance)
        return increment(day, files, self.seed, version // 2)

    def increments(self, start: date, end: date, version: int = 0) -> list[Delivery]:
        """The increments of the days [start, end) that are found."""
        days = (start + timedelta(days=number) for number in range((end - start).days))
        return [made for day in days if (made := self.increment(day, version)) is not None]

    def _odd_day(self, number: int) -> date | None:
        return self.start + timedelta(days=number) if self.days >= _SMALLEST_WITH_ODD_DAYS else None

    @cached_property
    def _trade(self) -> Trade:
        return Trade(self.seed, self.start, self.customers, self.orders_per_day)

    def _corrected(self, day: date, version: int) -> list[Line]:
        """A day's lines; each correction takes some away, changes some, and adds some."""
        lines = list(self._trade.lines(day))
        for number in range(1, version + 1):
            chance = Chance(self.seed, "correction", day, number)
            lines = [
                _differing(line, chance) if chance.happens(0.1) else line
                for line in lines
                if not chance.happens(0.07)
            ]
            lines += self._trade.lines(day, more=number)
        return lines

    def _resent(self, day: date, chance: Chance) -> list[Line]:
        """Lines of the days before, changed: half of them keep their day, half are dated anew."""
        before = [
            line
            for number in range(1, _RESENT_FROM_DAYS + 1)
            for line in self._trade.lines(day - timedelta(days=number))
        ]
        chosen = [before[index] for index in chance.distinct(len(before), _RESENT)]
        return [
            _differing(moved(line, day) if number % 2 else line, chance)
            for number, line in enumerate(chosen)
        ]

    def _files(
        self, lines: list[Line], days: Sequence[date], way: _Way, chance: Chance
    ) -> dict[str, bytes]:
        columns = [name for name in ORDER_COLUMNS if name not in way.without]
        columns += NEW_COLUMNS if way.new_columns else ()
        if way.shuffled:
            columns = [columns[index] for index in chance.distinct(len(columns), len(columns))]
        if lines:
            lines = _with_unusable(lines, chance)
        for number, line in enumerate(lines, 1):
            line["id"] = str(number)
            line.update((name, _novel(name, chance)) for name in columns if name in NEW_COLUMNS)
        records = [[line[name] for name in columns] for line in lines]
        encoded = [_encoded(record, way) for record in records]
        if way.broken_lines and lines:
            _break(encoded, records, chance, way)
        trade = self._trade
        return {
            "user_order_log": _file([_encoded(columns, way), *encoded], way),
            "customer_research": _file(_rows(trade.research(days), way), way),
            "user_activity_log": _file(_rows(trade.activities(days), way), way),
            "price_log": _file(_rows(trade.prices(days[-1]), way), way),
        }


def _sent(lines: Sequence[Line], chance: Chance) -> list[Line]:
    """The lines with those that are sent again, later in the file, some of them changed."""
    sent = [dict(line) for line in lines]
    for line in lines:
        while chance.happens(_SHARE_SENT_AGAIN):
            differs = chance.happens(_SHARE_OF_COPIES_THAT_DIFFER)
            sent.append(_differing(line, chance) if differs else dict(line))
    # Copies are anywhere behind: which of those that differ is the last one is left to chance.
    order = sorted(range(len(sent)), key=lambda index: (index < len(lines), chance.unit()))
    return [sent[index] for index in reversed(order)]


def _differing(line: Line, chance: Chance) -> Line:
    """A copy of a line with something else in it, and the same identity."""
    changes: Sequence[Callable[[], Line]] = (
        lambda: {"payment_amount": f"{chance.between(1, 900)}.{chance.below(100):02d}"},
        lambda: {"quantity": str(chance.between(1, 9)), "payment_amount": "77.77"},
        lambda: {"status": "refunded" if line["status"] != "refunded" else "shipped"},
        lambda: {"city_id": "", "city_name": ""},
        lambda: {"customer_id": "", "first_name": "", "last_name": ""},
    )
    return {**line, **chance.pick(changes)()}


def _with_unusable(lines: Sequence[Line], chance: Chance) -> list[Line]:
    """The lines with some between them that can't be used: copies of good ones, and new ids."""
    mixed = list(lines)
    for number in range(max(3, int(len(lines) * _SHARE_UNUSABLE))):
        name, value = chance.pick(_UNUSABLE)
        spoilt = {**chance.pick(lines), name: value}
        if number % 2:  # the other half are copies of good lines, which hold all the same
            spoilt["uniq_id"] = f"unusable-{number}"
        mixed.insert(chance.below(len(mixed) + 1), spoilt)
    return mixed


def _break(encoded: list[bytes], records: list[list[str]], chance: Chance, way: _Way) -> None:
    """Put lines in that have a cell too many or too few, or are no UTF-8."""
    broken = (
        _encoded([*chance.pick(records), "лишнее"], way),
        _encoded(chance.pick(records)[:-2], way),
        b"\xff\xfe" + _encoded(chance.pick(records), _PLAIN),
    )
    for line in broken:
        # Never the last one: cut there, it would be a file that was cut.
        encoded.insert(chance.below(len(encoded)), line)


def _novel(column: str, chance: Chance) -> str:
    """A cell of a column that the contract does not know."""
    return chance.pick(("web", "app", "")) if column == "channel" else 'позвонить, "срочно"'


def _encoded(cells: Sequence[str], way: _Way) -> bytes:
    """A record as one writes it, without the newline behind it."""
    text = io.StringIO()
    if way.all_quoted:
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
    else:
        csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue().encode()


def _rows(rows: Iterable[Sequence[str]], way: _Way) -> list[bytes]:
    return [_encoded(row, way) for row in rows]


def _file(records: Sequence[bytes], way: _Way) -> bytes:
    newline = way.newline.encode()
    content = newline.join(records) + (newline if way.last_newline and records else b"")
    return (b"\xef\xbb\xbf" if way.bom else b"") + content
