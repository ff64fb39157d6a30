"""Qwen3-Reranker and mxbai-rerank-v2: logits as their publishers' own programs compute them, in all three forms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from jobs.driver.resolution import with_resolved_model
from jobs.settings import RerankSettings
from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError, ModelRefusedError
from pipelines.families import chat_template, spec_of
from pipelines.families.qwen import QWEN3
from pipelines.model_sources import find_model
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from pipelines.training.plain import write_plain
from tests.checkpoints import (
    copy_model,
    edit_config,
    read_weights,
    shard_weights,
    words,
    write_module,
    write_qwen,
    write_weights,
)
from tests.pipelines.language_models import PAIRS, logits_of_lists

TOLERANCE = 1e-4
INSTRUCTION = "Given a question, find the bridge that answers it"

QWEN3_SYSTEM = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
QWEN3_END = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
MXBAI_SYSTEM = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 "
    "for not relevant, 1 for relevant).\nRelevance:"
)
MXBAI_END = "<|im_end|>\n<|im_start|>assistant\n"

Encode = Callable[[str], list[int]]


def qwen3_ids(encode: Encode, query: str, document: str, instruction: str | None) -> list[int]:
    """As QwenLM's example tokenizes a pair: the words before and after by themselves, and all between in one."""
    asked = instruction or "Given a web search query, retrieve relevant passages that answer the query"
    body = f"<Instruct>: {asked}\n<Query>: {query}\n<Document>: {document}"
    return [*encode(QWEN3_SYSTEM), *encode(body), *encode(QWEN3_END)]


def mxbai_ids(encode: Encode, query: str, document: str, instruction: str | None) -> list[int]:
    """As the package mxbai-rerank does: query and document by themselves, with ids of a line break between."""
    asked = f"query: {query}" if instruction is None else f"instruction: {instruction}\nquery: {query}"
    line = encode("\n")
    pair = [*encode(asked), *line, *encode(f"document: {document}")]
    return [*encode(MXBAI_SYSTEM), *pair, *line, *encode(MXBAI_TASK), *encode(MXBAI_END)]


QWEN3_TEMPLATE = (
    '{%- set asked = messages | selectattr("role", "eq", "system") | map(attribute="content") | first '
    '| default("Given a web search query, retrieve relevant passages that answer the query") -%}\n'
    '{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}\n'
    '{%- set text = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}\n'
    f"{QWEN3_SYSTEM}<Instruct>: {{{{ asked }}}}\n<Query>: {{{{ query }}}}\n<Document>: {{{{ text }}}}{QWEN3_END}\n"
)
"""As in Qwen/Qwen3-Reranker-0.6B; jinja leaves out the last line break."""
MXBAI_TEMPLATE = (
    f'{MXBAI_SYSTEM}query: {{{{ (messages | selectattr("role", "eq", "query") | first).content }}}}\n'
    'document: {{ (messages | selectattr("role", "eq", "document") | first).content }}\n'
    f"{MXBAI_TASK}{MXBAI_END}\n"
)
TEMPLATES = {"qwen3": QWEN3_TEMPLATE, "qwen2": MXBAI_TEMPLATE}
PUBLISHED = {"qwen3": (qwen3_ids, 9693, 2152), "qwen2": (mxbai_ids, 16, 15)}
"""How a publisher makes ids of a pair, and the tokens for yes and no."""


@torch.inference_mode()
def published_logits(model: Path, kind: str, instruction: str | None = None) -> np.ndarray:
    """Logits of PAIRS by transformers' causal language model, one pair at a time, in float32."""
    from transformers import AutoModelForCausalLM

    loaded, loading = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids_of, yes, no = PUBLISHED[kind]

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    rows = [
        loaded(input_ids=torch.tensor([ids_of(encode, query, document, instruction)])).logits[0, -1]
        for query, document in PAIRS
    ]
    return np.array([float(row[yes] - row[no]) for row in rows])


