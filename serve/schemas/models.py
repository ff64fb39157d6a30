"""The list of models, `/v1/models`, and what TEI's `/info` says of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict  # pydantic refuses typing.TypedDict before Python 3.12

from serve.schemas.dialect import described

if TYPE_CHECKING:
    from pipelines.fingerprint import Fingerprint, ServedModel  # imports torch


RERANKER = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
"""A model of one label in TEI's words."""


@described
class ModelCard(TypedDict):
    """A model as OpenAI's API lists it, and what decides its scores."""

    id: Annotated[str, Field(examples=["jina-reranker-v2-base-multilingual"])]
    object: Literal["model"]
    created: int
    """When it was loaded, in seconds since 1970."""
    owned_by: str
    max_length: Annotated[int, Field(examples=[1024])]
    """Lengths are the effective ones: clamped to what the model can read."""
    max_query_length: Annotated[int, Field(examples=[512])]
    overlap_tokens: Annotated[int, Field(examples=[80])]
    max_chunks_per_doc: int | None
    dtype: Annotated[str, Field(examples=["float32"])]
    calibrated: bool
    """Whether 0.5 of a score means an even chance; without that, `score_threshold` is refused."""
    fingerprint: str
    """Equal fingerprints give equal scores."""


class ModelsAnswer(TypedDict):
    """`/v1/models`."""

    object: Literal["list"]
    data: list[ModelCard]


def models_answer(model: str, fingerprint: Fingerprint, created: int, *, calibrated: bool) -> ModelsAnswer:
    """The list of the one model that is served; `created` in seconds since 1970."""
    card: ModelCard = {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": "crossray",
        "max_length": fingerprint.max_length,
        "max_query_length": fingerprint.max_query_length,
        "overlap_tokens": fingerprint.overlap_tokens,
        "max_chunks_per_doc": fingerprint.max_chunks_per_doc,
        "dtype": fingerprint.dtype,
        "calibrated": calibrated,
        "fingerprint": fingerprint.hash,
    }
    return {"object": "list", "data": [card]}


@described
class InfoAnswer(TypedDict):
    """TEI's `/info`: what its clients look at before they ask."""

    model_id: Annotated[str, Field(examples=["jina-reranker-v2-base-multilingual"])]
    model_sha: str | None
    """The commit of a hub model."""
    model_dtype: Annotated[str, Field(examples=["float32"])]
    served_model_name: str
    model_type: Annotated[dict[str, Any], Field(examples=[RERANKER])]
    """That it is a reranker, by its only key."""
    max_input_length: int
    """Tokens of query and document together; a longer document is scored in chunks."""
    max_client_batch_size: int
    """Texts of one request."""
    auto_truncate: bool
    """Whether long texts are taken where a request does not say."""
    version: str
    """Of Crossray."""


def info_answer(model: str, served: ServedModel, max_documents: int, version: str) -> InfoAnswer:
    """What `/info` says of the model that is served under the name `model`."""
    return {
        "model_id": model,
        "model_sha": served.config.revision,
        "model_dtype": served.fingerprint.dtype,
        "served_model_name": model,
        "model_type": RERANKER,
        "max_input_length": served.fingerprint.max_length,
        "max_client_batch_size": max_documents,
        "auto_truncate": True,
        "version": version,
    }
