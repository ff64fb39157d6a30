"""Cross-encoders with seeded weights in the sizes of published ones: what a pass costs does not depend on the weights.

They have the embedded model's tokenizer, and so a smaller vocabulary than multilingual models, which costs no pass
anything: a token's embedding is looked up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from torch import nn

from pipelines.encoder import EncoderShape, PackedEncoder
from pipelines.families import recognise
from pipelines.families.bert import NAMES as BERT
from pipelines.families.chain import chain_of
from pipelines.families.checkpoint import to_checkpoint
from pipelines.families.deberta import BUCKETS, DebertaSpec
from pipelines.families.deberta import LAYOUT as DEBERTA
from pipelines.families.gemma import BGE
from pipelines.families.language_model import LanguageModelSpec
from pipelines.families.modernbert import MODERNBERT, ModernBertSpec
from pipelines.families.prompt import Prompt
from pipelines.families.qwen import QWEN3
from pipelines.model_files import ModelFiles
from pipelines.model_sources import find_model

TOKENIZER = "tokenizer_config.json"
PADDING = "<|endoftext|>"
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What is a word to the tokenizers of Qwen2 and Qwen3."""
HEAD_GAIN = 8
"""With it scores spread as a real model's do."""


class Size(NamedTuple):
    """The size of a model."""

    layers: int
    width: int
    heads: int
    inner: int | None = None
    """Width of the feed-forward layers; None is four times the width."""


def write_random_model(directory: Path, size: Size, longest: int | None = None) -> str:
    """A BERT cross-encoder whose weights tell pairs apart, and that reads `longest` tokens; returns the directory."""
    embedded = find_model("embedded")
    config = embedded.config() | {
        "num_hidden_layers": size.layers,
        "hidden_size": size.width,
        "num_attention_heads": size.heads,
        "intermediate_size": size.inner or 4 * size.width,
    }
    if longest is not None:
        config |= {"max_position_embeddings": longest}
    names = ("vocab_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_act")
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    torch.manual_seed(0)  # before biases are drawn
    encoder = PackedEncoder(EncoderShape(**{name: config[name] for name in (*names, *sizes)}))
    encoder.requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=size.width**-0.5)
    encoder.head_out.weight.mul_(HEAD_GAIN)
    tensors = to_checkpoint(encoder.half().state_dict(), BERT, size.layers)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config))
    for path in embedded.directory.glob("*token*"):
        (directory / path.name).write_bytes(path.read_bytes())
    limits = json.loads((directory / TOKENIZER).read_text()) | {"model_max_length": config["max_position_embeddings"]}
    (directory / TOKENIZER).write_text(json.dumps(limits))
    return str(directory)


def write_random_modernbert(directory: Path, size: Size, chained: bool = False) -> str:
    """A ModernBERT reranker, or one with its head in modules of sentence-transformers, as ettin's; its directory."""
    embedded = find_model("embedded")
    config = {
        "architectures": ["ModernBertModel" if chained else "ModernBertForSequenceClassification"],
        "model_type": MODERNBERT.layout,
        "num_hidden_layers": size.layers,
        "hidden_size": size.width,
        "num_attention_heads": size.heads,
        "intermediate_size": size.inner or 4 * size.width,
        "vocab_size": embedded.config()["vocab_size"],
        "max_position_embeddings": 8192,
        "id2label": {"0": "LABEL_0"},
        "classifier_pooling": "cls" if chained else "mean",
        **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
    }
    (directory / "config.json").write_text(json.dumps(config))
    for path in embedded.directory.glob("*token*"):
        (directory / path.name).write_bytes(path.read_bytes())
    limits = {"model_max_length": 8192, "model_input_names": ["input_ids", "attention_mask"]}
    limits |= {
        key: value for key, value in json.loads((directory / TOKENIZER).read_text()).items() if key not in limits
    }
    (directory / TOKENIZER).write_text(json.dumps(limits))
    if chained:
        write_modules(directory, size.width)
    files = ModelFiles("", directory)
    spec = recognise(config, (), chain_of(files))
    assert isinstance(spec, ModernBertSpec)
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in spec.shapes().items():
        is_norm = "norm" in name.rpartition(".")[0].lower()
        drawn = torch.randn(shape, generator=generator) * size.width**-0.5
        tensors[name] = (torch.ones(shape) if is_norm and name.endswith(".weight") else drawn).half()
    for folder in {name.rpartition("/")[0] for name in tensors}:
        inside = {name.rpartition("/")[2]: one for name, one in tensors.items() if name.rpartition("/")[0] == folder}
        save_file(inside, directory / folder / "model.safetensors", metadata={"format": "pt"})
    return str(directory)