def as_logit_score(source: Path, directory: Path, yes: int, no: int | None, kind: str = "qwen3") -> Path:
    """The language model with what sentence-transformers writes beside it."""
    copy_model(source, directory)
    logits = {"method": "forward", "method_output_name": "logits"}
    settings = {
        "transformer_task": "text-generation",
        "modality_config": {"text": logits, "message": logits | {"format": "flat"}},
        "module_output_name": "causal_logits",
    }
    (directory / "sentence_bert_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text(TEMPLATES[kind])
    module = {"true_token_id": yes, "false_token_id": no, "module_input_name": "causal_logits"}
    write_module(directory, 1, "cross_encoder.modules.logit_score.LogitScore", module, {})
    return directory


def as_classifier(source: Path, directory: Path, kind: str) -> Path:
    """The sequence classifier that published programs make of the language model."""
    copy_model(source, directory)
    _, yes, no = PUBLISHED[kind]
    tensors = {name: tensor.float() for name, tensor in read_weights(source).items()}
    head = tensors.pop("lm_head.weight", tensors["model.embed_tokens.weight"])
    write_weights(directory, tensors | {"score.weight": (head[yes] - head[no])[None].contiguous()})
    name = f"{'Qwen3' if kind == 'qwen3' else 'Qwen2'}ForSequenceClassification"
    return edit_config(directory, architectures=[name], num_labels=1, id2label={"0": "LABEL_0"})


@pytest.mark.parametrize("kind", PUBLISHED)
@pytest.mark.parametrize("instruction", [None, INSTRUCTION])
def test_logits_are_those_of_the_publisher_in_all_three_forms(
    kind: str, instruction: str | None, tmp_path: Path
) -> None:
    model = write_qwen(tmp_path / "model", kind)
    _, yes, no = PUBLISHED[kind]
    expected = published_logits(model, kind, instruction)
    assert expected.std() > 0.3
    close = partial(np.testing.assert_allclose, desired=expected, atol=TOLERANCE, rtol=0)
    settings = {"instruction": instruction, "num_threads": 1}
    close(logits_of_lists(model, **settings))
    close(logits_of_lists(model, max_batch_tokens=300, **settings))
    close(logits_of_lists(as_logit_score(model, tmp_path / "chain", yes, no, kind), **settings))
    close(logits_of_lists(as_classifier(model, tmp_path / "classifier", kind), **settings))
    reranker = Reranker.from_config(RerankerConfig(str(model), device="cpu", raw_scores=True, **settings))
    close(np.array(reranker.compute_score(PAIRS)))
    close(np.array([reranker.compute_score([pair])[0] for pair in PAIRS]))


def test_a_head_of_its_own_and_shards_are_read(tmp_path: Path) -> None:
    model = shard_weights(write_qwen(tmp_path / "model", tie_word_embeddings=False))
    np.testing.assert_allclose(logits_of_lists(model), published_logits(model, "qwen3"), atol=TOLERANCE, rtol=0)


def test_a_head_beside_embeddings_that_are_tied_has_their_answers_or_is_refused(tmp_path: Path) -> None:
    """transformers 4 would score by the embeddings, and transformers 5 by a head that differs."""
    model = write_qwen(tmp_path / "model")
    expected = logits_of_lists(model)
    tensors = read_weights(model)
    head = tensors["model.embed_tokens.weight"].clone()
    head[5] = 0
    write_weights(model, tensors | {"lm_head.weight": head})
    np.testing.assert_array_equal(logits_of_lists(model), expected)

    head[2152] = 0
    write_weights(model, tensors | {"lm_head.weight": head})
    with pytest.raises(ModelRefusedError, match=r"another row 2152 .* Set tie_word_embeddings of .* to false"):
        logits_of_lists(model)

    edit_config(model, tie_word_embeddings=False)
    np.testing.assert_allclose(logits_of_lists(model), published_logits(model, "qwen3"), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "told",
    [
        {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 90.0}, "rope_theta": 500.0},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 500.0}, "rope_parameters": {"rope_theta": 90.0}},
        {"rope_scaling": None, "rope_parameters": {"rope_theta": 500.0}, "rope_theta": 90.0},
    ],
    ids=str,
)
def test_older_keys_of_the_positions_count_as_in_transformers(told: dict[str, Any], tmp_path: Path) -> None:
    model = write_qwen(tmp_path / "model")
    others = logits_of_lists(model)
    edit_config(model, **told)
    expected = published_logits(model, "qwen3")
    assert np.abs(expected - others).max() > 10 * TOLERANCE
    np.testing.assert_allclose(logits_of_lists(model), expected, atol=TOLERANCE, rtol=0)


