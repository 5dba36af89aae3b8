"""The S3 server: what is put can be read by any client, with credentials, and it can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, ResponseStreamingError

from sandbox.dbt import ROOT
from sandbox.s3 import FOREIGN_HOST, REGION, S3Server, UrlStyle, s3_server

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

KEY = "cohort_1/somebody/project/TWpBeU1pMHc=/user_order_log.csv"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def client(s3: S3Server, access_key_id: str | None = None, attempts: int = 1) -> S3Client:
    """A client of its own, which tries as often as told."""
    environment = s3.environment()
    return boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT_URL"],
        aws_access_key_id=access_key_id or environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
        config=Config(retries={"total_max_attempts": attempts}, s3={"addressing_style": "path"}),
    )


def test_an_object_is_read_as_it_was_put_and_replaced_in_place(s3: S3Server) -> None:
    s3.put(KEY, "Ёлка\r\n".encode())
    first = client(s3).head_object(Bucket=s3.bucket, Key=KEY)
    assert first["ContentLength"] == len("Ёлка\r\n".encode())
    s3.put(KEY, b"corrected")
    second = client(s3).get_object(Bucket=s3.bucket, Key=KEY)
    assert (second["Body"].read(), second["ETag"] != first["ETag"]) == (b"corrected", True)
    assert s3.keys() == [KEY]
    s3.delete(KEY)
    assert s3.keys() == []
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get(KEY)


def test_a_large_object_comes_in_parts(s3: S3Server) -> None:
    content = os.urandom(1 << 20) * 20
    s3.put("large", content)
    found = client(s3).get_object(Bucket=s3.bucket, Key="large")
    assert found["Body"].read() == content
    assert "-" in found["ETag"]
    s3.delete("large")


def test_urls_come_in_three_styles(s3: S3Server) -> None:
    path = f"/{s3.bucket}/{KEY}"
    assert s3.url_of(KEY) == s3.url + path
    assert s3.url_of(KEY, UrlStyle.FOREIGN) == FOREIGN_HOST + path
    assert s3.url_of(KEY, UrlStyle.S3) == f"s3:/{path}"


def test_nothing_is_served_without_credentials(s3: S3Server) -> None:
    s3.put(KEY, b"secret")
    anonymous = requests.get(s3.url_of(KEY), timeout=10)
    assert (anonymous.status_code, b"secret" in anonymous.content) == (403, False)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        client(s3, "somebody-else").get_object(Bucket=s3.bucket, Key=KEY)
    assert s3.secret_access_key not in repr(s3)


def test_what_was_read_is_told(s3: S3Server) -> None:
    s3.put("seen", b"x")
    before = s3.reads("seen")
    client(s3).head_object(Bucket=s3.bucket, Key="seen")
    assert s3.reads("seen") == before
    client(s3).get_object(Bucket=s3.bucket, Key="seen")
    assert s3.reads("seen") == before + 1
    assert s3.accesses[-1].status == 200


def test_it_fails_as_often_as_told(s3: S3Server) -> None:
    s3.put("failing", b"x")
    s3.fail_next(503, 500)
    with pytest.raises(ClientError, match="SlowDown"):
        client(s3).get_object(Bucket=s3.bucket, Key="failing")
    found = client(s3, attempts=2).get_object(Bucket=s3.bucket, Key="failing")
    assert found["Body"].read() == b"x"
    assert [each.status for each in s3.accesses[-3:]] == [503, 500, 200]


def test_a_download_ends_before_its_promised_length(s3: S3Server) -> None:
    s3.put("cut", b"0123456789" * 1000)
    with s3.cut_short("cut", 15):
        body = client(s3).get_object(Bucket=s3.bucket, Key="cut")["Body"]
        assert body.read(15) == b"012345678901234"
        with pytest.raises(ResponseStreamingError):
            body.read()
    assert len(s3.get("cut")) == 10_000


def test_servers_share_nothing() -> None:
    with s3_server() as one, s3_server() as other:
        one.put(KEY, b"one")
        assert (one.keys(), other.keys()) == ([KEY], [])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_as_a_process_of_its_own(how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.s3"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    url = lines[0].strip().removeprefix("export S3_ENDPOINT_URL=")
    assert requests.get(url, timeout=10).status_code == 403
    process.send_signal(how)
    process.communicate(timeout=30)
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=10)
