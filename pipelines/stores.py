"""Object stores: what a uri names, how we are let in, and the pyarrow filesystems that read models from them.

Jobs bring clients of their own to list and to write (see `jobs.storage`).

Credentials come from where the stores' own tools take them: for S3 the usual chain (variables, profile, role of the
machine), for Azure AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, else azure-identity's default credential, for Google
the application default credentials, else nobody's. The variables that those chains do not read by themselves are read
here, and nowhere else.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pyarrow import fs

from .errors import ConfigError, missing_packages

REQUEST_ATTEMPTS = 10
"""Of one request: with the waits between them, which double up to 20 s, a store may be away for about a minute."""

S3_URI = re.compile(r"s3://(?P<container>[A-Za-z0-9._-]+)(?:/(?P<key>.*))?", re.DOTALL)
AZURE_URI = re.compile(
    r"abfss://(?P<container>[a-z0-9$-]+)@(?P<host>[a-z0-9]+\.dfs\.[a-z0-9.-]+)(?:/(?P<key>.*))?", re.DOTALL
)
AZURE_SHORT_URI = re.compile(r"az://(?P<container>[a-z0-9$-]+)(?:/(?P<key>.*))?", re.DOTALL)
GOOGLE_URI = re.compile(r"gs://(?P<container>[a-z0-9._-]+)(?:/(?P<key>.*))?", re.DOTALL)

GOOGLE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
GOOGLE_RETRY_TIME = timedelta(seconds=30)
"""How long pyarrow tries a request to Google again; it counts in time where its client for S3 counts attempts."""

SIGNATURE = re.compile(r"\b((?:X-\w+-)?Sig(?:nature)?)=[^&\s\"']+", re.IGNORECASE)
"""The secret of a signed url: `sig` of Azure, `X-Amz-Signature` and `X-Goog-Signature`."""
QUERY_STRING = re.compile(r"\?[\w-]+=[^/]*$")
"""What may stand behind a url. The `?` of a glob is followed by no `name=` in the last part of a path."""


@dataclass(frozen=True, slots=True)
class StoreUri:
    """A place in an object store, as a uri names it."""

    scheme: str
    """`s3`, `abfss` or `gs`."""
    container: str
    """The bucket, or the container of the account."""
    key: str = ""
    """Without a slash at its end; empty is the whole container."""
    host: str = ""
    """Azure: `account.dfs.core.windows.net`, or that of another cloud."""

    def __str__(self) -> str:
        where = f"{self.container}@{self.host}" if self.host else self.container
        return f"{self.scheme}://{where}/{self.key}".rstrip("/")

    @property
    def account(self) -> str:
        """The storage account, for Azure only."""
        return self.host.partition(".")[0]

    @property
    def path(self) -> str:
        """The place as pyarrow's filesystems name it: `bucket/key`."""
        return f"{self.container}/{self.key}".rstrip("/")


class AzureAccess(NamedTuple):
    """How to reach a storage account; the secrets are in no repr."""

    endpoint: str | None
    """http://HOST:PORT/ACCOUNT of another service than Azure's own, such as Azurite."""
    key: str | None
    sas_token: str | None

    def __repr__(self) -> str:
        return f"AzureAccess({self.endpoint!r})"


class GoogleAccess(NamedTuple):
    """How to reach Google Cloud Storage; there is no secret in its repr."""

    endpoint: str | None
    """http://HOST:PORT of another service than Google's own, such as an emulator."""
    credentials: Any
    """Of google-auth; None is nobody, which is enough for an emulator and to read what is public."""

    def __repr__(self) -> str:
        return f"GoogleAccess({self.endpoint!r})"

    def token(self) -> tuple[str | None, datetime | None]:
        """A token that is valid now, and until when; raises GoogleAuthError where there is none to be had."""
        if self.credentials is None:
            return None, None
        if not self.credentials.valid:
            from google.auth.transport.requests import Request  # an optional dependency

            self.credentials.refresh(Request())
        return self.credentials.token, self.credentials.expiry.replace(tzinfo=UTC)  # it says UTC without a zone


def is_uri(name: str) -> bool:
    """Whether a name has a scheme."""
    return "://" in name


def parse_uri(uri: str) -> StoreUri:
    """The place that a uri names.

    Raises ConfigError for what is no uri of an object store; its message repeats nothing that may be a secret.
    """
    if found := S3_URI.fullmatch(uri):
        return StoreUri("s3", found["container"], (found["key"] or "").rstrip("/"))
    if found := AZURE_URI.fullmatch(uri):
        return StoreUri("abfss", found["container"], (found["key"] or "").rstrip("/"), found["host"])
    if found := AZURE_SHORT_URI.fullmatch(uri):
        account = os.environ.get("AZURE_STORAGE_ACCOUNT")
        if not account:
            raise ConfigError(f"{uri!r} names no storage account; set AZURE_STORAGE_ACCOUNT, or write abfss://")
        host = f"{account}.dfs.core.windows.net"
        return StoreUri("abfss", found["container"], (found["key"] or "").rstrip("/"), host)
    if found := GOOGLE_URI.fullmatch(uri):
        return StoreUri("gs", found["container"], (found["key"] or "").rstrip("/"))
    scheme = uri.partition("://")[0]
    raise ConfigError(
        f"{scheme}://... is no place that can be read; write s3://bucket/path, "
        "abfss://container@account.dfs.core.windows.net/path, az://container/path, gs://bucket/path, or a local path, "
        "and keep keys and passwords out of it"
    )


