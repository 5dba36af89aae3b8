"""The peers that are libraries, run by the interpreter of their own environment.

`python bench/peers.py NAME SOURCE TARGET_URL TABLE ROWS` lands rows and prints the seconds that it
took without imports. SOURCE is a database's url, or for NAME-csv a file that is landed whole. Each is
used as its documentation says for this job.
"""

import os
import sys
import tempfile
import time


def land_with_dlt(source: str, target: str, table: str, _rows: int) -> float:
    """dlt: connectorx reads, Parquet in between, ADBC loads."""
    import dlt
    from dlt.sources.sql_database import sql_table

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLT_DATA_DIR"] = folder
        events = sql_table(
            credentials=_sqlalchemy(source),
            table="telemetry_events",
            backend="connectorx",
            backend_kwargs={"return_type": "arrow"},
        )
        pipeline = dlt.pipeline(
            pipeline_name="bench",
            pipelines_dir=folder,
            dataset_name="public",
            destination=dlt.destinations.postgres(target),
        )
        pipeline.run(
            events, table_name=table, write_disposition="replace", loader_file_format="parquet"
        )
    return time.perf_counter() - began


def land_with_pandas(source: str, target: str, table: str, rows: int) -> float:
    """pandas: read_sql and to_sql in chunks."""
    import pandas
    from sqlalchemy import create_engine

    began = time.perf_counter()
    reader = create_engine(_sqlalchemy(source)).connect().execution_options(stream_results=True)
    writer = create_engine(_sqlalchemy(target))
    query = f"select * from telemetry_events limit {rows}"
    for number, chunk in enumerate(pandas.read_sql(query, reader, chunksize=10_000)):
        chunk.to_sql(
            table,
            writer,
            index=False,
            method="multi",
            chunksize=1_000,
            if_exists="append" if number else "replace",
        )
    return time.perf_counter() - began


def land_csv_with_dlt(path: str, target: str, table: str, _rows: int) -> float:
    """dlt: pyarrow reads, Parquet in between, ADBC loads."""
    import dlt
    import pyarrow
    from pyarrow import csv

    began = time.perf_counter()
    texts = ("uniq_id", "city_id", "city_name", "customer_id", "item_id", "item_name", "status")
    types = {
        **dict.fromkeys(texts, pyarrow.string()),
        "quantity": pyarrow.decimal128(18, 3),
        "payment_amount": pyarrow.decimal128(18, 3),
    }

    def batches():
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(block_size=16 << 20),
            convert_options=csv.ConvertOptions(column_types=types),
        )
        for batch in reader:
            yield pyarrow.Table.from_batches([batch])

    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLT_DATA_DIR"] = folder
        pipeline = dlt.pipeline(
            pipeline_name="bench",
            pipelines_dir=folder,
            dataset_name="public",
            destination=dlt.destinations.postgres(target),
        )
        pipeline.run(
            dlt.resource(batches, name=table),
            table_name=table,
            write_disposition="replace",
            loader_file_format="parquet",
        )
    return time.perf_counter() - began


def land_csv_with_pandas(path: str, target: str, table: str, _rows: int) -> float:
    """pandas: read_csv and to_sql in chunks."""
    import pandas
    from sqlalchemy import create_engine

    began = time.perf_counter()
    writer = create_engine(_sqlalchemy(target))
    ids = dict.fromkeys(("customer_id", "item_id", "city_id"), str)
    with pandas.read_csv(path, dtype=ids, parse_dates=["date_time"], chunksize=10_000) as chunks:
        for number, chunk in enumerate(chunks):
            chunk.to_sql(
                table,
                writer,
                index=False,
                method="multi",
                chunksize=1_000,
                if_exists="append" if number else "replace",
            )
    return time.perf_counter() - began


def land_with_clickhouse_connect(source: str, target: str, table: str, _rows: int) -> float:
    """clickhouse-connect: read_sql and insert_df in chunks."""
    import clickhouse_connect
    import pandas
    from sqlalchemy import create_engine

    began = time.perf_counter()
    reader = create_engine(_sqlalchemy(source)).connect().execution_options(stream_results=True)
    client = clickhouse_connect.get_client(dsn=target)
    columns = "event_id, client_id, event_type, duration_ms, status, session_id, event_ts"
    query = f"select {columns} from telemetry_events"
    for chunk in pandas.read_sql(query, reader, chunksize=100_000):
        client.insert_df(table, chunk)
    return time.perf_counter() - began


def _sqlalchemy(url: str) -> str:
    """The url with its driver: SQLAlchemy 2.1 would take another one by default."""
    return url.replace("postgresql://", "postgresql+psycopg2://")


if __name__ == "__main__":
    name, source_url, target_url, table_name, count = sys.argv[1:]
    land = {
        "dlt": land_with_dlt,
        "pandas": land_with_pandas,
        "clickhouse-connect": land_with_clickhouse_connect,
        "dlt-csv": land_csv_with_dlt,
        "pandas-csv": land_csv_with_pandas,
    }[name]
    print(land(source_url, target_url, table_name, int(count)))
