"""Which family a model is of, and which models are refused whatever their tensors."""

from __future__ import annotations

from collections.abc import Collection

from ..config import MIN_MAX_LENGTH
from ..errors import ModelRefusedError
from ..model_files import MODULES, SENTENCE_TRANSFORMERS, ModelFiles, refusals_naming, shown, tensor_headers
from .bert import BERT
from .chain import Chain, LogitScore, chain_of, default_prompt
from .deberta import DEBERTA
from .electra import ELECTRA
from .family import Config, Family, ModelSpec
from .gemma import GEMMA
from .gte import GTE
from .jina_v1 import JINA_V1
from .jina_v2 import JINA_V2
from .language_model import LanguageModelSpec
from .modernbert import MODERNBERT
from .nemotron import NEMOTRON
from .qwen import QWEN
from .roberta import ROBERTAS

FAMILIES = (JINA_V1, JINA_V2, BERT, *ROBERTAS, ELECTRA, MODERNBERT, GTE, DEBERTA, QWEN, GEMMA, NEMOTRON)
"""The first that recognises a model reads it. Jina's are first: version 1 calls itself a BERT, which would load with
random layers, and of version 2 the tensors tell, whatever its config says."""

CHAINED = " or ".join(family.layout for family in FAMILIES if family.behind_chain is not None)


def spec_of(files: ModelFiles) -> ModelSpec:
    """The model in these files: what config.json says of it, compared with the headers of its weights.

    Reads no weights. Raises ModelRefusedError for a model that would not load, or would score wrongly.
    """
    config, headers = files.config(), tensor_headers(files)
    with refusals_naming(files.directory):
        try:
            chain = chain_of(files)
        except KeyError as error:
            raise ModelRefusedError(f"a module of {MODULES} lacks {error} in its config.json") from None
        spec = recognise(config, headers, chain).with_vocabulary(files.tokenizer)
        spec = spec.with_segments(given=files.gives_segments())
        if isinstance(spec, LanguageModelSpec) and chain is None and files.listed_modules():
            raise ModelRefusedError(
                f"as {MODULES} says, sentence-transformers gives this classifier query and passage as they are, and "
                f"here they are asked for in the prompt of {spec.layout}: the scores are others. If it was trained on "
                f"pairs in that prompt, delete {MODULES}"
            )
        if not isinstance(chain, LogitScore) and (prompt := default_prompt(files)):
            raise ModelRefusedError(
                f"sentence-transformers puts {shown(prompt)} before each pair, as {SENTENCE_TRANSFORMERS} says; that "
                f"is not done for {spec.layout} models"
            )
        spec.check_tensors(headers)
    return spec


def recognise(config: Config, tensor_names: Collection[str], chain: Chain | LogitScore | None = None) -> ModelSpec:
    """The model that a `config.json`, its tensors' names and the modules behind it describe.

    Raises ModelRefusedError.
    """
    family = family_of(config, tensor_names)
    try:
        if chain is None:
            return family.spec(config)
        if isinstance(chain, LogitScore):
            if family.with_logit_score is None:
                raise ModelRefusedError(
                    f"{MODULES} puts a LogitScore behind a {family.layout} model; supported is Qwen"
                )
            return family.with_logit_score(config, chain)
        if family.behind_chain is None:
            raise ModelRefusedError(f"{MODULES} puts modules behind a {family.layout} model; supported is {CHAINED}")
        return family.behind_chain(config, chain)
    except KeyError as error:
        raise ModelRefusedError(f"config.json lacks {error}; it does not describe a model we know") from None


def family_of(config: Config, tensor_names: Collection[str]) -> Family:
    """The family that recognises the model; raises ModelRefusedError where none does."""
    for family in FAMILIES:
        if family.recognises(config, tensor_names):
            return family
    raise ModelRefusedError(
        f"model_type is {shown(config.get('model_type'))}; supported are BERT, RoBERTa, XLM-RoBERTa, "
        "CamemBERT, ELECTRA, ModernBERT and DeBERTa-v2 cross-encoders, gte-multilingual, jina-reranker-v1 and -v2, "
        f"Qwen3-Reranker, mxbai-rerank-v2, bge-reranker-v2-gemma and llama-nemotron-rerank "
        f"({', '.join(family.layout for family in FAMILIES)})"
    )


def model_limit(spec: ModelSpec, files: ModelFiles) -> int:
    """Tokens of the longest pair: what the positions hold, or less where the files beside the model say so.

    Raises ModelRefusedError for a model that cannot hold a pair.
    """
    told = files.tokenizer_limit(), files.transformer_limit()
    limit = min([spec.max_length, *(one for one in told if one is not None)])
    if limit < MIN_MAX_LENGTH:
        raise ModelRefusedError(f"{files.name} reads {limit} tokens at most; a pair needs at least {MIN_MAX_LENGTH}")
    return limit
