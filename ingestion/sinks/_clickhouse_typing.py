"""Texts of delivered files as typed values, in ClickHouse's SQL: what is usable, and why the rest is not.

ClickHouse reads more as an instant or a number than we take, moves what it has no day for, and cuts
digits off. So patterns say what is one, days are checked by writing them down again, and numbers are
read with more digits than any column has, then rounded half away from zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

from ingestion.clickhouse_http import named, quoted
from ingestion.tables import NUMBER, Field, FileTable, Kind

INSTANT = (
    r"^(\d{4}-\d\d-\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(Z|[+-]\d\d(?::?\d\d)?)?)?$"
)
# Of the numbers these are 0, whatever their exponent.
ZERO = r"^ *[+-]?[0.]+([eE ]|$)"
# With this sign, and a digit other than 0 before the exponent.
NEGATIVE = r"^ *-[0.]*[1-9]"
SCALES = {Kind.QUANTITY: 3, Kind.MONEY: 2}
DIGITS = 18
# Of the 76 digits that a number is read with; those behind can't change how it is rounded.
READ_SCALE = 40
SEPARATOR, NOTHING = "char(31)", "char(30)"
DAY_MICROS = 86_400_000_000
LONGEST_OFFSET_HOURS = 15


def cells_of(
    fields: Iterable[Field], relation: str, line: str, zone: ZoneInfo | None = None
) -> str:
    """The rows of `relation` as a subquery: `line`, texts with null for empty ones, and what typing
    needs of each: the parts of an instant, the digits of a number. Without a zone no instants."""
    known = list(fields)
    texts = ", ".join(f"nullIf(cells.{named(f.name)}, '') as {named(f.name)}" for f in known)
    query = f"(select * replace({texts}), {line} as line from {relation} as cells)"
    parsed = [part for f in known for part in _parsed(f)]
    if parsed:
        query = f"(select *, {', '.join(parsed)} from {query})"
    instants = [f for f in known if f.kind is Kind.INSTANT]
    if instants:
        local = ", ".join(part for f in instants for part in _clock(f))
        query = f"(select *, {local} from {query})"
    if instants and zone is not None:
        typed = ", ".join(f"{_utc(f, zone)} as {_of(f, 'at')}" for f in instants)
        query = f"(select *, {typed} from {query})"
    return query


def reason_of(fields: Iterable[Field]) -> str:
    """Why a row of `cells_of` can't be used, or null; the first reason of the first column."""
    cases = [part for field in fields for part in _cases(field)]
    return f"coalesce(_reason, multiIf({', '.join([*cases, 'null'])}))"


def values_of(table: FileTable, zone: ZoneInfo) -> dict[str, str]:
    """The columns of the raw table, but for line and slot, from those of `cells_of`."""
    values = {field.name: _value(field) for field in table.fields}
    if table.dated_by is not None:
        dated_by = next(field for field in table.fields if field.name == table.dated_by)
        # Written down: conversions of dates go round at the ends of the calendar.
        values["ds"] = f"toDate32(toTimeZone({_value(dated_by)}, {quoted(zone.key)}))"
    if table.identity is not None:
        texts = [
            f"coalesce({_text(field, values[field.name])}, {NOTHING})"
            for field in table.fields
            if field.name in table.identity.content
        ]
        content = f"arrayStringConcat([{', '.join(texts)}], {SEPARATOR})"
        values[table.identity.name] = (
            f"coalesce({named(table.identity.key)}, lower(hex(MD5({content}))))"
        )
    return values


def _parsed(field: Field) -> Iterator[str]:
    column = f"ifNull({named(field.name)}, '')"
    if field.kind is Kind.INSTANT:
        yield f"extractGroups({column}, {quoted(INSTANT)}) as {_of(field, 'parts')}"
    if field.kind in SCALES:
        scale = SCALES[field.kind]
        number = (
            f"toDecimal256OrNull(replaceRegexpOne(trimBoth({column}), '^\\\\+', ''), {READ_SCALE})"
        )
        number = f"if(match({column}, {quoted(ZERO)}), toDecimal256(0, {READ_SCALE}), {number})"
        yield f"round({number}, {scale}) as {_of(field, 'number')}"


