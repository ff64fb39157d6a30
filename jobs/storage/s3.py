"""A bucket of S3, or of a service that speaks its protocol: requests by boto3, Parquet by pyarrow as the same user.

boto3 and not pyarrow lists and writes, since it knows etags and conditions, and since its chain of credentials is the
longer one. A write is one PUT: the object is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3.exceptions import HTTPError

from jobs.errors import AccessError, StoreError
from jobs.records import InputFile
from jobs.storage.files import ObjectStore, error_of_status, key_of
from jobs.storage.parquet import OpenParquet, parquet_in
from pipelines.stores import REQUEST_ATTEMPTS, StoreUri, s3_filesystem

TIMEOUT_SECONDS = 30
"""To connect, and for the next bytes of an answer."""
TOKEN_CODES = ("ExpiredToken", "InvalidToken")
"""Of answers with status 400."""
KEYS_PER_REMOVAL = 1000
"""The most that S3 takes in one request."""
NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)


class InterruptedAnswer(StoreError):
    """The store's answer ended before it was whole."""


class S3Bucket(ObjectStore):
    """The client of one bucket."""

    def __init__(self, place: StoreUri, endpoint: str | None) -> None:
        self.bucket = place.container
        self.endpoint = endpoint
        with errors_of(str(place), endpoint):
            self.session = boto3.session.Session()
            self.client = self.session.client("s3", endpoint_url=endpoint, config=client_config())

    def find(self, location: str) -> InputFile | None:
        key = key_of(location)
        if not key:
            return None
        try:
            with self.errors(location):
                answer = self.client.head_object(Bucket=self.bucket, Key=key)
        except FileNotFoundError:
            return None
        return InputFile(location, answer["ContentLength"], answer["ETag"].strip('"'))

    def starting_with(self, prefix: str) -> Iterator[InputFile]:
        for page in self._pages(prefix):
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):  # consoles make such objects to show empty directories
                    location = f"s3://{self.bucket}/{found['Key']}"
                    yield InputFile(location, found["Size"], found["ETag"].strip('"'))

    def is_directory(self, location: str) -> bool:
        return int(next(self._pages(f"{location}/", MaxKeys=1))["KeyCount"]) > 0

    def names(self, directory: str) -> list[str]:
        names = []
        for page in self._pages(f"{directory}/", Delimiter="/"):
            keys = [found["Key"] for found in page.get("Contents", [])]
            keys += [found["Prefix"].rstrip("/") for found in page.get("CommonPrefixes", [])]
            names += [key.rpartition("/")[2] for key in keys]
        return [name for name in names if name]

    def read_range(self, location: str, start: int, end: int) -> bytes:
        return self._get(location, Range=f"bytes={start}-{end - 1}")[0]

    def read_version(self, location: str) -> tuple[bytes, str]:
        """An object's content and its etag."""
        return self._get(location)

    def open_parquet(self, location: str, check_pages: bool, dictionaries: Sequence[str] = ()) -> OpenParquet:
        with self.errors(location):
            credentials = self.session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            now = credentials.get_frozen_credentials()  # those of a role are renewed on the way
        filesystem = s3_filesystem(self.bucket, self.endpoint, now.access_key, now.secret_key, now.token)
        return parquet_in(filesystem, location, check_pages, dictionaries)

    def write(self, location: str, content: bytes) -> None:
        self._put(location, content)

    def remove(self, locations: Sequence[str]) -> None:
        keys = [{"Key": key_of(location)} for location in locations]
        for start in range(0, len(keys), KEYS_PER_REMOVAL):
            with self.errors(locations[start]):
                wanted = {"Objects": keys[start : start + KEYS_PER_REMOVAL], "Quiet": True}
                answer = self.client.delete_objects(Bucket=self.bucket, Delete=wanted)
            for failed in answer.get("Errors", []):
                raise StoreError(f"s3://{self.bucket}/{failed['Key']} could not be removed: {failed['Code']}")

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        pages = self.client.get_paginator("list_objects_v2")
        with self.errors(prefix):
            yield from pages.paginate(Bucket=self.bucket, Prefix=prefix.split("/", 3)[3], **options)

    @retry(
        retry=retry_if_exception_type(InterruptedAnswer),
        stop=stop_after_attempt(REQUEST_ATTEMPTS),
        wait=wait_random_exponential(max=20),
        reraise=True,
    )
    def _get(self, location: str, **part: str) -> tuple[bytes, str]:
        """Content and etag; boto3 itself repeats a request only until an answer begins."""
        with self.errors(location):
            answer = self.client.get_object(Bucket=self.bucket, Key=key_of(location), **part)
            try:
                return answer["Body"].read(), answer["ETag"]
            except BotoCoreError as error:
                raise InterruptedAnswer(f"{location}: {error}") from error

    def put(self, location: str, content: bytes, etag: str | None) -> None:
        self._put(location, content, **({"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}))

    def _put(self, location: str, content: bytes, **condition: str) -> None:
        with self.errors(location):
            self.client.put_object(Bucket=self.bucket, Key=key_of(location), Body=content, **condition)

    def errors(self, location: str) -> AbstractContextManager[None]:
        return errors_of(location, self.endpoint)


def client_config() -> Config:
    """Settings of boto3's client: what may pass (5xx, SlowDown, resets, timeouts) is repeated after growing waits."""
    return Config(
        retries={"mode": "standard", "total_max_attempts": REQUEST_ATTEMPTS},
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
        max_pool_connections=32,
        ignore_configured_endpoint_urls=True,  # pyarrow would not hear of one in a profile
    )


@contextmanager
def errors_of(location: str, endpoint: str | None) -> Iterator[None]:
    """Turns what boto3 raises in a block into OSErrors that name the location and the way out."""
    try:
        yield
    except NO_CREDENTIALS as error:
        raise AccessError(
            f"{location}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or give the machine a role"
        ) from None
    except ClientError as error:
        raise os_error(error, location, endpoint) from error
    except BotoCoreError as error:
        raise StoreError(f"{location}: {error}") from error
    except HTTPError as error:  # botocore lets it through where the answer that is cut says that something is not there
        raise InterruptedAnswer(f"{location}: {error}") from error


def os_error(error: ClientError, location: str, endpoint: str | None) -> OSError:
    """The OSError that the status and the code of an answer stand for."""
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code == "NoSuchBucket":
        where = f"at {endpoint}" if endpoint else "in AWS (AWS_ENDPOINT_URL_S3 names another service)"
        return AccessError(f"{location}: there is no such bucket {where}; check its name, or create it")
    if status in (401, 403) or code in TOKEN_CODES:
        return AccessError(
            f"{location}: {code} ({status}): these credentials may not; check them, their region and what they may do "
            "here: list, read, write and remove"
        )
    return error_of_status(status, location, code, str(error))
