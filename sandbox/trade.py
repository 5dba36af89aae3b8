"""What happens in the made-up shop of `sandbox.shop`: orders, refunds, and what else is reported.

Data flow: seed -> cells of each day's order lines, of research, of activities, of prices
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from zoneinfo import ZoneInfo

from sandbox.chance import Chance, Weighted

Line = dict[str, str]  # the cells of an order line, by column

HOSTILE_NAME = 'Кружка "Ёлка", 0,5 л\nс крышкой \\N и \tтабуляцией'
ITEMS: Sequence[tuple[str, str, str]] = (
    ("0", "Молоко 1%", "100"),
    ("1", "Молоко 3%", "120.50"),
    ("2", "Сахар песок", "49.99"),
    ("3", "Устройство для нагревания табака «Трубка Мира»", "500"),
    ("4", "Яблоко, молодильное", "400.005"),  # half a cent: rounding shows
    ("5", "Лампочка LED 60\u00a0Вт", "300"),
    ("6", "Томаты", "50.125"),
    ("7", 'Ручка "шариковая"', "45"),
    ("8", HOSTILE_NAME, "999.999"),
    ("009", "Хлеб ржаной", "20"),  # text, and not 9
)
CITIES: Sequence[tuple[str, str]] = (
    ("0", "Москва"),
    ("1", "Ростов"),
    ("2", "Ярославль"),
    ("3", "Санкт-Петербург"),
)
FIRST_NAMES = ("Анна", "Константин", "Пётр", "Оксана", "Геннадий", "D'Arcy", "Ünal", "测试")
LAST_NAMES = ("Васильев", "Соколов", "Петров-Водкин", "Морозова", "O'Neil, Jr.", "Смирнов ")

_CITY_WEIGHTS = Weighted((50, 20, 20, 10))
_QUANTITIES = ("1", "1", "1", "2", "3", "4", "0.5", "1.2345", "12", "0")
_WEEKEND_SHARE = 0.6
_SHARE_OF_REFUNDS = 0.15
_SHARE_REFUNDED_SAME_DAY = 0.3
_REFUNDED_WITHIN_DAYS = 6
_SHARE_OF_LINES_WITHOUT = {"customer": 0.04, "item": 0.02, "city": 0.02}
_SHARE_WITH_OFFSET = 0.03
_SHARE_AT_MIDNIGHT = 0.1
_ONLY_REFUNDS_EVERY = 12  # each nth customer never buys, and has been refunded all the same
_RENAMED_AFTER_DAYS = 3
_MORE_LINES = 3  # of a correction
_ABROAD = ZoneInfo("Asia/Tokyo")
_BUSINESS = ZoneInfo("Europe/Moscow")


@dataclass(frozen=True)
class Trade:
    """The shop's days, each made by itself: asking for one costs nothing of the others."""

    seed: int
    start: date
    customers: int
    orders_per_day: int

    def lines(self, day: date, more: int = 0) -> tuple[Line, ...]:
        """The order lines of a day, by time; `more` is the number of a correction that adds some."""
        return _lines(self, day, more)

    def prices(self, day: date) -> list[list[str]]:
        """The price list of a day: item_name, price. It has no header."""
        return [[self.item_name(item, day), price] for item, (_, _, price) in enumerate(ITEMS)]

    def research(self, days: Sequence[date]) -> Iterator[list[str]]:
        """Research of the days, with its header."""
        yield ["date_id", "category_id", "geo_id", "sales_qty", "sales_amt"]
        for day in days:
            chance = Chance(self.seed, "research", day)
            for category in range(1001, 1006):
                for geo in range(1, 4):
                    sold = chance.below(10)
                    yield [f"{day}T00:00:00", str(category), str(geo), str(sold), str(sold * 1012)]

    def activities(self, days: Sequence[date]) -> Iterator[list[str]]:
        """Activities of the days, with their header."""
        yield ["id", "uniq_id", "date_time", "action_id", "customer_id", "quantity"]
        number = 0
        for day in days:
            chance = Chance(self.seed, "activities", day)
            for _ in range(10):
                number += 1
                yield [
                    str(number),
                    _hex("activity", self.seed, day, number),
                    f"{day}T{chance.below(24):02d}:00:00",
                    str(chance.below(4)),
                    str(chance.below(self.customers)),
                    str(chance.between(1, 25)),
                ]

    def item_name(self, item: int, day: date) -> str:
        """The name of the n-th item on a day: the first ones are renamed after some days."""
        name = ITEMS[item][1]
        renamed = item < 3 and day >= self.start + timedelta(days=_RENAMED_AFTER_DAYS)
        return f"{name} (новая упаковка)" if renamed else name

    def person(self, customer: int, day: date) -> tuple[str, str]:
        """A customer's names on a day: some marry."""
        chance = Chance(self.seed, "person", customer)
        first, last = chance.pick(FIRST_NAMES), chance.pick(LAST_NAMES)
        marries = self.start + timedelta(days=chance.below(20))
        return first, chance.pick(LAST_NAMES) if day >= marries else last