def _clock(field: Field) -> Iterator[str]:
    """Whether the parts make an instant; its local time and offset in microseconds."""
    parts = _of(field, "parts")
    day, hour, minute, second = (
        f"toDate32OrNull({parts}[1])",
        *(f"toInt64(toUInt8OrZero({parts}[{n}]))" for n in (2, 3, 4)),
    )
    micros = f"toInt64(toUInt32OrZero(rightPad({parts}[5], 6, '0')))"
    sign = f"if(startsWith({parts}[6], '-'), -1, 1)"
    offset_hour = f"toInt64(toUInt8OrZero(substring({parts}[6], 2, 2)))"
    offset_minute = f"toInt64(toUInt8OrZero(substring(replaceAll({parts}[6], ':', ''), 4, 2)))"
    # As PostgreSQL has it: midnight may be 24:00, and a minute a second 60.
    yield (
        f"(notEmpty({parts}) and ifNull(toString({day}), '') = {parts}[1] and"
        f" {parts}[1] >= '0002-01-01' and {parts}[1] < '9999-01-01' and {minute} < 60 and {second} <= 60 and"
        f" ({hour} < 24 or ({hour} = 24 and {minute} + {second} + {micros} = 0)) and"
        f" {offset_hour} <= {LONGEST_OFFSET_HOURS} and {offset_minute} < 60)"
        f" as {_of(field, 'is_instant')}"
    )
    yield (
        f"toInt64(toInt32(ifNull({day}, toDate32('1970-01-01')))) * {DAY_MICROS}"
        f" + ({hour} * 3600 + {minute} * 60 + {second}) * 1000000 + {micros} as {_of(field, 'local')}"
    )
    yield (
        f"if({parts}[6] = '', null, {sign} * ({offset_hour} * 3600 + {offset_minute} * 60) * 1000000)"
        f" as {_of(field, 'offset')}"
    )


def _utc(field: Field, zone: ZoneInfo) -> str:
    """The instant. A local time that a zone has twice is the later one, one that it has not is as
    far from midnight as if the clocks had not gone on: PostgreSQL's rule."""
    local, offset = _of(field, "local"), _of(field, "offset")

    def zone_offset(micros: str) -> str:
        at = f"toTimeZone(fromUnixTimestamp64Micro({micros}, 'UTC'), {quoted(zone.key)})"
        return f"toInt64(timeZoneOffset({at})) * 1000000"

    before, after = zone_offset(f"{local} - {DAY_MICROS}"), zone_offset(f"{local} + {DAY_MICROS}")
    in_zone = f"if({before} = {after} or {zone_offset(f'{local} - {after}')} != {after}, {before}, {after})"
    return f"fromUnixTimestamp64Micro({local} - ifNull({offset}, {in_zone}), 'UTC')"


def _cases(field: Field) -> Iterator[str]:
    column = named(field.name)

    def case(condition: str, what: str) -> str:
        return f"ifNull({condition}, false), {quoted(f'{field.name} {what}')}"

    if field.required and field.default is None:
        yield case(f"{column} is null", "is empty")
    if field.allowed:
        allowed = ", ".join(map(quoted, field.allowed))
        yield case(
            f"{column} is not null and {column} not in ({allowed})",
            f"is none of {', '.join(field.allowed)}",
        )
    if field.longest is not None:
        yield case(f"length({column}) > {field.longest}", f"is longer than {field.longest} bytes")
    if field.kind is Kind.INSTANT:
        yield case(
            f"{column} is not null and not {_of(field, 'is_instant')}",
            "is no instant",
        )
    if field.kind in SCALES:
        number, scale = _of(field, "number"), SCALES[field.kind]
        yield case(f"not match({column}, {quoted(NUMBER)})", "is no number")
        if field.minimum is not None:
            less = f"{number} < {field.minimum}"
            if field.minimum == 0:  # also where it is rounded to 0, or has too many digits
                less = f"match({column}, {quoted(NEGATIVE)})"
            yield case(less, f"is less than {field.minimum}")
        limit = "1" + "0" * (DIGITS - scale)
        yield case(
            f"{column} is not null and ({number} is null or abs({number}) >= toDecimal256('{limit}', 0))",
            "is too great",
        )


def _value(field: Field) -> str:
    if field.kind in SCALES:
        scale = SCALES[field.kind]
        number = f"toDecimal64OrNull(toString({_of(field, 'number')}), {scale})"
        return f"assumeNotNull({number})" if field.required else number
    if field.kind is Kind.INSTANT:
        at = _of(field, "at")
        return at if field.required else f"if({named(field.name)} is null, null, {at})"
    if field.default is not None:
        return f"coalesce({named(field.name)}, {quoted(field.default)})"
    return named(field.name)


def _text(field: Field, value: str) -> str:
    """A typed value as the text that identities are made of."""
    if field.kind is Kind.INSTANT:
        return f"toString({value})"
    if field.kind in SCALES:
        return f"toDecimalString({value}, {SCALES[field.kind]})"
    return value


def _of(field: Field, what: str) -> str:
    """The name of something that typing makes of a field; no file has such a column."""
    return named(f"__{field.name}__{what}")
