"""What `serve run serve.app:build_app key=value`, deployment files and `crossray serve` may set: each knob once."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.config import EMBEDDED, RerankerConfig
from serve.origins import origins_of

MEBIBYTE = 1 << 20
DEFAULTS = RerankerConfig()


class ServeArgs(BaseModel):
    """The whole app. Values come as JSON types or as the strings of a command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: str = EMBEDDED
    """`embedded`, a directory, or a hub name."""
    served_model_name: str | None = None
    """What answers and /v1/models call the model; by default `model`."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    device: str = "auto"
    """`cpu` or `cuda`; `auto` is a GPU where replicas have one (`num_gpus`)."""
    dtype: str = "auto"
    """`float32`, `float16`, `bfloat16`; `auto` is float16 on a GPU and float32 elsewhere."""
    max_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one pass; by default what suits the device."""
    max_length: int = DEFAULTS.max_length
    """Tokens of a pair where a request does not say; clamped to what the model can read."""
    max_query_length: int = DEFAULTS.max_query_length
    """Tokens of the query, likewise; clamped to half of max_length."""
    overlap_tokens: int = DEFAULTS.overlap_tokens
    """Tokens that two neighbouring chunks of a long document share."""
    max_chunks_per_doc: int | None = None
    """Chunks scored of one document, by default all; what lies beyond is cut and counted."""
    calibration: str | None = None
    """A file of `crossray calibrate` for this model, read when the app is deployed; by default the one in the model's
    directory."""
    instruction: str | None = None
    """What a model that takes an instruction is told to look for; by default its publisher's."""

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    """Loaded models, each in a process of its own; between the two bounds their number follows the tokens that wait."""
    num_cpus: float = Field(default=1, ge=0)
    """CPUs of a replica; the threads it computes with are `num_threads`."""
    num_threads: int | None = Field(default=None, ge=1)
    """Threads of a replica; by default its CPUs, at least 1."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs of a replica; a part of one lets replicas share it."""
    queued_tokens_per_replica: int | None = Field(default=None, ge=1)
    """Waiting tokens that one more replica is started for; by default what one answers in half of max_wait_seconds."""
    endpoints: int = Field(default=2, ge=1)
    """Processes that speak HTTP and tokenize; with one, its death is seconds without answers."""

    strict_model: bool = False
    """Refuse requests that name another model; by default any name is taken, since clients send a fixed one."""
    return_documents: bool = True
    """Whether results carry their document where a request does not say."""
    max_documents: int = Field(default=10_000, ge=1)
    """Documents of one request."""
    max_body_bytes: int = Field(default=32 * MEBIBYTE, ge=1024)
    """Bytes of a request's body."""
    max_wait_seconds: float = Field(default=10, gt=0)
    """Requests are refused with 429 while more waits than all replicas answer in this time, at their measured speed."""
    max_queued_tokens: int = Field(default=2_000_000, ge=1)
    """Tokens that may wait at one endpoint at most, also while no speed is measured yet."""
    deadline_seconds: float = Field(default=300, gt=0)
    """Seconds after which an unanswered request is a 503."""
    api_keys_file: str | None = None
    """Hashes of API keys, a line each (`crossray keys new` makes one); changes hold within 5 s. Without a file, the
    lines of CROSSRAY_API_KEYS hold until a restart; else no keys."""
    allow_anonymous: bool = False
    """Listen beyond this machine without API keys."""
    cors_origins: str | None = None
    """Web origins (https://app.example.org) whose pages may call the server, with commas between them, or `*` alone; by
    default none but its own."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, less than min_replicas ({self.min_replicas})")
        if self.cors_origins is not None:
            origins_of(self.cors_origins)  # raises ConfigError for what is no origin
        self.reranker()  # raises ConfigError, which is a ValueError, for lengths and dtypes that cannot work
        return self

    @property
    def threads(self) -> int:
        """Threads of a replica."""
        return self.num_threads or max(1, int(self.num_cpus))

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.served_model_name or self.model

    def reranker(self) -> RerankerConfig:
        """How a replica loads its model."""
        settings: dict[str, Any] = self.model_dump(
            include={
                "model",
                "revision",
                "dtype",
                "max_batch_tokens",
                "max_length",
                "max_query_length",
                "overlap_tokens",
                "max_chunks_per_doc",
                "instruction",
            }
        )
        device = self.device if self.device != "auto" else "cuda" if self.num_gpus else "cpu"
        return RerankerConfig(**settings, device=device, num_threads=self.threads)
