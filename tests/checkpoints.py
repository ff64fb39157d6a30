"""Tiny random checkpoints in the layouts that models are published in: real files, real tokenizers, fixed seeds.

Tensor names are written out here and not taken from `pipelines`, so that a test can fail. The weights are drawn wide
enough for the logits of different pairs to differ by about 1; with the usual 0.02 all pairs score alike.
Lengths are those of the published models, whose position tables are small at this width.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import NFC, NFKC, BertNormalizer, Replace, Strip
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace, Sequence, Split
from tokenizers.processors import RobertaProcessing, TemplateProcessing

Tensors = dict[str, torch.Tensor]

WIDTH = 32
FEED_FORWARD = 64
HEADS = 4
BERT_LENGTH = 512
XLM_ROBERTA_LENGTH = 512
JINA_V1_LENGTH = 8192
JINA_V1_WIDTH = 48
JINA_V2_LENGTH = 1024
MODERNBERT_LENGTH = 8192
ETTIN_LENGTH = 7999
DEBERTA_LENGTH = 512
QWEN_LENGTH = 40960
GEMMA_LENGTH = 8192
PACKAGE = "sentence_transformers"
POOLED = {"embedding_dimension": WIDTH, "pooling_mode": "cls", "include_prompt": True}
CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MODERNBERT_WINDOW = 16
"""Published ones have 128."""

WORDS = (
    *("alpine", "apple", "bread", "bridge", "candle", "carbon", "cloud", "copper", "desert", "distance", "engine"),
    *("falcon", "forest", "garden", "glacier", "harbor", "island", "kernel", "ladder", "lemon", "marble", "meadow"),
    *("mirror", "ocean", "orchard", "paper", "pepper", "planet", "quartz", "rabbit", "river", "saddle", "salmon"),
    *("shadow", "silver", "summer", "table", "thunder", "travel", "tunnel", "valley", "velvet", "violin", "walnut"),
    *("weather", "window", "winter", "zebra"),
)
"""One token each in all tokenizers."""
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()[]{}<>/\\-_=+*&%$#@|~^`äöüßéñ"
"""What the first two tokenizers can spell; anything else is an unknown token."""


def write_bert(directory: Path, seed: int = 3, **changes: Any) -> Path:
    """A cross-encoder as cross-encoder/ms-marco-MiniLM-L6-v2 is published; returns `directory`."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": FEED_FORWARD, "num_attention_heads": HEADS} | changes
    tokenizer = wordpiece_tokenizer()
    config = {
        "architectures": ["BertForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": BERT_LENGTH,
        "model_type": "bert",
        "num_hidden_layers": 3,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
        "type_vocab_size": 2,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    tensors = standard_tensors("bert", config | sizes, seed)
    tensors["bert.embeddings.position_ids"] = torch.arange(BERT_LENGTH)[None]  # a buffer that the published file has
    return write_model(directory, config | sizes, tensors, tokenizer, bert_tokenizer_config("BertTokenizer"))


def write_xlm_roberta(directory: Path, seed: int = 2) -> Path:
    """A reranker as BAAI/bge-reranker-base is published; returns `directory`."""
    tokenizer = unigram_tokenizer()
    config = xlm_roberta_config(tokenizer) | {
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "label2id": {"LABEL_0": 0},
        "max_position_embeddings": XLM_ROBERTA_LENGTH + 2,
        "model_type": "xlm-roberta",
    }
    tensors = standard_tensors("roberta", config, seed)
    return write_model(directory, config, tensors, tokenizer, xlm_roberta_tokenizer_config(XLM_ROBERTA_LENGTH))


def write_mmarco(directory: Path, seed: int = 5) -> Path:
    """A reranker as cross-encoder/mmarco-mMiniLMv2-L12-H384-v1 is published; returns `directory`."""
    tokenizer = unigram_tokenizer()
    config = xlm_roberta_config(tokenizer) | {
        "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": None,
        "gradient_checkpointing": False,
        "hidden_dropout_prob": 0.1,
        "label2id": {"LABEL_0": 0},
        "max_position_embeddings": XLM_ROBERTA_LENGTH + 2,
        "model_type": "xlm-roberta",
        "num_hidden_layers": 4,
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0.dev0"},
        "torch_dtype": "float32",
        "use_cache": True,
    }
    del config["output_past"]
    tensors = standard_tensors("roberta", config, seed)
    tensors["roberta.embeddings.position_ids"] = torch.arange(XLM_ROBERTA_LENGTH + 2)[None]  # as saved in 2022
    return write_model(directory, config, tensors, tokenizer, xlm_roberta_tokenizer_config(XLM_ROBERTA_LENGTH))


def write_roberta(directory: Path, model_type: str = "roberta", seed: int = 29, **changes: Any) -> Path:
    """A cross-encoder of RoBERTa or of its French neighbour, as sentence-transformers published them for years."""
    is_french = model_type == "camembert"
    tokenizer = camembert_tokenizer() if is_french else roberta_tokenizer()
    config = xlm_roberta_config(tokenizer) | {
        "architectures": ["CamembertForSequenceClassification" if is_french else "RobertaForSequenceClassification"],
        "gradient_checkpointing": False,
        "max_position_embeddings": XLM_ROBERTA_LENGTH + 2,
        "model_type": model_type,
        **({"bos_token_id": 5, "eos_token_id": 6} if is_french else {}),
        **changes,
    }
    tensors = standard_tensors("roberta", config, seed)
    tensors["roberta.embeddings.position_ids"] = torch.arange(XLM_ROBERTA_LENGTH + 2)[None]
    settings = xlm_roberta_tokenizer_config(XLM_ROBERTA_LENGTH)
    settings["tokenizer_class"] = "CamembertTokenizer" if is_french else "RobertaTokenizer"
    return write_model(directory, config, tensors, tokenizer, settings)


def write_camembert(directory: Path) -> Path:
    """A reranker as antoinelouis/crossencoder-camembert-base-mmarcoFR is published; returns `directory`."""
    return write_roberta(directory, "camembert")


def write_electra(directory: Path, seed: int = 31, **changes: Any) -> Path:
    """A cross-encoder as cross-encoder/ms-marco-electra-base is published, with `changes` of its config."""
    tokenizer = wordpiece_tokenizer()
    config = {
        "architectures": ["ElectraForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1,
        "embedding_size": WIDTH,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": WIDTH,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": BERT_LENGTH,
        "model_type": "electra",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 3,
        "pad_token_id": 0,
        "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
        "summary_activation": "gelu",
        "summary_last_dropout": 0.1,
        "summary_type": "first",
        "summary_use_proj": True,
        "type_vocab_size": 2,
        "vocab_size": tokenizer.get_vocab_size(),
        **changes,
    }
    tensors = standard_tensors("electra", config, seed)
    tensors["electra.embeddings.position_ids"] = torch.arange(BERT_LENGTH)[None]
    return write_model(directory, config, tensors, tokenizer, bert_tokenizer_config("ElectraTokenizer"))


def write_jina_v2(directory: Path, seed: int = 4) -> Path:
    """A reranker in the layout of jinaai/jina-reranker-v2-base-multilingual; returns `directory`.

    bfloat16, fused `Wqkv`, no `model_type` in config.json, and an `auto_map` to code that nobody must run.
    """
    tokenizer = unigram_tokenizer()
    code = "configuration_xlm_roberta.XLMRobertaFlashConfig"
    config = xlm_roberta_config(tokenizer) | {
        "attention_dropout": 0.1,
        "auto_map": {
            "AutoConfig": code,
            "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
            "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
        },
        "classifier_dropout": None,
        "emb_pooler": None,
        "hidden_dropout": 0.1,
        "max_position_embeddings": JINA_V2_LENGTH + 2,
        "num_labels": 1,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "use_flash_attn": True,
    }
    tensors = {name: tensor.bfloat16() for name, tensor in flash_tensors(config, seed).items()}
    return write_model(directory, config, tensors, tokenizer, xlm_roberta_tokenizer_config(JINA_V2_LENGTH))


def write_modernbert(directory: Path, seed: int = 6, **changes: Any) -> Path:
    """A reranker as Alibaba-NLP/gte-reranker-modernbert-base is published, float16, with `changes` of its config.

    With `classifier_pooling` "cls" and `global_rope_theta` 80000 it is one as ibm-granite's. Returns `directory`.
    """
    tokenizer = byte_tokenizer()
    config = modernbert_config(tokenizer) | changes
    tensors = modernbert_tensors(config, seed, "model.")
    draw, width = WeightDraw(seed + 1), config["hidden_size"]
    tensors |= without_bias(draw.linear("head.dense", width, width)) | without_bias(draw.norm("head.norm", width))
    tensors |= draw.linear("classifier", 1, width, gain=4)
    tensors = {name: tensor.half() for name, tensor in tensors.items()}
    return write_model(directory, config, tensors, tokenizer, modernbert_tokenizer_config())


def write_ettin(directory: Path, seed: int = 8, **changes: Any) -> Path:
    """A reranker as cross-encoder/ettin-reranker-17m-v1 is published, bfloat16, with `changes` of its config.

    A ModernBERT without a head, and behind it sentence-transformers' modules in folders of their own. Returns
    `directory`.
    """
    tokenizer = byte_tokenizer()
    config = modernbert_config(tokenizer) | {"architectures": ["ModernBertModel"], "torch_dtype": "bfloat16"}
    config |= {"local_rope_theta": 160000.0, "max_position_embeddings": ETTIN_LENGTH, **changes}
    config["position_embedding_type"] = "sans_pos"
    del config["id2label"], config["label2id"]
    tensors = {name: tensor.bfloat16() for name, tensor in modernbert_tensors(config, seed, "").items()}
    write_model(directory, config, tensors, tokenizer, modernbert_tokenizer_config())
    draw = WeightDraw(seed + 1)
    dense = without_bias(draw.linear("linear", WIDTH, WIDTH))
    norm, out = draw.norm("norm", WIDTH), draw.linear("linear", 1, WIDTH, gain=4)
    vector = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    gelu, identity = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"
    sizes = {"in_features": WIDTH, "out_features": WIDTH, "bias": False, "activation_function": gelu}
    scores = {"out_features": 1, "bias": True, "activation_function": identity, "module_output_name": "scores"}
    write_module(directory, 1, "sentence_transformer.modules.pooling.Pooling", POOLED, {})
    write_module(directory, 2, "base.modules.dense.Dense", sizes | vector, dense)
    write_module(directory, 3, "sentence_transformer.modules.layer_norm.LayerNorm", {"dimension": WIDTH}, norm)
    write_module(directory, 4, "base.modules.dense.Dense", sizes | vector | scores, out)
    modality = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    transformer = {"transformer_task": "feature-extraction", "modality_config": modality}
    transformer["module_output_name"] = "token_embeddings"
    (directory / "sentence_bert_config.json").write_text(json.dumps(transformer))
    prompts = {"activation_fn": identity, "default_prompt_name": None, "model_type": "CrossEncoder", "prompts": {}}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return directory


def write_module(directory: Path, number: int, kind: str, config: Mapping[str, Any], tensors: Tensors) -> None:
    """A module of sentence-transformers in its folder, and its entry in modules.json, which begins with the first."""
    listed = directory / "modules.json"
    transformer = {"idx": 0, "name": "0", "path": "", "type": f"{PACKAGE}.base.modules.transformer.Transformer"}
    modules = json.loads(listed.read_text()) if number > 1 else [transformer]
    folder = f"{number}_{kind.rpartition('.')[2]}"
    listed.write_text(
        json.dumps([*modules, {"idx": number, "name": str(number), "path": folder, "type": f"{PACKAGE}.{kind}"}])
    )
    (directory / folder).mkdir()
    (directory / folder / "config.json").write_text(json.dumps(config))
    if tensors:
        contents = {name: tensor.bfloat16() for name, tensor in tensors.items()}
        save_file(contents, directory / folder / "model.safetensors", metadata={"format": "pt"})


def shard_weights(directory: Path) -> Path:
    """Splits model.safetensors into two shards and their index, as large models are published; returns `directory`."""
    tensors = read_weights(directory)
    (directory / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, directory / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, shard)
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def copy_model(source: Path, target: Path) -> Path:
    """A copy that a test may damage; returns `target`."""
    shutil.copytree(source, target)
    return target


def edit_config(directory: Path, file: str = "config.json", /, **changes: Any) -> Path:
    """Sets keys of config.json or another file, or removes those that are None; returns `directory`."""
    path = directory / file
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return directory


def read_weights(directory: Path) -> Tensors:
    """The tensors of an unsharded model."""
    return load_file(directory / "model.safetensors")


def write_weights(directory: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """Replaces the tensors of an unsharded model; returns `directory`."""
    save_file(dict(tensors), directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def write_model(
    directory: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    tokenizer: Tokenizer,
    tokenizer_config: Mapping[str, Any],
) -> Path:
    """The four files of a model; returns `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2))
    tokenizer.save(str(directory / "tokenizer.json"))
    return write_weights(directory, tensors)


def xlm_roberta_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """What the configs of both XLM-RoBERTa layouts share."""
    return {
        "architectures": ["XLMRobertaForSequenceClassification"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "layer_norm_eps": 1e-5,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "output_past": True,
        "pad_token_id": 1,
        "position_embedding_type": "absolute",
        "type_vocab_size": 1,
        "vocab_size": tokenizer.get_vocab_size(),
    }


def bert_tokenizer_config(tokenizer_class: str) -> dict[str, Any]:
    """tokenizer_config.json of a BERT and an ELECTRA."""
    return {
        "cls_token": "[CLS]",
        "do_lower_case": True,
        "mask_token": "[MASK]",
        "model_max_length": BERT_LENGTH,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "tokenizer_class": tokenizer_class,
        "unk_token": "[UNK]",
    }


def xlm_roberta_tokenizer_config(model_max_length: int) -> dict[str, Any]:
    """tokenizer_config.json of both XLM-RoBERTa layouts."""
    return {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "mask_token": "<mask>",
        "model_max_length": model_max_length,
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "tokenizer_class": "XLMRobertaTokenizer",
        "unk_token": "<unk>",
    }


def modernbert_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json as transformers 4 writes it for a ModernBERT."""
    ids = {name: tokenizer.token_to_id(f"[{name.upper()}]") for name in ("cls", "sep", "pad")}
    return {
        "architectures": ["ModernBertForSequenceClassification"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["cls"],
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "classifier_dropout": 0.0,
        "classifier_pooling": "mean",
        "cls_token_id": ids["cls"],
        "decoder_bias": True,
        "deterministic_flash_attn": False,
        "embedding_dropout": 0.0,
        "eos_token_id": ids["sep"],
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "gradient_checkpointing": False,
        "hidden_activation": "gelu",
        "hidden_size": WIDTH,
        "id2label": {"0": "LABEL_0"},
        "initializer_cutoff_factor": 2.0,
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-05,
        "local_attention": MODERNBERT_WINDOW,
        "local_rope_theta": 10000.0,
        "max_position_embeddings": MODERNBERT_LENGTH,
        "mlp_bias": False,
        "mlp_dropout": 0.0,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-05,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 4,
        "pad_token_id": ids["pad"],
        "position_embedding_type": "absolute",
        "sep_token_id": ids["sep"],
        "sparse_pred_ignore_index": -100,
        "sparse_prediction": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "vocab_size": tokenizer.get_vocab_size() + 7,  # a round number, as published
    }


def modernbert_tokenizer_config() -> dict[str, Any]:
    """tokenizer_config.json of a ModernBERT."""
    return {
        "clean_up_tokenization_spaces": True,
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": MODERNBERT_LENGTH,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "[UNK]",
    }


def words(count: int, seed: int = 0) -> str:
    """A text of exactly `count` tokens."""
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def wordpiece_tokenizer() -> Tokenizer:
    """BERT's: lower case, `[CLS] q [SEP] d [SEP]`, segments 0 and 1."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({character.lower() for character in CHARACTERS})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *WORDS]
    tokenizer = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def unigram_tokenizer(special: SequenceOf[str] = ("<s>", "<pad>", "</s>", "<unk>")) -> Tokenizer:
    """XLM-RoBERTa's: SentencePiece pieces, `<s> q </s></s> d </s>`, the `special` tokens first and <mask> last."""
    letters = [(letter, -8.0 - i / 100) for i, letter in enumerate(("▁", *CHARACTERS))]
    words = [(f"▁{word}", -3.0 - i / 100) for i, word in enumerate(WORDS)]
    pieces = [*((token, 0.0) for token in special), *words, *letters, ("<mask>", 0.0)]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = Normalizers([NFKC(), Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = Metaspace(replacement="▁", prepend_scheme="always")
    ids = [(token, special.index(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    tokenizer.add_special_tokens([*special, "<mask>"])
    return tokenizer


def camembert_tokenizer() -> Tokenizer:
    """CamemBERT's: as XLM-RoBERTa's, with names that are not used before <s>=5 and </s>=6."""
    return unigram_tokenizer(["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"])


def byte_tokenizer() -> Tokenizer:
    """ModernBERT's: bytes and words, `[CLS] q [SEP] d [SEP]`, one segment, special tokens last."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    pieces = [*sorted(ByteLevel.alphabet()), *WORDS, *(f"Ġ{word}" for word in WORDS)]
    # Words come as wholes without merges, whose order would have to be trained.
    tokenizer = Tokenizer(BPE({piece: i for i, piece in enumerate(pieces)}, [], ignore_merges=True))
    tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    return tokenizer


def modernbert_tensors(config: Mapping[str, Any], seed: int, prefix: str) -> Tensors:
    """What transformers' ModernBertModel saves, without biases, and with no norm before the first attention."""
    draw = WeightDraw(seed)
    width, wide = config["hidden_size"], config["intermediate_size"]
    tensors = {"embeddings.tok_embeddings.weight": draw.normal(config["vocab_size"], width, std=0.02)}
    tensors |= draw.norm("embeddings.norm", width)
    for i in range(config["num_hidden_layers"]):
        layer = f"layers.{i}"
        if i:
            tensors |= draw.norm(f"{layer}.attn_norm", width)
        tensors |= draw.linear(f"{layer}.attn.Wqkv", 3 * width, width)
        tensors |= draw.linear(f"{layer}.attn.Wo", width, width)
        tensors |= draw.norm(f"{layer}.mlp_norm", width)
        tensors |= draw.linear(f"{layer}.mlp.Wi", 2 * wide, width)
        tensors |= draw.linear(f"{layer}.mlp.Wo", width, wide)
    tensors |= draw.norm("final_norm", width)
    return {f"{prefix}{name}": tensor for name, tensor in without_bias(tensors).items()}


def without_bias(tensors: Tensors) -> Tensors:
    """The tensors but for the biases."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias")}


def standard_tensors(prefix: str, config: Mapping[str, Any], seed: int) -> Tensors:
    """What BertForSequenceClassification, or that of RoBERTa or ELECTRA, saves in transformers."""
    draw = WeightDraw(seed)
    width, wide = config["hidden_size"], config["intermediate_size"]
    tensors = draw.embeddings(f"{prefix}.embeddings", config)
    tensors |= draw.norm(f"{prefix}.embeddings.LayerNorm", width)
    for i in range(config["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            tensors |= draw.linear(f"{layer}.attention.self.{part}", width, width)
        tensors |= draw.linear(f"{layer}.attention.output.dense", width, width)
        tensors |= draw.norm(f"{layer}.attention.output.LayerNorm", width)
        tensors |= draw.linear(f"{layer}.intermediate.dense", wide, width)
        tensors |= draw.linear(f"{layer}.output.dense", width, wide)
        tensors |= draw.norm(f"{layer}.output.LayerNorm", width)
    dense, out = ("bert.pooler.dense", "classifier")
    if prefix != "bert":
        dense, out = ("classifier.dense", "classifier.out_proj")
    return tensors | draw.linear(dense, width, width) | draw.linear(out, 1, width, gain=4)


def flash_tensors(config: Mapping[str, Any], seed: int) -> Tensors:
    """The tensor names of jina-reranker-v2, which are those of flash-attention's models/bert.py."""
    draw = WeightDraw(seed)
    width, wide = config["hidden_size"], config["intermediate_size"]
    tensors = draw.embeddings("roberta.embeddings", config) | draw.norm("roberta.emb_ln", width)
    for i in range(config["num_hidden_layers"]):
        layer = f"roberta.encoder.layers.{i}"
        tensors |= draw.linear(f"{layer}.mixer.Wqkv", 3 * width, width)
        tensors |= draw.linear(f"{layer}.mixer.out_proj", width, width)
        tensors |= draw.norm(f"{layer}.norm1", width)
        tensors |= draw.linear(f"{layer}.mlp.fc1", wide, width)
        tensors |= draw.linear(f"{layer}.mlp.fc2", width, wide)
        tensors |= draw.norm(f"{layer}.norm2", width)
    tensors |= draw.linear("classifier.dense", width, width)
    return tensors | draw.linear("classifier.out_proj", 1, width, gain=4)


class WeightDraw:
    """Random tensors of a fixed seed, under checkpoint names."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *size: int, std: float) -> torch.Tensor:
        return torch.randn(size, generator=self.generator) * std

    def linear(self, name: str, rows: int, columns: int, gain: float = 1.5) -> Tensors:
        """Weight and bias; a gain above 1 makes attention sharp and logits spread."""
        weight = self.normal(rows, columns, std=gain / columns**0.5)
        return {f"{name}.weight": weight, f"{name}.bias": self.normal(rows, std=0.1)}

    def norm(self, name: str, width: int) -> Tensors:
        return {f"{name}.weight": 1 + self.normal(width, std=0.1), f"{name}.bias": self.normal(width, std=0.1)}

    def embeddings(self, prefix: str, config: Mapping[str, Any]) -> Tensors:
        """Small, as trained ones are: at this scale a wrong layer_norm_eps shows."""
        sizes = {
            "word_embeddings": config["vocab_size"],
            "position_embeddings": config["max_position_embeddings"],
            "token_type_embeddings": config["type_vocab_size"],
        }
        width = config["hidden_size"]
        return {f"{prefix}.{name}.weight": self.normal(rows, width, std=0.02) for name, rows in sizes.items()}


def chat_tokenizer() -> Tokenizer:
    """As that of Qwen2 and Qwen3: bytes and words, cut by the same rule, and no template for a pair.

    The four answers have the ids that they have in Qwen's vocabulary, which leaves gaps in this one.
    """
    pieces = [*sorted(ByteLevel.alphabet()), *WORDS, *(f"Ġ{word}" for word in WORDS), "?Ċ", "ĊĊ", ":Ċ", ".Ċ"]
    ids = {"0": 15, "1": 16, "no": 2152, "yes": 9693, **{token: 9694 + i for i, token in enumerate(CHAT_TOKENS)}}
    free = (number for number in range(17, 2000))
    vocabulary = {piece: ids.get(piece) or next(free) for piece in pieces} | ids
    tokenizer = Tokenizer(BPE(vocabulary, [], ignore_merges=True))
    tokenizer.normalizer = NFC()
    rule = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(rule), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens(list(CHAT_TOKENS))
    return tokenizer


def qwen_config(kind: str) -> dict[str, Any]:
    """config.json of a small language model of the kind `qwen3` or `qwen2`."""
    config: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM" if kind == "qwen3" else "Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 9694,
        "eos_token_id": 9696,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": QWEN_LENGTH,
        "max_window_layers": 3,
        "model_type": kind,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "pad_token_id": 9694,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 9728,
    }
    return config | ({"attention_bias": False, "head_dim": 16} if kind == "qwen3" else {})


def decoder_tensors(config: Mapping[str, Any], seed: int, qkv_bias: bool = False, qk_norm: bool = False) -> Tensors:
    """What transformers' Qwen, Llama and Gemma models save."""
    draw = WeightDraw(seed)
    width, wide, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    groups = config["num_key_value_heads"]
    tensors = {"model.embed_tokens.weight": draw.normal(config["vocab_size"], width, std=0.3)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, rows in {"q": heads * head, "k": groups * head, "v": groups * head}.items():
            projection = draw.linear(f"{layer}.self_attn.{name}_proj", rows, width)
            tensors |= projection if qkv_bias else without_bias(projection)
        if qk_norm:
            for name in ("q_norm", "k_norm"):
                tensors |= without_bias(draw.norm(f"{layer}.self_attn.{name}", head))
        tensors |= without_bias(draw.linear(f"{layer}.self_attn.o_proj", width, heads * head))
        for name in ("gate_proj", "up_proj"):
            tensors |= without_bias(draw.linear(f"{layer}.mlp.{name}", wide, width))
        tensors |= without_bias(draw.linear(f"{layer}.mlp.down_proj", width, wide))
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors |= without_bias(draw.norm(f"{layer}.{name}", width))
    return tensors | without_bias(draw.norm("model.norm", width))


def write_qwen(directory: Path, kind: str = "qwen3", seed: int = 11, **changes: Any) -> Path:
    """A language model as Qwen/Qwen3-Reranker-0.6B is published, or mixedbread-ai/mxbai-rerank-base-v2 (`qwen2`).

    bfloat16, its head the embeddings unless `tie_word_embeddings` is false. Returns `directory`.
    """
    config = qwen_config(kind) | changes
    tensors = decoder_tensors(config, seed, qkv_bias=kind == "qwen2", qk_norm=kind == "qwen3")
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = WeightDraw(seed + 1).normal(config["vocab_size"], config["hidden_size"], std=0.3)
    tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    settings = {"model_max_length": 131072, "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer"}
    return write_model(directory, config, tensors, chat_tokenizer(), settings)


def sentencepiece_tokenizer() -> Tokenizer:
    """As Gemma's: characters and words, with a mark for a space and bytes for what it cannot spell; `<bos>` first."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *CHARACTERS, "\n", "Yes", "No", *WORDS]
    pieces += [f"\u2581{word}" for word in WORDS]
    tokenizer = Tokenizer(
        BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>", ignore_merges=True)
    )
    tokenizer.normalizer = Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = Split(Regex(r"\u2581?[^\u2581\n]+|\u2581|\n"), behavior="isolated")
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)])
    return tokenizer


def write_gemma(directory: Path, seed: int = 19, **changes: Any) -> Path:
    """A language model as BAAI/bge-reranker-v2-gemma is published, float32, with `changes` of its config."""
    tokenizer = sentencepiece_tokenizer()
    config: dict[str, Any] = {
        "architectures": ["GemmaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "head_dim": 16,
        "hidden_act": "gelu",
        "hidden_activation": None,
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": GEMMA_LENGTH,
        "model_type": "gemma",
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    } | changes
    tensors = decoder_tensors(config, seed)
    # A norm's weight is what it has beyond 1.
    tensors = {name: tensor - 1 if "norm" in name else tensor for name, tensor in tensors.items()}
    return write_model(
        directory, config, tensors, tokenizer, {"pad_token": "<pad>", "tokenizer_class": "GemmaTokenizer"}
    )


def llama_tokenizer() -> Tokenizer:
    """As that of Llama 3: bytes and words, cut by its rule, and `<|begin_of_text|>` before any text."""
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    pieces = [*special, *sorted(ByteLevel.alphabet()), *WORDS, *(f"\u0120{word}" for word in WORDS), "question"]
    pieces += ["\u0120passage", "\u0120\u010a\u0120\u010a", ":apple", ":river", "?!", "\u0120\u0120\u010a\u0120\u010a"]
    tokenizer = Tokenizer(BPE({piece: i for i, piece in enumerate(pieces)}, [], ignore_merges=True))
    rule = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(rule), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens(special)
    start = special[0]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", pair=f"{start} $A {start}:1 $B:1", special_tokens=[(start, 0)]
    )
    return tokenizer


def write_nemotron(directory: Path, seed: int = 23, **changes: Any) -> Path:
    """A reranker as nvidia/llama-nemotron-rerank-1b-v2 is published, bfloat16, with `changes` of its config.

    Its positions are scaled as those of Llama 3.2 are, from a length that short texts have.
    """
    tokenizer = llama_tokenizer()
    config: dict[str, Any] = {
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig",
            "AutoModelForSequenceClassification": (
                "llama_bidirectional_model.LlamaBidirectionalForSequenceClassification"
            ),
        },
        "bos_token_id": 0,
        "eos_token_id": 1,
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "intermediate_size": 2 * WIDTH,
        "label2id": {"LABEL_0": 0},
        "max_position_embeddings": 131_072,
        "mlp_bias": False,
        "model_type": "llama_bidirec",
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "pad_token_id": 1,
        "pooling": "avg",
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500.0,
        "temperature": 1.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    } | changes
    draw = WeightDraw(seed + 1)
    tensors = decoder_tensors(config, seed) | without_bias(draw.linear("score", 1, WIDTH, gain=6))
    tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    settings = {
        "model_max_length": 131_072,
        "pad_token": "<|end_of_text|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return write_model(directory, config, tensors, tokenizer, settings)


def write_gte(directory: Path, seed: int = 13, **changes: Any) -> Path:
    """A reranker as Alibaba-NLP/gte-multilingual-reranker-base is published, float16, with `changes` of its config."""
    tokenizer = unigram_tokenizer()
    config: dict[str, Any] = {
        "architectures": ["NewForSequenceClassification"],
        "attention_probs_dropout_prob": 0.0,
        "auto_map": {"AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig"},
        "classifier_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": WIDTH,
        "id2label": {"0": "LABEL_0"},
        "intermediate_size": FEED_FORWARD,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-12,
        "layer_norm_type": "layer_norm",
        "logn_attention_clip1": False,
        "logn_attention_scale": False,
        "max_position_embeddings": MODERNBERT_LENGTH,
        "model_type": "new",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 3,
        "pack_qkv": True,
        "pad_token_id": 1,
        "position_embedding_type": "rope",
        "rope_scaling": {"factor": 8.0, "type": "ntk"},
        "rope_theta": 20000,
        "torch_dtype": "float16",
        "type_vocab_size": 1,
        "unpad_inputs": False,
        "use_memory_efficient_attention": False,
        "vocab_size": tokenizer.get_vocab_size(),
        **changes,
    }
    draw, width, wide = WeightDraw(seed), config["hidden_size"], config["intermediate_size"]
    tensors = {"new.embeddings.word_embeddings.weight": draw.normal(config["vocab_size"], width, std=0.02)}
    tensors["new.embeddings.token_type_embeddings.weight"] = draw.normal(1, width, std=0.02)
    tensors |= draw.norm("new.embeddings.LayerNorm", width)
    for i in range(config["num_hidden_layers"]):
        layer = f"new.encoder.layer.{i}"
        tensors |= draw.linear(f"{layer}.attention.qkv_proj", 3 * width, width)
        tensors |= draw.linear(f"{layer}.attention.o_proj", width, width)
        tensors |= draw.norm(f"{layer}.attn_ln", width)
        tensors |= without_bias(draw.linear(f"{layer}.mlp.up_gate_proj", 2 * wide, width))
        tensors |= draw.linear(f"{layer}.mlp.down_proj", width, wide)
        tensors |= draw.norm(f"{layer}.mlp_ln", width)
    tensors |= draw.linear("new.pooler.dense", width, width) | draw.linear("classifier", 1, width, gain=4)
    tensors = {name: tensor.half() for name, tensor in tensors.items()}
    return write_model(directory, config, tensors, tokenizer, xlm_roberta_tokenizer_config(32768))


def write_jina_v1(directory: Path, seed: int = 17, **changes: Any) -> Path:
    """A reranker as jinaai/jina-reranker-v1-tiny-en is published, bfloat16, with `changes` of its config.

    It has twelve heads as that one: no power of two, so that the slopes of ALiBi are drawn from two rows.
    """
    tokenizer = roberta_tokenizer()
    config: dict[str, Any] = {
        "architectures": ["JinaBertForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1,
        "attn_implementation": "torch",
        "auto_map": {"AutoConfig": "jinaai/jina-bert-implementation--configuration_bert.JinaBertConfig"},
        "classifier_dropout": None,
        "emb_pooler": "mean",
        "feed_forward_type": "geglu",
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": JINA_V1_WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": JINA_V1_LENGTH,
        "model_type": "bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 3,
        "pad_token_id": 1,
        "position_embedding_type": "alibi",
        "torch_dtype": "bfloat16",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
        **changes,
    }
    draw, width, wide = WeightDraw(seed), config["hidden_size"], config["intermediate_size"]
    tensors = draw.embeddings("bert.embeddings", config)
    del tensors["bert.embeddings.position_embeddings.weight"]
    tensors |= draw.norm("bert.embeddings.LayerNorm", width)
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            tensors |= draw.linear(f"{layer}.attention.self.{part}", width, width)
        tensors |= draw.linear(f"{layer}.attention.output.dense", width, width)
        tensors |= draw.norm(f"{layer}.attention.output.LayerNorm", width)
        tensors |= without_bias(draw.linear(f"{layer}.mlp.gated_layers", 2 * wide, width))
        tensors |= draw.linear(f"{layer}.mlp.wo", width, wide)
        tensors |= draw.norm(f"{layer}.mlp.layernorm", width)
    tensors |= draw.linear("bert.pooler.dense", width, width) | draw.linear("classifier", 1, width, gain=4)
    tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    settings = xlm_roberta_tokenizer_config(JINA_V1_LENGTH) | {"tokenizer_class": "RobertaTokenizer"}
    return write_model(directory, config, tensors, tokenizer, settings)


def roberta_tokenizer() -> Tokenizer:
    """RoBERTa's: bytes and words, `<s> q </s></s> d </s>` in one segment, special tokens first."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*special, *sorted(ByteLevel.alphabet()), *WORDS, *(f"Ġ{word}" for word in WORDS), "<mask>"]
    tokenizer = Tokenizer(BPE({piece: i for i, piece in enumerate(pieces)}, [], ignore_merges=True))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens([*special, "<mask>"])
    return tokenizer


def deberta_tokenizer() -> Tokenizer:
    """DeBERTa-v3's: SentencePiece pieces, `[CLS] q [SEP] d [SEP]`, the passage segment 1, which the model has not."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    letters = [(letter, -8.0 - i / 100) for i, letter in enumerate(("▁", *CHARACTERS))]
    words = [(f"▁{word}", -3.0 - i / 100) for i, word in enumerate(WORDS)]
    pieces = [*((token, 0.0) for token in special[:4]), *words, *letters, (special[4], 0.0)]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = Normalizers([Strip(), NFKC(), Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def write_deberta(directory: Path, seed: int = 17, **changes: Any) -> Path:
    """A reranker as mixedbread-ai/mxbai-rerank-xsmall-v1 is published, float16, with `changes` of its config."""
    tokenizer = deberta_tokenizer()
    config: dict[str, Any] = {
        "architectures": ["DebertaV2ForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": WIDTH,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-07,
        "max_position_embeddings": DEBERTA_LENGTH,
        "max_relative_positions": -1,
        "model_type": "deberta-v2",
        "norm_rel_ebd": "layer_norm",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 3,
        "pad_token_id": 0,
        "pooler_dropout": 0,
        "pooler_hidden_act": "gelu",
        "pooler_hidden_size": WIDTH,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 256,
        "relative_attention": True,
        "share_att_key": True,
        "torch_dtype": "float16",
        "type_vocab_size": 0,
        "vocab_size": tokenizer.get_vocab_size() + 7,  # a round number, as published
        **changes,
    }
    draw, width, wide = WeightDraw(seed), config["hidden_size"], config["intermediate_size"]
    tensors = {"deberta.embeddings.word_embeddings.weight": draw.normal(config["vocab_size"], width, std=0.02)}
    tensors |= draw.norm("deberta.embeddings.LayerNorm", width)
    tensors["deberta.encoder.rel_embeddings.weight"] = draw.normal(512, width, std=0.02)
    tensors |= draw.norm("deberta.encoder.LayerNorm", width)
    for i in range(config["num_hidden_layers"]):
        layer = f"deberta.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            tensors |= draw.linear(f"{layer}.attention.self.{part}_proj", width, width)
        tensors |= draw.linear(f"{layer}.attention.output.dense", width, width)
        tensors |= draw.norm(f"{layer}.attention.output.LayerNorm", width)
        tensors |= draw.linear(f"{layer}.intermediate.dense", wide, width)
        tensors |= draw.linear(f"{layer}.output.dense", width, wide)
        tensors |= draw.norm(f"{layer}.output.LayerNorm", width)
    tensors |= draw.linear("pooler.dense", width, width) | draw.linear("classifier", 1, width, gain=4)
    tensors = {name: tensor.half() for name, tensor in tensors.items()}
    settings = {
        "bos_token": "[CLS]",
        "cls_token": "[CLS]",
        "do_lower_case": False,
        "eos_token": "[SEP]",
        "mask_token": "[MASK]",
        "model_max_length": DEBERTA_LENGTH,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "split_by_punct": False,
        "tokenizer_class": "DebertaV2Tokenizer",
        "unk_token": "[UNK]",
        "vocab_type": "spm",
    }
    return write_model(directory, config, tensors, tokenizer, settings)
