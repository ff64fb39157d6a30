"""Models, one Ray and one app on it for all tests. Who damages a model takes `copy_model` first."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
import requests
from hypothesis import settings

from serve import haproxy
from serve.environment import set_serve_environment
from serve.private_ray import private_environment, reserve_port
from tests.checkpoints import write_bert, write_ettin, write_jina_v2, write_mmarco, write_modernbert, write_xlm_roberta
from tests.stores import (
    AzureTestContainer,
    Bucket,
    GoogleTestBucket,
    S3TestBucket,
    Stores,
    azurite_server,
    fake_gcs_server,
    moto_server,
    stores_in_environment,
)

if TYPE_CHECKING:
    from serve.settings import ServeArgs

pytest.register_assert_rewrite("tests.jobs", "tests.pipelines", "tests.serve")  # shared asserts say what they saw

set_serve_environment()  # before a test's module imports ray.serve, which reads it then

settings.register_profile("crossray", deadline=None)  # a busy machine is no failure
settings.load_profile("crossray")


@pytest.fixture(scope="session")
def bert_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT cross-encoder of 512 tokens."""
    return write_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def xlm_roberta_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XLM-RoBERTa reranker of 512 tokens."""
    return write_xlm_roberta(tmp_path_factory.mktemp("models") / "xlm_roberta")


@pytest.fixture(scope="session")
def mmarco_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multilingual MiniLM reranker of 512 tokens."""
    return write_mmarco(tmp_path_factory.mktemp("models") / "mmarco")


@pytest.fixture(scope="session")
def jina_v2_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker of 1,024 tokens in the layout of jina-reranker-v2."""
    return write_jina_v2(tmp_path_factory.mktemp("models") / "jina_v2")


@pytest.fixture(scope="session")
def modernbert_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ModernBERT reranker of 8,192 tokens that takes the mean of them."""
    return write_modernbert(tmp_path_factory.mktemp("models") / "modernbert")


@pytest.fixture(scope="session")
def ettin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ModernBERT whose score the modules of sentence-transformers make."""
    return write_ettin(tmp_path_factory.mktemp("models") / "ettin")


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """Where object stores will be, in the environment of every process; their servers start with a test's bucket."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))  # models that are fetched
    return stores_in_environment()


@pytest.fixture(scope="session")
def s3(stores: Stores) -> Iterator[None]:
    """A server that speaks S3's protocol."""
    with moto_server(stores.s3):
        yield


@pytest.fixture(scope="session")
def azurite(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server that speaks Azure's protocol."""
    with azurite_server(stores.azure, tmp_path_factory.mktemp("azurite")):
        yield


@pytest.fixture(scope="session")
def fake_gcs(stores: Stores) -> Iterator[None]:
    """A server that speaks Google's protocol."""
    with fake_gcs_server(stores.google):
        yield


@pytest.fixture
def s3_bucket(stores: Stores, s3: None) -> Iterator[Bucket]:
    """A bucket of this test."""
    bucket = S3TestBucket(stores.s3, f"bucket-{uuid.uuid4().hex}")
    with closing(bucket.client):
        yield bucket


@pytest.fixture
def azure_container(stores: Stores, azurite: None) -> Iterator[Bucket]:
    """A container of this test."""
    container = AzureTestContainer(stores.azure, f"container-{uuid.uuid4().hex}")
    with closing(container.client):
        yield container


@pytest.fixture
def google_bucket(stores: Stores, fake_gcs: None) -> Iterator[Bucket]:
    """A bucket of this test."""
    bucket = GoogleTestBucket(stores.google, f"bucket-{uuid.uuid4().hex}")
    with closing(bucket.client):
        yield bucket


@pytest.fixture(params=["s3_bucket", "azure_container", "google_bucket"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A bucket or container of this test in each kind of store."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def cluster(stores: Stores) -> Iterator[str]:
    """A Ray of two CPUs: jobs of this process use it instead of starting one, others by its address."""
    with tempfile.TemporaryDirectory(prefix="crossray-") as directory:  # its path is short, as those of sockets must be
        with pytest.MonkeyPatch.context() as environment:  # not for what tests start beside it
            own = private_environment(Path(directory)) | haproxy.wrapped(os.environ, Path(directory))
            for name, value in own.items():
                environment.setenv(name, value)
            ray.init(
                "local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=200 << 20,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@dataclass
class LiveApp:
    """The app on Ray Serve, behind its HAProxy."""

    base_url: str
    key: str
    args: ServeArgs

    @property
    def headers(self) -> dict[str, str]:
        """With the key."""
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, json: Any = None, **options: Any) -> requests.Response:
        """A request with the key."""
        return requests.post(self.base_url + path, json=json, headers=self.headers, timeout=60, **options)


@pytest.fixture(scope="session")
def live_app(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> LiveApp:
    """The embedded model, two scorers and two endpoints, API keys, and room for 60,000 tokens in each endpoint."""
    from ray import serve  # seconds, and not for tests without a server

    from serve.app import build_app
    from serve.auth import new_key
    from serve.settings import ServeArgs

    key = new_key("tests")
    keys_file = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys_file.write_text(key.line)
    args = ServeArgs(
        num_cpus=0,
        num_threads=1,
        min_replicas=2,
        max_replicas=2,
        endpoints=2,
        max_queued_tokens=60_000,
        max_wait_seconds=25,  # so that a slow machine under load does not refuse what few clients ask
        api_keys_file=str(keys_file),
    )
    port = reserve_port(18_000)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_app(args), name="crossray", route_prefix="/")
    return LiveApp(f"http://127.0.0.1:{port}", key.key, args)
