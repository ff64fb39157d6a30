"""The list of models, `/v1/models`, and what TEI's `/info` says of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.published import family_of, licence_of
from serve.schemas.dialect import described

if TYPE_CHECKING:
    from pipelines.fingerprint import ServedModel  # imports torch


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
    family: Annotated[str, Field(examples=["XLM-RoBERTa"])]
    licence: Annotated[str | None, Field(examples=["Apache-2.0"])]
    """Of the weights, as the card of a published model says; null for others."""
    takes_instruction: bool
    """Whether the model reads an `instruction` before query and document; others refuse one."""
    instruction: str | None
    """The one that requests without their own are asked with; null is its publisher's."""
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


def models_answer(model: str, served: ServedModel) -> ModelsAnswer:
    """The list of the one model that is served, under the name `model`."""
    fingerprint = served.fingerprint
    card: ModelCard = {
        "id": model,
        "object": "model",
        "created": served.loaded_at,
        "owned_by": "crossray",
        "family": family_of(fingerprint.layout),
        "licence": licence_of(served.config.model),
        "takes_instruction": served.takes_instruction,
        "instruction": fingerprint.instruction,
        "max_length": fingerprint.max_length,
        "max_query_length": fingerprint.max_query_length,
        "overlap_tokens": fingerprint.overlap_tokens,
        "max_chunks_per_doc": fingerprint.max_chunks_per_doc,
        "dtype": fingerprint.dtype,
        "calibrated": served.config.calibration is not None,
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