def parse_given_uri(uri: str) -> StoreUri:
    """The place that a uri names which a user gave; raises ConfigError also for one with a query string.

    A signed url would be taken as the name of an object, and its secret would stand in messages and records.
    """
    if QUERY_STRING.search(uri):
        raise ConfigError(
            f"{QUERY_STRING.sub('?...', uri)} has a query string; give the uri without it, and credentials in the "
            "environment (such as AZURE_STORAGE_SAS_TOKEN)"
        )
    return parse_uri(uri)


def without_signature(message: str) -> str:
    """The message without the secret of a signature, which urls in it may carry."""
    return SIGNATURE.sub(r"\1=...", message)


def filesystem(store: StoreUri) -> fs.FileSystem:
    """A filesystem that reads this uri's bucket or container, with the credentials that pyarrow or google-auth finds.

    Raises ConfigError where google-auth is not installed, PermissionError where it has no credentials for us.
    """
    if store.scheme == "s3":
        return s3_filesystem(store.container, s3_endpoint())
    if store.scheme == "gs":
        return google_filesystem_with_token(store)
    return azure_filesystem(store.host, azure_access())


def s3_endpoint() -> str | None:
    """The url of another service than AWS, from AWS's own variables; None is AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def azure_access() -> AzureAccess:
    """Endpoint and secrets from the variables of the Azure command line."""
    names = ("AZURE_STORAGE_SERVICE_ENDPOINT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN")
    endpoint, key, sas_token = (os.environ.get(name) or None for name in names)
    return AzureAccess(endpoint.rstrip("/") if endpoint else None, key, sas_token.lstrip("?") if sas_token else None)


def google_filesystem_with_token(store: StoreUri) -> fs.FileSystem:
    """A filesystem for Google Cloud Storage that reads as whoever google-auth says we are; raises like `filesystem`."""
    try:
        access = google_access()
        from google.auth.exceptions import GoogleAuthError  # an optional dependency
    except ModuleNotFoundError:
        raise ConfigError(missing_packages(str(store), "google-cloud-storage", "the extra gcs")) from None
    try:
        return google_filesystem(access.endpoint, *access.token())
    except GoogleAuthError as error:
        raise PermissionError(str(error.args[0] if error.args else error)) from None


def google_access() -> GoogleAccess:
    """Endpoint and credentials from Google's own variables; an emulator is asked without credentials.

    Raises ModuleNotFoundError without google-auth, DefaultCredentialsError for credentials that cannot be loaded.
    """
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if not emulator:
        return GoogleAccess(None, google_credentials(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")))
    return GoogleAccess(emulator.rstrip("/") if "://" in emulator else f"http://{emulator}", None)


@lru_cache(maxsize=8)
def google_credentials(file: str | None) -> Any:
    """The application default credentials: those in `file`, of gcloud or of the machine; None where there are none.

    Raises DefaultCredentialsError for a file that cannot be loaded.
    """
    import google.auth  # an optional dependency
    from google.auth.exceptions import DefaultCredentialsError

    try:
        return google.auth.default(scopes=[GOOGLE_SCOPE])[0]
    except DefaultCredentialsError:
        if file:
            raise
        return None


@lru_cache(maxsize=64)
def google_filesystem(endpoint: str | None, token: str | None, valid_until: datetime | None) -> fs.FileSystem:
    """A filesystem for all buckets of Google Cloud Storage; without a token it asks as nobody."""
    return fs.GcsFileSystem(
        anonymous=token is None,
        access_token=token,
        credential_token_expiration=valid_until,
        retry_time_limit=GOOGLE_RETRY_TIME,
        **({} if endpoint is None else endpoint_override(endpoint)),
    )


@lru_cache(maxsize=64)
def s3_filesystem(
    bucket: str,
    endpoint: str | None,
    access_key: str | None = None,
    secret_key: str | None = None,
    session_token: str | None = None,
) -> fs.S3FileSystem:
    """A filesystem for one bucket, in its region. Where no keys are given, pyarrow looks for some itself."""
    place = {"region": fs.resolve_s3_region(bucket)} if endpoint is None else endpoint_override(endpoint)
    return fs.S3FileSystem(
        access_key=access_key,
        secret_key=secret_key,
        session_token=session_token,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=REQUEST_ATTEMPTS),
        **place,
    )


def endpoint_override(endpoint: str) -> dict[str, str]:
    """An endpoint such as https://host:port as pyarrow's filesystems take it: scheme and the rest apart."""
    parts = urlsplit(endpoint)
    return {"scheme": parts.scheme, "endpoint_override": parts.netloc + parts.path.rstrip("/")}


@lru_cache(maxsize=64)
def azure_filesystem(host: str, access: AzureAccess) -> fs.FileSystem:
    """A filesystem for one storage account."""
    account, _, suffix = host.partition(".dfs.")
    if access.endpoint is None:
        place = {"blob_storage_authority": f".blob.{suffix}", "dfs_storage_authority": f".dfs.{suffix}"}
    else:
        parts = urlsplit(access.endpoint)
        place = {f"{service}_storage_authority": parts.netloc for service in ("blob", "dfs")}
        place |= {f"{service}_storage_scheme": parts.scheme for service in ("blob", "dfs")}
    sas_token = f"?{access.sas_token}" if access.sas_token and not access.key else None
    return fs.AzureFileSystem(account_name=account, account_key=access.key, sas_token=sas_token, **place)
