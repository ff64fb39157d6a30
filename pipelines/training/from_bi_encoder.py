"""Makes a cross-encoder that ranks, before any training, as a bi-encoder does, and by the words that two texts share.

    python -m pipelines.training.from_bi_encoder BI_ENCODER OUTPUT --texts "train/*/*.parquet"

A plain encoder with a new head ranks at random, and needs hundreds of thousands of pairs to find again what the
bi-encoder knew. This model has the bi-encoder's order from the start (`similarity` says how), and a head that sees
which words of the query the passage has (`exact_match`). Training teaches it the rest: to look from one text into the
other. It is an ordinary BERT.
"""

from __future__ import annotations

import argparse
import glob
import json
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ModelError, ModelRefusedError
from ..model_files import ModelFiles
from .base import KEEP_ZEROS, check_finite, check_free, load_base, save_weights, write_directory
from .dense import load_backbone
from .embedding import Pooling, read_embedding
from .exact_match import WEIGHT, MatchingBuilder, check_weight, words_of
from .languages import Languages, language_directions, texts_by_language
from .similarity import Builder, measure
from .vocabulary import files_that_match, queries_and_positives

OTHER_SPECIAL = (("pad", "<pad>"), ("unk", "<unk>"), ("pad", "[PAD]"), ("unk", "[UNK]"))
"""Special tokens that keep their names; a tokenizer has those of BERT or of XLM-RoBERTa."""
SAMPLE = 50_000
"""Texts whose words are counted."""
MEASURED, MEASURED_TOKENS = 2000, 96
"""Those of them that the bi-encoder reads, and tokens of each."""