def test_what_all_pairs_of_a_list_begin_with_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = Reranker.load(str(write_qwen(tmp_path / "model")), device="cpu", num_threads=1)
    documents = [words(10, seed=i) for i in range(50)]
    tokens = []
    forward = type(reranker.engine.encoder).forward

    def counted(self: Any, batch: Any) -> torch.Tensor:
        tokens.append(len(batch.input_ids))
        return forward(self, batch)

    monkeypatch.setattr(type(reranker.engine.encoder), "forward", counted)
    reranker.rerank("apple bread", documents)
    prompt = reranker.tokenizer.template.size + 3
    end = len(reranker.tokenizer.template.last)
    assert sum(tokens) < 50 * (10 + end + 2) + len(tokens) * prompt
    assert sum(tokens) < 0.5 * 50 * (prompt + 10)


def test_long_documents_are_chunked_and_long_queries_cut_within_the_prompt(tmp_path: Path) -> None:
    reranker = Reranker.load(str(write_qwen(tmp_path / "model")), device="cpu", max_length=700, overlap_tokens=8)
    size = reranker.tokenizer.template.size
    [prepared] = reranker.preparation.prepare([CandidateList(words(900), [words(900, seed=2)])], reranker.lengths)
    assert prepared.usage.cut_queries == 1
    assert len(prepared.pairs) > 1
    assert {len(pair.input_ids) for pair in prepared.pairs} == {700}
    first = reranker.tokenizer.template
    line_break = reranker.tokenizer.token_ids(["\n"])[0].tolist()
    kept = (700 - size) // 2
    ids = list(prepared.pairs[0].input_ids)
    at = len(first.first) + kept
    assert ids[at - 1 : at + len(first.middle)] == [*line_break, *first.middle]


def test_a_prompt_that_leaves_no_room_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length is 64; the model's prompt alone has \d+ tokens"):
        Reranker.load(str(write_qwen(tmp_path / "model")), device="cpu", max_length=64)


def test_a_model_that_is_too_short_for_its_prompt_is_told_from_a_length_that_is(tmp_path: Path) -> None:
    model = str(write_qwen(tmp_path / "model", max_position_embeddings=64))
    with pytest.raises(ConfigError, match=r"the model reads 64 tokens at most .* its prompt alone has \d+"):
        Reranker.load(model, device="cpu")


def test_an_instruction_is_part_of_the_fingerprint_and_other_models_take_none(
    tmp_path: Path, bert_directory: Path
) -> None:
    model = str(write_qwen(tmp_path / "model"))
    plain, asked = (
        Reranker.load(model, device="cpu", instruction=instruction).fingerprint for instruction in (None, INSTRUCTION)
    )
    assert plain.hash != asked.hash
    assert (plain.layout, asked.instruction) == ("qwen3-reranker", INSTRUCTION)
    assert "instruction" not in plain.as_dict()
    own = "Given a web search query, retrieve relevant passages that answer the query"
    assert Reranker.load(model, device="cpu", instruction=own).fingerprint == plain
    with pytest.raises(ConfigError, match="take no instruction"):
        Reranker.load(str(bert_directory), device="cpu", instruction=INSTRUCTION)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rotary positions are 'yarn'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "known are unscaled ones"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"is_causal": False}, "is_causal is False, and transformers 5 reads in both directions"),
        ({"attention_bias": True}, "attention_bias is true"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"architectures": ["Qwen3ForTokenClassification"]}, "Qwen3ForTokenClassification"),
        ({"num_hidden_layers": 4}, "missing"),
        ({"tie_word_embeddings": False}, "lm_head.weight"),
        ({"vocab_size": 9000}, "the score is that of token 9693, and vocab_size is 9000"),
        ({"architectures": 7}, "architectures is"),
        ({"auto_map": {"AutoConfig": "theirs.Config"}}, "auto_map is"),
        ({"layer_types": "sliding_attention"}, "layer_types is"),
        ({"quantization_config": {"quant_method": "awq"}}, "'awq'.*take the weights before they were quantised"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    model = edit_config(write_qwen(tmp_path / "model"), **changes)
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(model)))