@cache
def _lines(trade: Trade, day: date, more: int) -> tuple[Line, ...]:
    chance = Chance(trade.seed, "trade", day, more)
    busy = 1 if day.isoweekday() <= 5 else _WEEKEND_SHARE
    count = _MORE_LINES if more else max(1, int(trade.orders_per_day * busy))
    lines: list[tuple[datetime, Line]] = []
    for number in range(count):
        key = (trade.seed, day, more, number)
        customer = _customer(trade, chance)
        if chance.happens(_SHARE_OF_REFUNDS) or customer % _ONLY_REFUNDS_EVERY == 0:
            status = "refunded"
        else:
            # An empty cell is `shipped` too.
            status = "shipped" if chance.happens(0.9) else ""
        moment = _moment(day, chance)
        lines.append((moment, _line(trade, key, customer, moment, status, chance)))
    for refunded_at, line in _refunds_of_earlier_orders(trade, day, chance) if not more else ():
        lines.append((refunded_at, line))
    lines.sort(key=lambda pair: pair[0])
    return tuple(line for _, line in lines)


def _customer(trade: Trade, chance: Chance) -> int:
    """Few buy often and many once: the lower of two draws."""
    return min(chance.below(trade.customers), chance.below(trade.customers))


def _refunds_of_earlier_orders(
    trade: Trade, day: date, chance: Chance
) -> Iterator[tuple[datetime, Line]]:
    """Refunds of what was bought today or some days ago: rows without a link to their orders."""
    for number in range(max(1, trade.orders_per_day // 20)):
        key = (trade.seed, day, "refund", number)
        back = (
            0 if chance.happens(_SHARE_REFUNDED_SAME_DAY) else chance.below(_REFUNDED_WITHIN_DAYS)
        )
        bought = Chance(trade.seed, "trade", day - timedelta(days=back), 0)
        customer = _customer(trade, bought)  # the first one who bought on that day
        moment = _moment(day, chance)
        yield moment, _line(trade, key, customer, moment, "refunded", chance)


def _line(
    trade: Trade,
    key: tuple[object, ...],
    customer: int,
    moment: datetime,
    status: str,
    chance: Chance,
) -> Line:
    item = min(chance.below(len(ITEMS)), chance.below(len(ITEMS)))
    city_id, city_name = CITIES[_CITY_WEIGHTS.draw(chance)]
    first, last = trade.person(customer, moment.date())
    quantity = chance.pick(_QUANTITIES)
    line = {
        "uniq_id": _hex(*key),
        "date_time": _spelled(moment, chance),
        "city_id": city_id,
        "city_name": city_name,
        "customer_id": str(customer),
        "first_name": first,
        "last_name": last,
        "item_id": ITEMS[item][0],
        "item_name": trade.item_name(item, moment.date()),
        "quantity": quantity,
        "payment_amount": str(Decimal(ITEMS[item][2]) * Decimal(quantity)),
        "status": status,
    }
    for what, share in _SHARE_OF_LINES_WITHOUT.items():
        if chance.happens(share):
            line[f"{what}_id"] = ""
    return line


def _moment(day: date, chance: Chance) -> datetime:
    """A naive instant of a business day; as in the real files, often its very beginning."""
    if chance.happens(_SHARE_AT_MIDNIGHT):
        return datetime.combine(day, time())
    seconds = chance.below(86_400)
    micro = chance.pick((0, 0, 0, 123_000, 999_999))
    return datetime.combine(day, time()) + timedelta(seconds=seconds, microseconds=micro)


def _spelled(moment: datetime, chance: Chance) -> str:
    """An instant as the source writes it: mostly naive, now and then with an offset."""
    if chance.happens(_SHARE_WITH_OFFSET):
        aware = moment.replace(tzinfo=_BUSINESS)
        there = aware.astimezone(UTC if chance.happens(0.5) else _ABROAD)
        return there.isoformat().replace("+00:00", "Z")
    return moment.isoformat(sep="T" if chance.happens(0.8) else " ")


def moved(line: Line, day: date) -> Line:
    """The line, dated on another day: its identity stays."""
    return {**line, "date_time": f"{day}T12:00:00"}


def _hex(*key: object) -> str:
    return hashlib.md5("/".join(map(str, key)).encode(), usedforsecurity=False).hexdigest()
