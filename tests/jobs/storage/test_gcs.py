"""Google Cloud Storage on its own: faults, credentials, what is said when it does not let us in or stays away."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from jobs import storage
from jobs.errors import AccessError, StoreError
from jobs.storage.gcs import GoogleBucket
from pipelines.errors import ConfigError
from pipelines.stores import GoogleAccess, filesystem, google_access, google_filesystem, parse_uri
from tests.jobs.storage.test_stores import fail_in_a_process
from tests.stores import FAULTS, Bucket


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_faults_of_google_change_nothing_either(google_bucket: Bucket, seed: int) -> None:
    """Every fifth request fails in one of six ways."""
    table = pa.table({"number": range(10_000)})
    out = f"{google_bucket.uri}/out"
    with google_bucket.proxy.failing(1 / 5, seed) as injected, ThreadPoolExecutor(8) as pool:

        def use(number: int) -> None:
            storage.write_table(f"{out}/{number}.parquet", table)
            assert storage.read_parquet(f"{out}/{number}.parquet", lambda file: file.read()).equals(table)
            assert storage.swap(f"{out}/{number}.json", None, b"1")
            assert storage.swap(f"{out}/{number}.json", b"1", b"2")
            assert not storage.swap(f"{out}/{number}.json", b"1", b"3")
            assert storage.read_json(f"{out}/{number}.json") == 2

        list(pool.map(use, range(8)))
        assert len(storage.names(out)) == 16
        storage.remove(f"{out}/0.json", f"{out}/absent")
    assert len(set(injected)) > len(FAULTS) / 2
    assert len(google_bucket.names()) == 15


def test_a_large_upload_goes_through_faults(google_bucket: Bucket) -> None:
    """It takes two requests. No answer is lost here, since fake-gcs-server forgets an upload that is done."""
    location, content = f"{google_bucket.uri}/large", os.urandom(9 << 20)
    with google_bucket.proxy.failing(1 / 2, kinds=("500", "503", "reset", "slow")) as injected:
        for _ in range(4):
            storage.store_of(location).write(location, content)
            assert storage.read(location) == content
    assert len(injected) > 4
    assert google_bucket.get("large") == content


def test_a_google_that_stays_away_is_an_error_of_the_location(google_bucket: Bucket) -> None:
    location = f"{google_bucket.uri}/b.json"
    google_bucket.put("b.json", b"{}")
    bucket = GoogleBucket(parse_uri(google_bucket.uri), google_access(), patience_seconds=0.5)
    for kind in ("500", "503", "reset", "lost"):
        for use in (
            lambda: bucket.write(location, b""),
            lambda: bucket.read(location),
            lambda: bucket.find(location),
            lambda: bucket.names(google_bucket.uri),
            lambda: bucket.open_parquet(location, check_pages=False),
        ):
            with (
                google_bucket.proxy.failing(1.0, kinds=(kind,)) as injected,
                pytest.raises(StoreError, match=f"{google_bucket.uri}.*: ") as error,
            ):
                use()
            assert injected
            assert not isinstance(error.value, AccessError)


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed_with_the_new_one(google_bucket: Bucket) -> None:
    location = f"{google_bucket.uri}/a.parquet"
    storage.write_table(location, pa.table({"number": range(100_000)}))
    with storage.store_of(location).open_parquet(location, check_pages=False) as file:
        google_bucket.put("a.parquet", google_bucket.get("a.parquet"))
        with pytest.raises(FileNotFoundError):
            file.read()


def test_credentials_of_google_that_cannot_be_loaded_are_named(google_bucket: Bucket, tmp_path: Path) -> None:
    broken = tmp_path / "key.json"
    broken.write_text('{"type": "service_account", "client_email": "me", "private_key": "c2VjcmV0"}')
    for file in (broken, tmp_path / "absent.json"):
        environment = {"STORAGE_EMULATOR_HOST": None, "GOOGLE_APPLICATION_CREDENTIALS": str(file)}
        said = fail_in_a_process(f"{google_bucket.uri}/in", environment)
        assert f"jobs.errors.AccessError: {google_bucket.uri}: " in said
        assert str(file) in said
        assert "set GOOGLE_APPLICATION_CREDENTIALS, or sign in" in said
        assert "c2VjcmV0" not in said


@pytest.fixture
def as_service_account(
    google_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GoogleAccess]:
    """How to reach the bucket's server as a service account that everybody gives the token `c2VjcmV0`."""
    with token_server("c2VjcmV0") as token_uri:
        write_key(tmp_path / "key.json", token_uri)
        with monkeypatch.context() as environment:
            environment.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
            environment.delenv("STORAGE_EMULATOR_HOST")  # where one is asked, nobody's credentials are looked for
            access = google_access()
        yield access._replace(endpoint=f"http://127.0.0.1:{google_bucket.proxy.port}")


def test_requests_carry_the_token_of_a_service_account(google_bucket: Bucket, as_service_account: GoogleAccess) -> None:
    """Both by Google's client and by pyarrow, which fetches models; the token comes from whom the key's file names."""
    bucket = GoogleBucket(parse_uri(google_bucket.uri), as_service_account)
    with google_bucket.proxy.failing(0.0):
        bucket.write(f"{google_bucket.uri}/a.json", b"{}")
        assert bucket.read(f"{google_bucket.uri}/a.json") == b"{}"
        path = f"{google_bucket.uri.removeprefix('gs://')}/a.json"
        files = google_filesystem(as_service_account.endpoint, *as_service_account.token())
        with files.open_input_stream(path) as stream:
            assert stream.read() == b"{}"
    assert len(google_bucket.proxy.authorizations) > 2
    assert set(google_bucket.proxy.authorizations) == {"Bearer c2VjcmV0"}
    assert "c2VjcmV0" not in repr(as_service_account)


def test_who_is_refused_hears_it_without_the_token(google_bucket: Bucket, as_service_account: GoogleAccess) -> None:
    bucket = GoogleBucket(parse_uri(google_bucket.uri), as_service_account)
    with google_bucket.proxy.failing(1.0, kinds=("403",)), pytest.raises(AccessError, match=r"\(403\)") as error:
        bucket.write(f"{google_bucket.uri}/a.json", b"{}")
    assert "c2VjcmV0" not in str(error.value)


@contextmanager
def token_server(token: str) -> Iterator[str]:
    """Gives this token to everybody who asks as Google's accounts do; yields its uri."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/token"
        finally:
            server.shutdown()


def write_key(path: Path, token_uri: str) -> None:
    """The key of a service account, as Google hands it out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "client_email": "me@project", "token_uri": token_uri}
    path.write_text(json.dumps(account | {"private_key": encoded.decode(), "private_key_id": "1"}))


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "http://127.0.0.1:{}/"])
def test_an_emulator_is_found_by_googles_own_variable(
    google_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host.format(google_bucket.proxy.port))
    google_bucket.put("in/a.parquet", b"")
    assert [file.path for file in storage.list_input(google_bucket.uri)] == [f"{google_bucket.uri}/in/a.parquet"]
    assert filesystem(parse_uri(google_bucket.uri)).get_file_info(f"{google_bucket.uri[5:]}/in/a.parquet").size == 0


def test_without_the_extra_the_way_to_google_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jobs.storage.gcs", None)
    with pytest.raises(
        ConfigError, match=r"^gs://never-used needs .*: pip install google-cloud-storage \(the extra gcs of crossray\)$"
    ):
        storage.list_input("gs://never-used/in")
