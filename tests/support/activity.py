"""The activity domain under test: a social app's ClickHouse, and what the warehouse makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import BUILT, Project
from sandbox.feed import FeedServer, Row
from tests.oracle.activity import activity_slices, differences, user_activity
from tests.support.vitrina import TABLES, Vitrina

DAY = timedelta(days=1)
DOMAIN = "activity"


@dataclass(frozen=True)
class Activity:
    """A Vitrina whose feed is a server of the sandbox."""

    vitrina: Vitrina
    feed: FeedServer

    @classmethod
    def of(cls, vitrina: Vitrina, feed: FeedServer, **settings: str) -> Activity:
        """Let a Vitrina find the feed."""
        known = {**vitrina.settings, "FEED_CLICKHOUSE_URL": feed.url, **settings}
        return cls(replace(vitrina, settings=known), feed)

    @classmethod
    def on_clickhouse(
        cls,
        vitrina: Vitrina,
        project: Project,
        server: ClickhouseServer,
        feed: FeedServer,
        **settings: str,
    ) -> Activity:
        """The same with a warehouse in a ClickHouse, which is emptied; `project` is parsed for it."""
        server.empty()
        there = replace(vitrina, project=project, clickhouse=server)
        there.ingest("init")
        return cls.of(there, feed, **settings)

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Rows of the warehouse."""
        return self.vitrina.query(statement)

    def show(self, actions: Iterable[Row] = (), messages: Iterable[Row] = ()) -> None:
        """Let the source have more rows."""
        self.feed.insert("feed_actions", actions)
        self.feed.insert("message_actions", messages)

    def land(self, start: date, end: date | None = None, *more: str) -> dict[str, Any]:
        """Land a day, or a window."""
        end = end or start + DAY
        return self.vitrina.ingest(
            "feed", "--start-date", str(start), "--end-date", str(end), *more
        )

    def build(self, days: Sequence[date] | None = None, *arguments: str) -> None:
        """Build the models for these days, or for all that are landed."""
        done = self.vitrina.dbt("build", *BUILT, "--select", f"tag:{DOMAIN}", *arguments, days=days)
        assert done.success, done.failures()

    def build_pending(self) -> list[date]:
        """Build what the plan says and mark it, as the DAG does; returns the days."""
        plan = self.vitrina.ingest("plan", DOMAIN)
        days = [date.fromisoformat(day) for day in plan["days"]]
        if days:
            self.build(days)
            self.vitrina.ingest("mark", DOMAIN, "--build", str(plan["build_id"]))
        return days

    def nightly(self, day: date) -> list[date]:
        """What the scheduled run of a day does; returns the days that it built."""
        self.land(day)
        return self.build_pending()

    def fact(self) -> list[dict[str, Any]]:
        """All rows of fct_user_activity."""
        return self.query("select * from core.fct_user_activity")

    def mart(self) -> list[dict[str, Any]]:
        """All rows of activity_slices."""
        return self.query("select * from marts.activity_slices")

    def wrong_cells(self, actions: Sequence[Row], messages: Sequence[Row]) -> list[str]:
        """Where fact and mart are not what the oracle says for these rows of the source."""
        return [
            *differences(user_activity(actions, messages), self.fact()),
            *differences(activity_slices(actions, messages), self.mart()),
        ]

    def tables(self) -> dict[str, list[str]]:
        """The content of all of the domain's tables, audit columns aside."""
        return self.vitrina.tables(TABLES[DOMAIN])
