"""What a few hand-made deliveries of orders must give, by brute force: every table from all lines."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.models.raw import LINE

# The report's slot is None, an increment's its date.
Slots = Mapping[date | None, Sequence[dict[str, Any]]]
Row = tuple[Any, ...]
ZERO = Decimal("0.00")


def holding(slots: Slots) -> list[dict[str, Any]]:
    """The line that holds of each order, sorted by order."""
    best: dict[str, tuple[tuple[bool, date, int], dict[str, Any]]] = {}
    for slot, lines in slots.items():
        for line_no, line in enumerate(lines):
            if slot is None and line["ds"] in slots:
                continue
            rank = (slot is not None, slot or date.min, line_no)
            known = best.get(line["order_id"])
            if known is None or known[0] < rank:
                best[line["order_id"]] = rank, {**LINE, **line}
    return [best[order_id][1] for order_id in sorted(best)]


def sales(slots: Slots) -> list[Row]:
    """f_sales: ds, order_id, customer_id, item_id, city_id, status, quantity, payment_amount."""
    found = []
    for line in holding(slots):
        sign = -1 if line["status"] == "refunded" else 1
        keys = (line.get(k) for k in ("ds", "order_id", "customer_id", "item_id", "city_id"))
        amounts = (sign * Decimal(line[k]) for k in ("quantity", "payment_amount"))
        found.append((*keys, line["status"], *amounts))
    return found


def periods(ds: date) -> Iterator[tuple[str, date]]:
    """The week and the month of a day."""
    yield "weekly", ds - timedelta(days=ds.weekday())
    yield "monthly", ds.replace(day=1)


def retention(slots: Slots, *, by_item: bool = False) -> list[Row]:
    """Both retention marts, sorted by their keys; the item follows the period."""
    groups: dict[Row, list[Row]] = {}
    for row in sales(slots):
        if not by_item or row[3] is not None:
            for period in periods(row[0]):
                key = (*period, row[3]) if by_item else period
                groups.setdefault(key, []).append(row)
    return [(*key, *_measures(groups[key])) for key in sorted(groups)]


def _measures(rows: Sequence[Row]) -> Row:
    orders: dict[str, int] = {}
    refunds: dict[str, int] = {}
    revenue: dict[str, Decimal] = {}
    for _, _, customer, _, _, status, _, amount in rows:
        if customer is not None:
            counted = refunds if status == "refunded" else orders
            counted[customer] = counted.get(customer, 0) + 1
            revenue[customer] = revenue.get(customer, ZERO) + amount
    new = [c for c, n in orders.items() if n == 1]
    back = [c for c, n in orders.items() if n > 1]
    return (
        len(new),
        sum((revenue[c] for c in new), ZERO),
        len(back),
        sum((revenue[c] for c in back), ZERO),
        len(refunds),
        sum(refunds.values()),
    )


def names(slots: Slots, key: str, *columns: str) -> list[Row]:
    """A dimension: the key, the names of its newest order and that order, sorted by key."""
    lines = holding(slots)
    # The instants of one case are written alike, so that their texts are in order.
    lines.sort(key=lambda line: (instant(line), line["order_id"].encode()))
    newest = {line[key]: line for line in lines if line.get(key) is not None}
    return [
        (
            value,
            *(newest[value].get(c) for c in columns),
            newest[value]["ds"],
            datetime.fromisoformat(instant(newest[value])),
            newest[value]["order_id"],
        )
        for value in sorted(newest)
    ]


def instant(line: Mapping[str, Any]) -> str:
    """When a line happened: at noon where it does not say."""
    return str(line.get("date_time") or f"{line['ds']} 12:00Z")


def expected(slots: Slots) -> dict[str, list[Row]]:
    """Every table that people read."""
    return {
        "core.f_sales": sales(slots),
        "core.d_customer": names(slots, "customer_id", "first_name", "last_name"),
        "core.d_item": names(slots, "item_id", "item_name"),
        "core.d_city": names(slots, "city_id", "city_name"),
        "marts.f_customer_retention": retention(slots),
        "marts.f_customer_retention_by_item": retention(slots, by_item=True),
    }


def random_lines(
    chance: random.Random, days: Sequence[date], orders: int = 12
) -> list[dict[str, Any]]:
    """Lines of few orders, customers and items, so that they meet; any day of any line may differ."""
    return [
        {
            "ds": (ds := chance.choice(days)),
            "date_time": f"{ds} {chance.randrange(6, 9):02}:00Z",
            "order_id": f"o{chance.randrange(orders)}",
            "customer_id": chance.choice(["a", "b", "B", "c", None]),
            "first_name": chance.choice(["Ann", "Bob", None]),
            "last_name": chance.choice(["Я", "", None]),
            "item_id": chance.choice(["1", "2", None]),
            "item_name": chance.choice(["Milk", "Tea"]),
            "city_id": chance.choice(["7", None]),
            "city_name": chance.choice(["Tver", "Omsk"]),
            "quantity": Decimal(chance.randrange(0, 3000)) / 1000,
            "payment_amount": Decimal(chance.randrange(0, 100_000)) / 100,
            "status": chance.choice(["shipped", "shipped", "refunded"]),
        }
        for _ in range(chance.randrange(0, 25))
    ]
