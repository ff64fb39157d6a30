"""A container of an Azure storage account: requests by Azure's own client, Parquet by pyarrow.

pyarrow lists without etags, and a write of its starts by emptying what was there before; here a write is one request:
the blob is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from azure.core import MatchConditions
from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.storage.blob import BlobPrefix, BlobProperties, ContainerClient, ExponentialRetry

from jobs.errors import AccessError, StoreError
from jobs.records import InputFile
from jobs.storage.files import ObjectStore, error_of_status, first_line, key_of
from jobs.storage.parquet import OpenParquet, parquet_in
from pipelines.stores import AzureAccess, StoreUri, azure_filesystem

TIMEOUT_SECONDS = 30
"""To connect, and for the next bytes of an answer."""
RETRIES = 6
"""After 2, 4, ... 64 s, more or less: this client knows no longest wait, so they are fewer than for S3."""
REMOVALS_AT_ONCE = 16


class AzureContainer(ObjectStore):
    """The client of one container."""

    def __init__(self, place: StoreUri, access: AzureAccess) -> None:
        self.place = place
        self.access = access
        self.client = ContainerClient(
            access.endpoint or f"https://{place.host.replace('.dfs.', '.blob.', 1)}",
            place.container,
            credential=credential(access),
            retry_policy=ExponentialRetry(
                initial_backoff=0, increment_base=2, retry_total=RETRIES, random_jitter_range=2
            ),
            connection_timeout=TIMEOUT_SECONDS,
            read_timeout=TIMEOUT_SECONDS,
        )

    def find(self, location: str) -> InputFile | None:
        key = key_of(location)
        if not key:
            return None
        try:
            with errors_of(location):
                blob = self.client.get_blob_client(key).get_blob_properties()
        except FileNotFoundError:
            return None
        return None if is_marker(blob) else InputFile(location, blob.size, blob.etag.strip('"'))

    def starting_with(self, prefix: str) -> Iterator[InputFile]:
        with errors_of(prefix):
            # metadata: in accounts with a hierarchical namespace it tells directories from files
            for blob in self.client.list_blobs(prefix.split("/", 3)[3], include=["metadata"]):
                if not is_marker(blob):
                    yield InputFile(f"{self.place}/{blob.name}", blob.size, blob.etag.strip('"'))

    def is_directory(self, location: str) -> bool:
        return any(True for _ in self.starting_with(f"{location}/"))

    def names(self, directory: str) -> list[str]:
        start = f"{directory}/".split("/", 3)[3]
        with errors_of(directory):
            found = [blob.name for blob in self.client.walk_blobs(start) if is_prefix_or_file(blob)]
        return [name.removeprefix(start).rstrip("/") for name in found]

    def open_parquet(self, location: str, check_pages: bool, dictionaries: Sequence[str] = ()) -> OpenParquet:
        return parquet_in(azure_filesystem(self.place.host, self.access), location, check_pages, dictionaries)

    def read_range(self, location: str, start: int, end: int) -> bytes:
        with errors_of(location):
            content: bytes = self.client.download_blob(key_of(location), offset=start, length=end - start).readall()
        return content

    def write(self, location: str, content: bytes) -> None:
        self._put(location, content, overwrite=True)

    def remove(self, locations: Sequence[str]) -> None:
        with ThreadPoolExecutor(REMOVALS_AT_ONCE) as pool:
            list(pool.map(self._remove, locations))

    def _remove(self, location: str) -> None:
        try:
            with errors_of(location):
                self.client.delete_blob(key_of(location))
        except FileNotFoundError:
            return

    def read_version(self, location: str) -> tuple[bytes, str]:
        """A blob's content and its etag."""
        with errors_of(location):
            answer = self.client.download_blob(key_of(location))
            return answer.readall(), answer.properties.etag

    def put(self, location: str, content: bytes, etag: str | None) -> None:
        if etag is None:
            self._put(location, content, overwrite=False)
        else:
            self._put(location, content, overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified)

    def _put(self, location: str, content: bytes, **condition: Any) -> None:
        with errors_of(location):
            self.client.upload_blob(key_of(location), content, **condition)


def credential(access: AzureAccess) -> Any:
    """The key or token of the environment, else whoever azure-identity says we are."""
    if access.key is not None:
        return access.key
    if access.sas_token is not None:
        return AzureSasCredential(access.sas_token)
    from azure.identity import DefaultAzureCredential  # it looks around on the machine

    return DefaultAzureCredential()


def is_marker(blob: BlobProperties) -> bool:
    """Whether a blob is no file but stands for a directory."""
    return blob.name.endswith("/") or (blob.metadata or {}).get("hdi_isfolder") == "true"


def is_prefix_or_file(found: BlobProperties | BlobPrefix) -> bool:
    """Whether a listing found a directory or a file, and not a blob that only marks a directory."""
    return isinstance(found, BlobPrefix) or not found.name.endswith("/")


@contextmanager
def errors_of(location: str) -> Iterator[None]:
    """Turns what Azure's client raises in a block into OSErrors that name location and way out, but no token."""
    try:
        yield
    except ClientAuthenticationError as error:
        raise not_let_in(location, error) from None
    except HttpResponseError as error:
        raise os_error(error, location) from None
    except AzureError as error:
        raise StoreError(f"{location}: {first_line(error)}") from None


def os_error(error: HttpResponseError, location: str) -> OSError:
    """The OSError that the status and the code of an answer stand for."""
    code = str(getattr(error, "error_code", ""))
    if code == "ContainerNotFound":
        return AccessError(f"{location}: there is no such container; check its name and account, or create it")
    if error.status_code in (401, 403):
        return not_let_in(location, error)
    return error_of_status(error.status_code, location, code, first_line(error))


def not_let_in(location: str, error: AzureError) -> AccessError:
    """An AccessError that says why, and what to do."""
    return AccessError(
        f"{location}: {first_line(error)} Set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or sign in as "
        "azure-identity knows it (AZURE_CLIENT_ID, ..., az login); who it is has to list, read, write and remove here"
    )