def write_random_deberta(directory: Path, size: Size) -> str:
    """A DeBERTa-v2 reranker of 512 tokens, as mxbai-rerank-v1; its directory."""
    embedded = find_model("embedded")
    config = {
        "architectures": ["DebertaV2ForSequenceClassification"],
        "model_type": DEBERTA,
        "num_hidden_layers": size.layers,
        "hidden_size": size.width,
        "num_attention_heads": size.heads,
        "intermediate_size": size.inner or 4 * size.width,
        "vocab_size": embedded.config()["vocab_size"],
        "max_position_embeddings": 512,
        "id2label": {"0": "LABEL_0"},
        "norm_rel_ebd": "layer_norm",
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": BUCKETS,
        "relative_attention": True,
        "share_att_key": True,
    }
    (directory / "config.json").write_text(json.dumps(config))
    for path in embedded.directory.glob("*token*"):
        (directory / path.name).write_bytes(path.read_bytes())
    spec = recognise(config, ())
    assert isinstance(spec, DebertaSpec)
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in spec.shapes().items():
        drawn = torch.randn(shape, generator=generator) * size.width**-0.5
        tensors[name] = (torch.ones(shape) if name.endswith("LayerNorm.weight") else drawn).half()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return str(directory)


def write_modules(directory: Path, width: int) -> None:
    """The configs of the modules behind an ettin reranker, without their tensors."""
    gelu, identity = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"
    dense = {"in_features": width, "out_features": width, "bias": False, "activation_function": gelu}
    score = {"out_features": 1, "bias": True, "activation_function": identity, "module_output_name": "scores"}
    pooling = {"embedding_dimension": width, "pooling_mode": "cls"}
    configs = [("Pooling", pooling), ("Dense", dense), ("LayerNorm", {"dimension": width}), ("Dense", dense | score)]
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for i, (kind, config) in enumerate(configs, start=1):
        folder = f"{i}_{kind}"
        listed.append({"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{kind}"})
        (directory / folder).mkdir()
        (directory / folder / "config.json").write_text(json.dumps(config))
    (directory / "modules.json").write_text(json.dumps(listed))
    (directory / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"}))


def write_random_qwen(directory: Path, layers: int = 28, width: int = 1024) -> str:
    """A Qwen3 sequence classifier of the size of Qwen3-Reranker-0.6B, but for the vocabulary; its directory."""
    config = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "model_type": "qwen3",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": width // 8,
        "intermediate_size": 3 * width,
        "max_position_embeddings": 40_960,
        "rope_theta": 1_000_000,
    }
    return write_random_language_model(directory, config, QWEN3)


def write_random_gemma(directory: Path, layers: int = 18, width: int = 2048) -> str:
    """A Gemma sequence classifier of the size of bge-reranker-v2-gemma, but for the vocabulary; its directory."""
    config = {
        "architectures": ["GemmaForSequenceClassification"],
        "model_type": "gemma",
        "hidden_act": "gelu_pytorch_tanh",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": width // 8,
        "intermediate_size": 8 * width,
        "max_position_embeddings": 8192,
        "rope_theta": 10_000,
    }
    return write_random_language_model(directory, config, BGE)


def write_random_language_model(directory: Path, config: dict[str, Any], prompt: Prompt) -> str:
    """The sequence classifier that a config.json describes, but for its vocabulary; its directory."""
    tokenizer = chat_tokenizer(prompt)
    config |= {
        "vocab_size": max(tokenizer.get_vocab().values()) + 1,
        "rms_norm_eps": 1e-6,
        "id2label": {"0": "LABEL_0"},
        "pad_token_id": tokenizer.token_to_id(PADDING),
    }
    (directory / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(directory / "tokenizer.json"))
    limit = config["max_position_embeddings"]
    settings = {"model_max_length": limit, "pad_token": PADDING, "tokenizer_class": "PreTrainedTokenizerFast"}
    (directory / TOKENIZER).write_text(json.dumps(settings))
    spec = recognise(config, ())
    assert isinstance(spec, LanguageModelSpec)
    generator = torch.Generator().manual_seed(0)
    width = config["hidden_size"]
    tensors = {
        name: (torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * width**-0.5).half()
        for name, shape in spec.shapes().items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return str(directory)


def chat_tokenizer(prompt: Prompt) -> Tokenizer:
    """Bytes, and the words of the embedded model's vocabulary and of a prompt, cut by Qwen's rule."""
    cut = Sequence([Split(Regex(QWEN_WORDS), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    vocabulary = find_model("embedded").tokenizer().get_vocab()
    words = sorted(token for token in vocabulary if token.isascii() and token.isalpha())
    pieces = [*sorted(ByteLevel.alphabet()), *words, *(f"\u0120{word}" for word in words)]
    pieces += [piece for piece, _ in cut.pre_tokenize_str("".join(words_around("", prompt, "")))]
    pieces = [*dict.fromkeys(pieces), PADDING, *prompt.marks]
    tokenizer = Tokenizer(BPE({piece: i for i, piece in enumerate(pieces)}, [], ignore_merges=True))
    tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = cut
    tokenizer.add_special_tokens([PADDING, *prompt.marks])
    return tokenizer


def words_around(query: str, prompt: Prompt, passage: str) -> tuple[str, str]:
    """A pair with the words of a prompt around it, as two texts: up to the query's end, and from there on."""
    before, after = prompt.query
    first, last = (
        "".join(words).replace("{instruction}", prompt.instruction or "") for words in (prompt.first, prompt.last)
    )
    return f"{first}{before}{query}{after}", f"{''.join(prompt.middle)}{prompt.passage}{passage}{last}"
