"""The list of models, `/v1/models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # pydantic refuses typing.TypedDict before Python 3.12

from serve.schemas.dialect import described

if TYPE_CHECKING:
    from pipelines.fingerprint import Fingerprint  # imports torch


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
    fingerprint: str
    """Equal fingerprints give equal scores."""


class ModelsAnswer(TypedDict):
    """`/v1/models`."""

    object: Literal["list"]
    data: list[ModelCard]


def models_answer(model: str, fingerprint: Fingerprint, created: int) -> ModelsAnswer:
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
        "fingerprint": fingerprint.hash,
    }
    return {"object": "list", "data": [card]}