def with_berts_pairs(tokenizer: dict[str, Any], first: str | None, last: str | None) -> dict[str, Any]:
    """The content of a tokenizer.json that joins pairs as BERT's does; its own special tokens get BERT's names."""
    names = {first: "[CLS]", last: "[SEP]"}
    model = tokenizer["model"]
    changed = tokenizer | {
        "added_tokens": [
            token | {"content": names.get(token["content"], token["content"])} for token in tokenizer["added_tokens"]
        ]
    }
    if isinstance(model["vocab"], dict):
        vocabulary: Any = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:
        vocabulary = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    ids = {names[token["content"]]: token["id"] for token in tokenizer["added_tokens"] if token["content"] in names}

    def special(name: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": segment}}

    query, passage = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    single = [special("[CLS]", 0), query, special("[SEP]", 0)]
    changed["model"] = model | {"vocab": vocabulary}
    changed["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, passage, special("[SEP]", 1)],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()},
    }
    return changed


def convert(
    bi_encoder: Path,
    output: Path,
    texts: Iterable[str],
    *,
    exact_matches: bool = True,
    weight: float = WEIGHT,
    languages: Sequence[Languages] = (),
    directions: int = 0,
) -> None:
    """Writes the cross-encoder of a bi-encoder; `texts` are a sample of what it reads.

    With `exact_matches` it has the head of `exact_match`, which counts with this `weight`; else its order is that of
    the bi-encoder alone. So many `directions` in which `languages` differ are left out of the similarity. Raises
    ModelRefusedError for what is no directory of a BERT bi-encoder, takes no mean of its tokens, or has no room for
    that head, for fewer than two texts, and for more directions than the languages tell; ConfigError for a weight below
    0 and without PyStemmer; FileExistsError where something lies at `output`.
    """
    check_free(output)
    check_weight(weight)
    if not bi_encoder.is_dir():
        raise ModelRefusedError(f"{bi_encoder} is no directory; give that of a bi-encoder, such as all-MiniLM-L6-v2's")
    embedding = read_embedding(bi_encoder)
    files = ModelFiles(str(bi_encoder), embedding.transformer)
    config = files.config()
    if config.get("model_type") != "bert" or embedding.pooling is not Pooling.MEAN or embedding.lower_case:
        raise ModelRefusedError(
            f"{bi_encoder} is a model of type {config.get('model_type')!r} that takes the {embedding.pooling} of its "
            "tokens; this wants a bert that takes their mean, and whose tokenizer lower-cases by itself"
        )
    base = load_base(str(embedding.transformer))  # which refuses what would not load, or would be garbage
    if base.has_head:
        raise ModelRefusedError(f"{bi_encoder} is a cross-encoder already; give the bi-encoder")
    tokenizer = files.tokenizer()
    tokenizer.enable_truncation(min(MEASURED_TOKENS, base.max_length))
    distinct = distinct_texts(texts, bi_encoder)
    measured = random.Random(0).sample(distinct, min(len(distinct), MEASURED))
    ids = [encoding.ids for encoding in tokenizer.encode_batch(measured)]
    model = load_backbone(embedding.transformer).eval()
    first, last = ids[0][0], ids[0][-1]
    tensors = {name: tensor.float() for name, tensor in model.state_dict().items()}
    check_finite(str(bi_encoder), tensors)
    left_out = language_directions(model, tokenizer, languages, directions) if directions else None
    measures = measure(model, ids)
    measures.left_out = left_out
    if exact_matches:
        words = words_of(files.tokenizer(), distinct, MatchingBuilder.code_width(config), base.spec.shape.vocab_size)
        builder: Builder = MatchingBuilder(tensors, config, measures, first, words, weight)
    else:
        builder = Builder(tensors, config, measures, first)
    weights = builder.build()
    own = {
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": builder.wide,
        "num_hidden_layers": builder.depth + 2,
        "num_attention_heads": builder.heads + builder.added_heads,
        "intermediate_size": builder.wide_units,
        "type_vocab_size": 2,
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "dtype": "float32",
        "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
        KEEP_ZEROS: True,
    }
    of_tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        **{f"{name}_token": token for name, token in OTHER_SPECIAL if tokenizer.token_to_id(token) is not None},
        "model_max_length": base.max_length,
        # Without segments the two texts would not be told apart.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    content = json.loads(files.tokenizer().to_str())  # as it reads, which tokenizer_config.json may change
    if tokenizer.token_to_id("[CLS]") is None:
        content = with_berts_pairs(content, tokenizer.id_to_token(first), tokenizer.id_to_token(last))

    def fill(folder: Path) -> None:
        for name in ("tokenizer_class", "torch_dtype"):
            config.pop(name, None)
        save_weights({name: tensor.clone() for name, tensor in weights.items()}, folder)
        (folder / "config.json").write_text(json.dumps(config | own, indent=2) + "\n")
        (folder / "tokenizer.json").write_text(
            json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
        )
        (folder / "tokenizer_config.json").write_text(json.dumps(of_tokenizer, indent=2) + "\n")

    write_directory(fill, output)


def distinct_texts(texts: Iterable[str], model: str | Path) -> list[str]:
    """The texts, each once; raises ModelRefusedError where there are not two to measure the model on."""
    distinct = list(dict.fromkeys(texts))
    if len(distinct) < 2:
        raise ModelRefusedError(f"{len(distinct)} texts to measure {model} on; give some hundreds that differ")
    return distinct


def sample(patterns: Sequence[str], count: int) -> list[str]:
    """About `count` texts, as many of each Parquet file that matches a pattern; raises FileNotFoundError for none."""
    paths = files_that_match(patterns)
    texts = []
    for path in paths:
        of_file = list(queries_and_positives([glob.escape(path)]))
        texts += random.Random(0).sample(of_file, min(len(of_file), math.ceil(count / len(paths))))
    return texts


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "bi_encoder", type=Path, help="directory of a BERT bi-encoder that takes the mean of its tokens"
    )
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--texts", nargs="+", required=True, help="Parquet files (`query`, `positive`) to measure it on"
    )
    parser.add_argument(
        "--no-exact-matches", action="store_true", help="the order of the bi-encoder alone, one head narrower"
    )
    parser.add_argument(
        "--weight",
        type=float,
        default=WEIGHT,
        help="of exact matches in the logit; 0 leaves the order of the bi-encoder (default %(default)s)",
    )
    parser.add_argument(
        "--language-directions",
        type=int,
        default=0,
        metavar="N",
        help="leave the N directions out of the similarity in which languages of --texts differ most "
        "(`query_lang` and `doc_lang` say which; default %(default)s)",
    )
    args = parser.parse_args()
    if args.language_directions < 0:
        parser.error("--language-directions is a number from 0 on")
    try:
        check_free(args.output)  # before the texts are read
        texts = sample(args.texts, SAMPLE)
        print(f"measuring the bi-encoder on {min(len(texts), MEASURED):,} texts, a minute or more ...", flush=True)
        convert(
            args.bi_encoder,
            args.output,
            texts,
            exact_matches=not args.no_exact_matches,
            weight=args.weight,
            languages=texts_by_language(args.texts) if args.language_directions else (),
            directions=args.language_directions,
        )
    except (ModelError, ConfigError, ValueError, OSError) as error:
        parser.error(str(error))
    print(f"the cross-encoder is in {args.output}; its scores are not calibrated yet")


if __name__ == "__main__":
    main()