@pytest.mark.parametrize("prompt", [None, INSTRUCTION])
def test_what_sentence_transformers_saves_scores_as_there(prompt: str | None, tmp_path: Path) -> None:
    """Its default prompt is the instruction where none is given."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules.logit_score import LogitScore

    source = write_qwen(tmp_path / "model")
    transformer = Transformer(
        str(source),
        transformer_task="text-generation",
        model_kwargs={"dtype": torch.float32},
        processor_kwargs={"chat_template": QWEN3_TEMPLATE},
    )
    score = LogitScore(true_token_id=9693, false_token_id=2152)
    told = {} if prompt is None else {"prompts": {"query": prompt}, "default_prompt_name": "query"}
    theirs = CrossEncoder(modules=[transformer, score], device="cpu", activation_fn=torch.nn.Identity(), **told)
    theirs.save_pretrained(str(tmp_path / "saved"))
    saved = Reranker.load(str(tmp_path / "saved"), device="cpu", raw_scores=True)
    pairs = [("how long?", "3 days"), ("apple bread", words(30, seed=2)), ("river", "")]
    np.testing.assert_allclose(saved.compute_score(pairs), theirs.predict(pairs), atol=TOLERANCE, rtol=0)
    own = Reranker.load(str(tmp_path / "saved"), device="cpu", raw_scores=True, instruction=prompt)
    assert own.fingerprint == saved.fingerprint


def test_a_classifier_that_is_given_pairs_without_a_prompt_is_refused(tmp_path: Path) -> None:
    """sentence-transformers says so of one that it saved; a prompt of its own before each pair is not ours either."""
    from sentence_transformers import CrossEncoder

    write_qwen(tmp_path / "model")
    write_plain(find_model(str(tmp_path / "model")), tmp_path / "classifier", torch.float32)
    CrossEncoder(str(tmp_path / "classifier"), device="cpu").save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ModelRefusedError, match=r"as modules\.json says.*as they are.*If it was trained .* delete mod"):
        spec_of(find_model(str(tmp_path / "saved")))
    (tmp_path / "saved" / "modules.json").unlink()
    shutil.copy(tmp_path / "model" / "tokenizer.json", tmp_path / "saved")  # our small one does not survive saving
    np.testing.assert_allclose(
        logits_of_lists(tmp_path / "saved"), logits_of_lists(tmp_path / "model"), atol=TOLERANCE, rtol=0
    )
    prompt = {"prompts": {"query": INSTRUCTION}, "default_prompt_name": "query"}
    edit_config(tmp_path / "saved", "config_sentence_transformers.json", **prompt)
    with pytest.raises(ModelRefusedError, match="before each pair"):
        spec_of(find_model(str(tmp_path / "saved")))


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ query }} and {{ document }}",
        QWEN3_SYSTEM + "<Query>: {{ query }} <Document>: {{ document }}",
        QWEN3_TEMPLATE.replace("\n<Query>", "\n\n<Query>"),
        QWEN3_TEMPLATE.replace("<think>\n\n</think>\n\n", ""),
        QWEN3_TEMPLATE.replace("Given a web search query", "Given a question"),
        QWEN3_TEMPLATE + "{% if",
        QWEN3_TEMPLATE.replace("{{ text }}", "{{ text | trim }}"),
        QWEN3_TEMPLATE.replace("{{ text }}", "{{ query }}").replace("<Query>: {{ query }}", "<Query>: {{ text }}"),
        QWEN3_TEMPLATE.replace('"eq", "system"', '"eq", "task"'),
        QWEN3_TEMPLATE.replace('"eq", "query"', '"ne", "query"'),
        "{% for message in messages %}{{ message.content }}{% endfor %}",
    ],
)
def test_chains_with_another_prompt_are_refused(template: str | None, tmp_path: Path) -> None:
    model = as_logit_score(write_qwen(tmp_path / "model"), tmp_path / "chain", 9693, 2152)
    assert spec_of(find_model(str(model))).layout == "qwen3-reranker"
    (model / "chat_template.jinja").unlink()
    if template is not None:
        named = [{"name": "tool", "template": QWEN3_TEMPLATE}, {"name": "default", "template": template}]
        (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    with pytest.raises(ModelRefusedError, match="chat template"):
        spec_of(find_model(str(model)))


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("sentence_bert_config.json", {"modality_config": {"text": {}}}, "modality_config is"),
        ("sentence_bert_config.json", {"processing_kwargs": {"chat_template": {"chat_template": "x"}}}, "is 'x'"),
        ("sentence_bert_config.json", {"processing_kwargs": [1]}, "processing_kwargs is"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q", "prompts": {}}, "no text for it"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "q", "prompts": {"q": "\ud800"}},
            "config_sentence_transformers.json: the prompt of default_prompt_name cannot be used: .* lone surrogate",
        ),
    ],
)
def test_modules_that_would_ask_otherwise_are_refused(
    name: str, changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    model = as_logit_score(write_qwen(tmp_path / "model"), tmp_path / "chain", 9693, 2152)
    (model / "config_sentence_transformers.json").write_text("{}")
    edit_config(model, name, **changes)
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(model)))


def test_chat_templates_are_read_in_the_forms_in_which_they_are_published() -> None:
    asked = '{% set task = messages | selectattr("role", "==", "system") | map(attribute="content") | first %}'
    found = chat_template.read_chat_template(asked + "{% if task %}<{{ task }}>\n{% endif %}\nq: {{ task }}")
    assert found.words == f"<{chat_template.INSTRUCTION}>\nq: {chat_template.INSTRUCTION}"
    assert found.words_without_instruction == f"q: {chat_template.INSTRUCTION}"
    assert found.default_instruction is None
    assert chat_template.read_chat_template(QWEN3_TEMPLATE).default_instruction == QWEN3.instruction


def test_without_a_chat_template_what_to_do_is_said(tmp_path: Path) -> None:
    """sentence-transformers writes other settings then, which are not what is wrong."""
    from sentence_transformers import CrossEncoder

    source = write_qwen(tmp_path / "model")
    CrossEncoder(str(source), device="cpu").save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ModelRefusedError, match=r"there is no chat template.* delete modules\.json"):
        spec_of(find_model(str(tmp_path / "saved")))
    (tmp_path / "saved" / "modules.json").unlink()
    assert spec_of(find_model(str(tmp_path / "saved"))).own_instruction == QWEN3.instruction


def test_chains_with_more_modules_are_refused(tmp_path: Path) -> None:
    other = as_logit_score(write_qwen(tmp_path / "model"), tmp_path / "other", 9693, 2152)
    write_module(other, 2, "sentence_transformer.modules.Dense", {}, {})
    with pytest.raises(ModelRefusedError, match="has Dense behind a LogitScore"):
        spec_of(find_model(str(other)))


def test_one_token_alone_may_be_the_score(tmp_path: Path) -> None:
    source = write_qwen(tmp_path / "model")
    yes = logits_of_lists(as_logit_score(source, tmp_path / "yes", 9693, None))
    no = logits_of_lists(as_logit_score(source, tmp_path / "no", 2152, None))
    np.testing.assert_allclose(yes - no, logits_of_lists(source), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("instruction", "told"),
    [
        ("\ud800", "lone surrogate"),
        ("a " * 10_000, "instruction has 20,000 characters"),
        (words(900), "give at least"),
        ("", "nothing but white space; leave it out"),  # the publisher of mxbai-rerank-v2 has none then
        (" \n", "nothing but white space; leave it out"),
    ],
)
def test_an_instruction_that_cannot_be_asked_is_a_usage_error(instruction: str, told: str, tmp_path: Path) -> None:
    model = str(write_qwen(tmp_path / "model"))
    with pytest.raises(ConfigError, match=told):
        Reranker.load(model, device="cpu", instruction=instruction)
    with pytest.raises(ConfigError, match=told):
        Reranker.load(model, device="cpu").rerank("query", ["passage"], instruction=instruction)
    with pytest.raises(ConfigError, match=told):
        with_resolved_model(RerankSettings("in", "out", RerankerConfig(model, instruction=instruction)))


def test_a_module_without_its_tokens_is_refused(tmp_path: Path) -> None:
    model = as_logit_score(write_qwen(tmp_path / "model"), tmp_path / "chain", 9693, 2152)
    (model / "1_LogitScore" / "config.json").write_text("{}")
    with pytest.raises(ModelRefusedError, match=r"lacks 'true_token_id' in its config\.json"):
        spec_of(find_model(str(model)))


def test_one_token_that_says_both_yes_and_no_is_refused(tmp_path: Path) -> None:
    model = as_logit_score(write_qwen(tmp_path / "model"), tmp_path / "chain", 5, 5)
    with pytest.raises(ModelRefusedError, match="true_token_id and false_token_id are both 5"):
        spec_of(find_model(str(model)))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, bert_directory: Path) -> None:
    model = write_qwen(tmp_path / "model")
    (model / "tokenizer.json").write_bytes((bert_directory / "tokenizer.json").read_bytes())
    with pytest.raises(ModelRefusedError, match=r"tokenizer.json gives 'yes' the id None"):
        Reranker.load(str(model), device="cpu")
