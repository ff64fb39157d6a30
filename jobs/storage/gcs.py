"""A bucket of Google Cloud Storage: all requests by Google's own client, those for the pages of Parquet files too.

pyarrow's own filesystem knows neither versions nor conditions, and it holds the interpreter's lock while it waits for
an object: a store that is away would stop all threads of a process, the heartbeat of a driver among them.

A write is one upload: the object is there whole or not at all. Its version is the hash of its content and not Google's
etag, which changes with every label that somebody puts on it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from jobs.errors import AccessError, StoreError
from jobs.records import InputFile
from jobs.storage.files import ObjectStore, error_of_status, first_line, key_of
from jobs.storage.parquet import OpenParquet
from pipelines.stores import GoogleAccess, StoreUri

PATIENCE_SECONDS = 60.0
"""For which a request is made again, with waits between that double up to 20 s."""
REMOVALS_AT_ONCE = 8
"""The client keeps ten connections."""
LISTED = "items(name,size,md5Hash,generation),prefixes,nextPageToken"


class GoogleBucket(ObjectStore):
    """The client of one bucket."""

    def __init__(self, place: StoreUri, access: GoogleAccess, patience_seconds: float = PATIENCE_SECONDS) -> None:
        # Else the client asks where each bucket lies, in a thread of its own, for traces that nobody makes.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        self.place = place
        self.access = access
        self.retry = DEFAULT_RETRY.with_delay(maximum=20.0).with_timeout(patience_seconds)
        self.client = Client(
            project=None,  # only whoever makes buckets needs one
            credentials=access.credentials or AnonymousCredentials(),
            client_options={} if access.endpoint is None else {"api_endpoint": access.endpoint},
        )
        self.bucket = self.client.bucket(place.container)

    def find(self, location: str) -> InputFile | None:
        key = key_of(location)
        if not key:
            return None
        with errors_of(location):
            blob = self.bucket.get_blob(key, retry=self.retry)
        return None if blob is None else self._described(blob)

    def starting_with(self, prefix: str) -> Iterator[InputFile]:
        with errors_of(prefix, of_bucket=True):
            for blob in self._listed(prefix, fields=LISTED):
                if not blob.name.endswith("/"):  # consoles make such objects to show empty directories
                    yield self._described(blob)

    def is_directory(self, location: str) -> bool:
        with errors_of(location, of_bucket=True):
            return any(True for _ in self._listed(f"{location}/", max_results=1))

    def names(self, directory: str) -> list[str]:
        with errors_of(directory, of_bucket=True):
            found = self._listed(f"{directory}/", delimiter="/", fields=LISTED)
            keys = [blob.name for blob in found]
            keys += [prefix.rstrip("/") for prefix in found.prefixes]  # known when all is listed
        names = [key.rpartition("/")[2] for key in keys]
        return [name for name in names if name]

    def open_parquet(self, location: str, check_pages: bool, dictionaries: Sequence[str] = ()) -> OpenParquet:
        with errors_of(location):
            blob = self.bucket.get_blob(key_of(location), retry=self.retry)
        if blob is None:
            raise FileNotFoundError(f"{location} is not there")
        return OpenParquet(
            lambda: ObjectFile(self, location, blob.size, blob.generation),
            (location, blob.generation),
            pre_buffer=True,  # pages that lie together in one request
            page_checksum_verification=check_pages,
            read_dictionary=list(dictionaries),
        )

    def read_range(self, location: str, start: int, end: int, generation: int | None = None) -> bytes:
        """The bytes from `start` to before `end`; raises FileNotFoundError when the given generation was replaced."""
        blob = self.bucket.blob(key_of(location), generation=generation)
        with errors_of(location):
            content: bytes = blob.download_as_bytes(
                start=start, end=end - 1, raw_download=True, retry=self.retry, checksum=None
            )
        return content

    def write(self, location: str, content: bytes) -> None:
        self._put(location, content)

    def remove(self, locations: Sequence[str]) -> None:
        with ThreadPoolExecutor(REMOVALS_AT_ONCE) as pool:
            list(pool.map(self._remove, locations))

    def read_version(self, location: str) -> tuple[bytes, str]:
        """An object's content and its generation, which is what Google's conditions are put on."""
        blob = self.bucket.blob(key_of(location))
        with errors_of(location):
            content: bytes = blob.download_as_bytes(raw_download=True, retry=self.retry)
        return content, str(blob.generation)

    def put(self, location: str, content: bytes, etag: str | None) -> None:
        self._put(location, content, if_generation_match=0 if etag is None else int(etag))

    def _put(self, location: str, content: bytes, **condition: int) -> None:
        blob = self.bucket.blob(key_of(location))
        with errors_of(location, of_bucket=True):
            blob.upload_from_string(content, "application/octet-stream", retry=self.retry, **condition)

    def _remove(self, location: str) -> None:
        try:
            with errors_of(location):
                self.bucket.blob(key_of(location)).delete(retry=self.retry)
        except FileNotFoundError:
            return

    def _listed(self, prefix: str, **options: Any) -> Any:
        """An iterator over the blobs with a prefix; with a delimiter it has `prefixes`, too."""
        return self.client.list_blobs(self.bucket, prefix=prefix.split("/", 3)[3], retry=self.retry, **options)

    def _described(self, blob: Blob) -> InputFile:
        """An object as a file; its version is its hash, or its generation where it was composed and has none."""
        return InputFile(f"{self.place}/{blob.name}", blob.size, blob.md5_hash or str(blob.generation))


class ObjectFile(io.RawIOBase):
    """One generation of an object as a file; each read is a request."""

    def __init__(self, bucket: GoogleBucket, location: str, size: int, generation: int) -> None:
        self.bucket = bucket
        self.location = location
        self.size = size
        self.generation = generation
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.position + size, self.size)
        if end <= self.position:
            return b""
        content = self.bucket.read_range(self.location, self.position, end, self.generation)
        self.position += len(content)
        return content


@contextmanager
def errors_of(location: str, *, of_bucket: bool = False) -> Iterator[None]:
    """Turns what Google's client raises in a block into OSErrors that name the location and the way out.

    `of_bucket` says that the request fails as not found only where there is no such bucket.
    """
    try:
        yield
    except GoogleAuthError as error:
        if isinstance(error, TransportError) or error.retryable:
            raise StoreError(f"{location}: {first_line(error)}") from None
        raise not_let_in(location, str(error.args[0] if error.args else error)) from None
    except GoogleAPICallError as error:
        raise os_error(error, location, of_bucket) from None
    except (GoogleAPIError, DataCorruption, requests.RequestException) as error:
        raise StoreError(f"{location}: {first_line(error)}") from None


def os_error(error: GoogleAPICallError, location: str, of_bucket: bool) -> OSError:
    """The OSError that the status of an answer stands for."""
    why = what_was_said(error)
    if error.code in (401, 403):
        return not_let_in(location, f"{why} ({error.code})")
    if error.code == 404 and (of_bucket or "bucket does not exist" in why):
        return AccessError(f"{location}: there is no such bucket; check its name, or create it")
    return error_of_status(error.code, location, why, why)


def not_let_in(location: str, why: str) -> AccessError:
    """An AccessError that says why, and what to do."""
    return AccessError(
        f"{location}: {why}; set GOOGLE_APPLICATION_CREDENTIALS, or sign in (gcloud auth application-default login), "
        "or give the machine a service account; who it is has to list, read, write and remove here"
    )


def what_was_said(error: GoogleAPICallError) -> str:
    """The message in an answer's JSON, or the first line of an answer that is no JSON."""
    try:
        return str(error.response.json()["error"]["message"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return first_line(error)
