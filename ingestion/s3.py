"""Files in S3, read as streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import Field, HttpUrl, SecretStr

from ingestion.errors import DeliveryError, SourceError
from ingestion.settings import HttpSettings, Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CHUNK_BYTES = 1 << 17


class S3Settings(Settings):
    """`S3_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`."""

    s3_endpoint_url: HttpUrl
    aws_access_key_id: str
    aws_secret_access_key: SecretStr
    aws_region: str = Field(default="us-east-1")


@dataclass(frozen=True)
class Version:
    """What tells one content of a file from another; the size is in bytes."""

    etag: str
    size: int


class S3:
    """Read access to the files of a storage that speaks S3."""

    def __init__(self, settings: S3Settings, http: HttpSettings) -> None:
        self._client = _client(settings, http)

    def version(self, url: str) -> Version:
        """The present content of a file.

        Raises DeliveryError when there is none, SourceError when that can't be told.
        """
        bucket, key = location(url)
        with _told(url):
            head = self._client.head_object(Bucket=bucket, Key=key)
        if "ETag" not in head or "ContentLength" not in head:
            raise SourceError(f"{shown(url)}: S3 does not say which version it is, or how long")
        return Version(head["ETag"], head["ContentLength"])

    def read(self, url: str, version: Version) -> Iterator[bytes]:
        """The bytes of a file, from its beginning.

        Raises SourceError when it is not that version any more, or ends before or after its size.
        """
        bucket, key = location(url)
        received = 0
        with _told(url):
            answer = self._client.get_object(Bucket=bucket, Key=key, IfMatch=version.etag)
            promised = answer.get("ContentLength", version.size)
            for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                received += len(chunk)
                yield chunk
        if not received == promised == version.size:
            raise SourceError(
                f"{shown(url)}: {received} bytes received, {promised} announced,"
                f" {version.size} listed"
            )


def location(url: str) -> tuple[str, str]:
    """Bucket and key of a path-style http(s) or an s3:// url. Raises DeliveryError for another one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme == "s3":
        # Here nothing is encoded: the key is what follows, whatever it contains.
        bucket, _, key = url.partition("://")[2].partition("/")
    elif parts.scheme in ("http", "https"):
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
    else:
        bucket, key = "", ""
    if not bucket or not key:
        raise DeliveryError(f"{shown(url)} is no url of a file in S3")
    return bucket, key


def shown(url: str) -> str:
    """The url without user, password, query and fragment, any of which may hold a secret."""
    if url.startswith("s3://"):
        url, _, _ = url.partition("?")  # a key may hold one, and so may a signed url
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return "what"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn the client's errors into ours, without what they may show."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("404", "NoSuchKey"):
            raise DeliveryError(f"{shown(url)}: it is not in S3") from None
        changed = code in ("412", "PreconditionFailed")
        reason = "changed while it was read" if changed else f"S3 refuses it ({code})"
        raise SourceError(f"{shown(url)}: {reason}") from None
    # The client follows redirects without counting them.
    except (BotoCoreError, RecursionError) as error:
        raise SourceError(f"{shown(url)}: {type(error).__name__} while S3 was read") from None


def _client(settings: S3Settings, http: HttpSettings) -> S3Client:
    # Imported here: it takes a third of a second that no other command needs.
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=str(settings.s3_endpoint_url),
        aws_access_key_id=settings.aws_access_key_id,
        aws_secret_access_key=settings.aws_secret_access_key.get_secret_value(),
        region_name=settings.aws_region,
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=min(10.0, http.timeout_seconds),
            read_timeout=http.timeout_seconds,
            retries={"total_max_attempts": http.retries + 1, "mode": "standard"},
            # Other storages than Amazon's know no such checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
