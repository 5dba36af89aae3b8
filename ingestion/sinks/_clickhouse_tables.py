"""Raw tables on ClickHouse: their types, engines and partitions, and making them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ingestion.clickhouse_http import Clickhouse, named, quoted
from ingestion.errors import SinkError
from ingestion.tables import Column, DayTable, FileTable, Kind, RawTable, StateTable, VersionTable

RAW = "raw"
# Side tables of loads in progress, and locks: a hundred of them would hide the tables of `raw`.
WORK = "raw_work"
DATABASES = (RAW, WORK, "staging", "ods", "core", "marts")
SCHEMA_VERSION = 1

TYPES: Mapping[Kind, str] = {
    Kind.TEXT: "String",
    Kind.BIGINT: "Int64",
    Kind.DOUBLE: "Float64",
    Kind.DATE: "Date32",
    Kind.INSTANT: "DateTime64(6, 'UTC')",
    Kind.QUANTITY: "Decimal(18, 3)",
    Kind.MONEY: "Decimal(18, 2)",
}
INSTANT = TYPES[Kind.INSTANT]
# The partition of tables that are replaced by slots: increments have one a month, the report its own.
SLOT_MONTH = "ifNull(toYYYYMM(slot_date), 0)"
# On a cluster each server holds all of the raw tables, of whatever shard it is: what is landed is read
# by every model, and a partition is then replaced everywhere in one step.
REPLICATED = "ReplicatedMergeTree('/clickhouse/tables/{uuid}', '{shard}-{replica}')"
SERVED = Column("_served_no", Kind.BIGINT, nullable=False)

# Name to columns, order and comment. As on PostgreSQL; numbers are given out under a lock.
LEDGER: Mapping[str, tuple[str, str, str]] = {
    "raw.schema_versions": (
        f"version Int32, applied_at {INSTANT} default now64(6, 'UTC')",
        "order by version",
        "The versions of Vitrina that made these tables.",
    ),
    "raw.settings": (
        "name String, value String",
        "order by name",
        "What all that was landed has in common: the zone in which days were cut.",
    ),
    "raw.loads": (
        "load_id Int64, source String, window_start Nullable(Date32), window_end Nullable(Date32),"
        " cursor String, days String, changed String, rows_landed Int64, rows_quarantined Int64,"
        f" started_at {INSTANT}, finished_at {INSTANT}",
        "order by load_id",
        "The ledger: a row a finished load, numbered in the order of the commits.",
    ),
    "raw.builds": (
        "build_id Int64, domain String, load_id Int64, days String,"
        f" planned_at {INSTANT} default now64(6, 'UTC'), finished_at Nullable({INSTANT}),"
        " is_void Bool default false",
        "order by build_id",
        "Planned and finished builds: which days, up to which load.",
    ),
    "raw.quarantine": (
        "quarantine_id Int64, source String, place String, payload String, encoding String,"
        f" reason String, occurrence Int64, quarantined_at {INSTANT} default now64(6, 'UTC')",
        "order by (source, quarantine_id)",
        "What landing could not use, with its reason; never dropped.",
    ),
    "raw.outbox": (
        "message_key String, recipient String, body String, attempts Int32 default 0,"
        f" last_error Nullable(String), created_at {INSTANT} default now64(6, 'UTC'),"
        f" sent_at Nullable({INSTANT})",
        "order by message_key",
        "Messages to people, each sent once whatever is retried.",
    ),
    "raw_work.intents": (
        f"source String, made_at {INSTANT} default now64(6, 'UTC'), intent String",
        "partition by source order by made_at",
        "Loads that are complete aside and on their way into the tables; gone when they are there.",
    ),
}


def type_of(column: Column) -> str:
    """The type of a column."""
    of_kind = TYPES[column.kind]
    return f"Nullable({of_kind})" if column.nullable else of_kind


def columns_of(table: RawTable) -> tuple[Column, ...]:
    """All columns of a raw table, in order."""
    match table:
        case DayTable():
            return (Column("ds", Kind.DATE, nullable=False), *table.columns)
        case VersionTable():
            return (*table.columns, SERVED)
        case _:
            return table.columns


def storage_of(table: RawTable) -> str:
    """Partitions and order of a raw table."""
    match table:
        case DayTable():
            # By time, in which events come anyway: it packs well and serves the last minutes.
            instants = [c for c in table.columns if c.kind is Kind.INSTANT and not c.nullable]
            partition, order = "ds", [column.name for column in instants[:1]]
        case VersionTable():
            partition, order = "", list(table.key)
        case FileTable(identity=None):
            partition, order = SLOT_MONTH, ["line_no"]
        case FileTable():
            assert table.identity is not None
            partition, order = "ds", [table.identity.name]
        case StateTable():
            partition = SLOT_MONTH if table.indexed else ""
            nullable = {column.name for column in table.columns if column.nullable}
            order = [name for name in (*table.indexed, *table.unique) if name not in nullable]
    by = f" partition by {partition}" if partition else ""
    return f"{by} order by ({', '.join(map(named, order))})".strip()


def make_aside(clickhouse: Clickhouse, aside: str, table: str) -> None:
    """Make a table aside that has the columns, partitions and order of a raw one.

    It is this server's alone: a replicated table takes partitions from any.
    """
    made = f"create table {named(WORK, aside)} as {named(RAW, table)}"
    if clickhouse.cluster:
        partition, order = clickhouse.row(
            "select partition_key, sorting_key from system.tables"
            " where database = {raw:String} and name = {table:String}",
            raw=RAW,
            table=table,
        )
        by = f" partition by {partition}" if partition else ""
        made += f" engine = MergeTree{by} order by ({order})"
    clickhouse.run(made)


def init(clickhouse: Clickhouse, tables: Iterable[RawTable]) -> None:
    """Make ledger and raw tables, or add the columns that they lack; under the caller's lock.

    Raises SinkError, before anything is changed, when a newer Vitrina made them or a column has
    another type.
    """
    raw = list(tables)
    there = _catalogue(clickhouse)
    if "schema_versions" in there:
        (newest,) = clickhouse.row("select max(version) from raw.schema_versions")
        if newest > SCHEMA_VERSION:
            raise SinkError(
                f"the raw schema has version {newest}, this Vitrina knows {SCHEMA_VERSION}: "
                "update Vitrina"
            )
    for table in raw:
        _check(table, there.get(table.name, {}))
    for name, (columns, storage, comment) in LEDGER.items():
        clickhouse.run(
            f"create table if not exists {name}{clickhouse.on_cluster} ({columns})"
            f" engine = {_engine(clickhouse)} {storage} comment {quoted(comment)}"
        )
    for table in raw:
        _make(clickhouse, table, there.get(table.name, {}))
    (known,) = clickhouse.row(
        "select count() from raw.schema_versions where version = {version:Int32}",
        version=SCHEMA_VERSION,
    )
    if not known:
        clickhouse.run(f"insert into raw.schema_versions (version) values ({SCHEMA_VERSION})")


def _catalogue(clickhouse: Clickhouse) -> dict[str, dict[str, str]]:
    """The raw tables that there are: column to type."""
    found: dict[str, dict[str, str]] = {}
    query = "select table, name, type from system.columns where database = 'raw' order by position"
    for table, column, of_type in clickhouse.rows(query):
        found.setdefault(table, {})[column] = of_type
    return found


def _check(table: RawTable, there: Mapping[str, str]) -> None:
    for column in columns_of(table):
        found = there.get(column.name, type_of(column))
        if found != type_of(column):
            raise SinkError(
                f"{RAW}.{table.name}.{column.name} is {found}, {type_of(column)} is wanted"
            )


def _make(clickhouse: Clickhouse, table: RawTable, there: Mapping[str, str]) -> None:
    name, columns = named(RAW, table.name), columns_of(table)
    if not there:
        definitions = ", ".join(f"{named(c.name)} {type_of(c)}" for c in columns)
        clickhouse.run(
            f"create table {name}{clickhouse.on_cluster} ({definitions})"
            f" engine = {_engine(clickhouse)} {storage_of(table)} comment {quoted(table.comment)}"
        )
        return
    for column in columns:
        if column.name not in there:
            clickhouse.run(f"alter table {name} add column {named(column.name)} {type_of(column)}")
    (comment,) = clickhouse.row(
        "select comment from system.tables where database = 'raw' and name = {name:String}",
        name=table.name,
    )
    if comment != table.comment:
        clickhouse.run(
            f"alter table {name}{clickhouse.on_cluster} modify comment {quoted(table.comment)}"
        )


def _engine(clickhouse: Clickhouse) -> str:
    return REPLICATED if clickhouse.cluster else "MergeTree"
