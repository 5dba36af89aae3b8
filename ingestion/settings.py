"""Settings by environment variable (DESIGN.md section 3). A missing one is wrong use, said by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingestion.errors import UsageError


class Settings(BaseSettings):
    """A group of settings; an empty variable is one that is not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True)


S = TypeVar("S", bound=Settings)


class BusinessSettings(Settings):
    """`BUSINESS_TIMEZONE`: the zone in which days are cut."""

    business_timezone: str = "Europe/Moscow"

    @field_validator("business_timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"no zone is named {name!r}") from error
        return name

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.business_timezone)


class PostgresSettings(Settings):
    """`POSTGRES_HOST`, `_PORT`, `_USER`, `_PASSWORD`, `_DB`: the warehouse, when it is PostgreSQL."""

    model_config = SettingsConfigDict(env_prefix="POSTGRES_")

    host: str = "localhost"
    port: int = 5432
    user: str = "vitrina"
    password: SecretStr = SecretStr("")
    db: str = "vitrina"


class ClickhouseSettings(Settings):
    """`CLICKHOUSE_HOST`, `_PORT`, `_USER`, `_PASSWORD`, `_DB`: the warehouse, when it is ClickHouse.

    `CLICKHOUSE_CLUSTER`: the cluster on which tables are made. `CLICKHOUSE_LOCK_SECONDS`: after how
    long of silence a run that holds a lock is taken for dead."""

    model_config = SettingsConfigDict(env_prefix="CLICKHOUSE_")

    host: str = "localhost"
    port: int = 8123
    user: str = "default"
    password: SecretStr = SecretStr("")
    db: str = "default"
    cluster: str = ""
    lock_seconds: float = Field(default=30.0, ge=1)


class HttpSettings(Settings):
    """How patient HTTP sources are: `HTTP_RETRIES` tries again, `HTTP_BACKOFF_SECONDS` doubling each
    time up to `HTTP_BACKOFF_MAX_SECONDS` (which also caps a `Retry-After`), `HTTP_TIMEOUT_SECONDS`
    for connecting and for each silence while reading."""

    model_config = SettingsConfigDict(env_prefix="HTTP_")

    retries: int = Field(default=6, ge=0)
    backoff_seconds: float = Field(default=0.5, ge=0)
    backoff_max_seconds: float = Field(default=60.0, gt=0)
    timeout_seconds: float = Field(default=60.0, gt=0)


def read_settings(kind: type[S], given: Mapping[str, str] | None = None) -> S:
    """Read a group of settings from the environment; those `given`, by variable, win.

    Raises UsageError that names each variable that is missing or wrong, never its value.
    """
    prefix = kind.model_config.get("env_prefix") or ""
    try:
        return kind(**{name.removeprefix(prefix).lower(): v for name, v in (given or {}).items()})
    except ValidationError as error:
        # Built from location and message only: the input may be a secret.
        problems = "; ".join(
            f"{prefix}{'.'.join(str(part) for part in e['loc'])}".upper() + f": {e['msg']}"
            for e in error.errors(include_input=False, include_url=False)
        )
        raise UsageError(f"settings: {problems}") from None


def target_of(domain: str) -> str:
    """The engine of a domain: `VITRINA_TARGET_<DOMAIN>` wins over `VITRINA_TARGET`."""
    default = os.environ.get("VITRINA_TARGET") or "postgres"
    return os.environ.get(f"VITRINA_TARGET_{domain.upper()}") or default


def header_text(text: str, name: str) -> str:
    """A setting as the value of a header: UTF-8 in the only encoding that http.client knows.

    A line's end at its end is no part of it: secrets that are mounted as files have one. Raises
    UsageError that names the header for what http.client would refuse, and show.
    """
    found = text.strip("\r\n")
    if any(character in found for character in "\r\n\0"):
        raise UsageError(f"settings: what the header {name} is made of holds a line's end")
    return found.encode().decode("latin-1")
