"""Locks for an engine that has none: leases, kept as tables whose creation is atomic.

The tables of a lock are numbered, and who made the greatest number holds it until its lease ends.
`CREATE TABLE` of a name succeeds once, so of those who saw a lease end only one gets the next
number. A holder renews its lease from a thread; killed, it is waited for until the lease is over.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ingestion.clickhouse_http import TABLE_EXISTS, Clickhouse, ClickhouseError, named, quoted
from ingestion.errors import SinkError

log = logging.getLogger(__name__)

RENEWALS = 4  # in the time of a lease
POLL_SECONDS = 0.1
RELEASED = "0"


@contextmanager
def lock(
    clickhouse: Clickhouse, database: str, name: str, lease_seconds: float
) -> Iterator[Callable[[], None]]:
    """Hold a lock while the block runs; yields a check to be made before what can't be undone.

    The check raises SinkError when the lease has passed to another run, as it does when this one
    was stopped for longer than it lasts.
    """
    readable = re.sub(r"\W+", "_", name)
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    held = _Lease(clickhouse, database, f"lock_{readable}_{digest}_", lease_seconds)
    held.acquire(name)
    try:
        yield held.check
    finally:
        held.release()


class _Lease:
    def __init__(
        self, clickhouse: Clickhouse, database: str, prefix: str, lease_seconds: float
    ) -> None:
        self._clickhouse = clickhouse
        self._database = database
        self._prefix = prefix
        self._seconds = lease_seconds
        self._number = 0
        self._clock = 0.0  # the server's, less our monotonic one
        self._done = threading.Event()
        self._renewer = threading.Thread(target=self._keep_renewing, daemon=True)

    def acquire(self, name: str) -> None:
        told = False
        while not self._tried():
            if not told:
                log.info("waiting for another run: %s", name)
                told = True
            time.sleep(POLL_SECONDS)
        self._renewer.start()

    def check(self) -> None:
        found = self._found()
        if max(found, default=0) != self._number or found[self._number] <= self._now():
            raise SinkError(
                f"the lease of {self._prefix}{self._number} is over: this run was stopped for longer"
                f" than {self._seconds:.0f} s, and another may be at work; run it again"
            )

    def release(self) -> None:
        self._done.set()
        self._renewer.join()
        try:
            self._say(RELEASED)
        except SinkError as error:  # it ends by itself
            log.warning(
                "the lease of %s%d was not given back: %s", self._prefix, self._number, error
            )

    def _tried(self) -> bool:
        """Try to get the lock once: by the number after the greatest, if that one's lease is over."""
        found = self._found()
        greatest = max(found, default=0)
        if found and found[greatest] > self._now():
            return False
        self._number = greatest + 1
        try:
            self._clickhouse.run(
                f"create table {self._table(self._number)} (nothing UInt8) engine = Null"
                f" comment {quoted(self._end())}"
            )
        except ClickhouseError as error:
            if error.code == TABLE_EXISTS:
                return False
            raise
        # Who looked long ago may make a number that was in use and is gone again.
        found = self._found()
        mine = max(found) == self._number
        for number in found if mine else ():
            if number < self._number:
                self._clickhouse.run(f"drop table if exists {self._table(number)} sync")
        if not mine:
            self._clickhouse.run(f"drop table if exists {self._table(self._number)} sync")
        return mine

    def _found(self) -> dict[int, float]:
        """The numbers that there are, each with the end of its lease by the server's clock."""
        rows = list(
            self._clickhouse.rows(
                "select toUnixTimestamp64Micro(now64(6)) / 1e6 as at, '' as name, '' as comment"
                " union all select 0, name, comment from system.tables"
                " where database = {database:String} and startsWith(name, {prefix:String})",
                database=self._database,
                prefix=self._prefix,
            )
        )
        # Late by the answer's age: leases of others seem to last longer, ours ends earlier.
        self._clock = next(at for at, name, _ in rows if not name) - time.monotonic()
        found = {}
        for _, name, comment in rows:
            number = name.removeprefix(self._prefix)
            if number.isdigit():
                found[int(number)] = float(comment or RELEASED)
        return found

    def _keep_renewing(self) -> None:
        while not self._done.wait(self._seconds / RENEWALS):
            try:
                self._say(self._end())
            except SinkError as error:  # `check` will tell; until then it may pass
                log.warning("the lease of %s%d: %s", self._prefix, self._number, error)

    def _say(self, end: str) -> None:
        self._clickhouse.run(
            f"alter table {self._table(self._number)} modify comment {quoted(end)}"
        )

    def _end(self) -> str:
        return f"{self._now() + self._seconds:.6f}"

    def _now(self) -> float:
        return self._clock + time.monotonic()

    def _table(self, number: int) -> str:
        return named(self._database, f"{self._prefix}{number}")
