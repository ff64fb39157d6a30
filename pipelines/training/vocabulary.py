"""Makes a smaller model for fewer languages, which keeps those pieces of a vocabulary that texts need.

    python -m pipelines.training.vocabulary MODEL OUTPUT --texts "train/*/*.parquet" --rows 65536 [--layers 1 3 5 ...]

A piece stays when it is special, a single character or a byte (so that nothing becomes unknown that was not), or among
the most frequent ones of the texts (and, with `--own-share`, of those that the vocabulary was made of). The embeddings
keep the rows of these pieces. Where another piece stood in a text, several shorter ones stand now.
"""

from __future__ import annotations

import argparse
import glob
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike
from tokenizers import Tokenizer

from ..calibration import CALIBRATION
from ..errors import ModelError, ModelRefusedError
from ..families.int8_rows import with_restored_rows
from ..model_files import MODULES, SENTENCE_TRANSFORMERS, TRANSFORMER_CONFIG, ModelFiles, read_tensors
from ..model_sources import find_model
from .base import SPECIAL_IDS, check_free, save_weights, write_config_and_tokenizer, write_directory
from .embedding import read_chain

WORD_START, WITHIN_WORD = "▁", "##"
"""What pieces begin with in Unigram's vocabularies at the start of a word, and in WordPiece's elsewhere."""
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
TEXTS = ("query", "positive")
"""The columns that are read."""
TEXTS_AT_ONCE = 1000
COUNTED_CHARACTERS = 2000
"""Of a text that is counted: long ones would decide alone."""


def count_pieces(texts: Iterable[str], tokenizer: Tokenizer) -> Counter[int]:
    """How often each piece stands in the texts."""
    counts: Counter[int] = Counter()
    batch: list[str] = []
    for text in texts:
        batch.append(text[:COUNTED_CHARACTERS])
        if len(batch) == TEXTS_AT_ONCE:
            counts.update(piece for one in encode(tokenizer, batch) for piece in one)
            batch = []
    counts.update(piece for one in encode(tokenizer, batch) for piece in one)
    return counts


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    """Token ids of each text, without special tokens."""
    return (encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))


def chosen_pieces(tokenizer: dict[str, Any], counts: Counter[int], rows: int, own_share: float = 0.0) -> list[int]:
    """The ids of the pieces that stay, in their order: those that must, and the most frequent ones.

    How frequent a piece is say its `counts` in texts and, with the weight `own_share` (0 to 1), the probability that a
    Unigram vocabulary gives it. Raises ValueError where `rows` does not hold what must stay, and ModelRefusedError for
    an own share of a vocabulary without probabilities.
    """
    pieces = pieces_of(tokenizer)
    special = {token["id"] for token in tokenizer["added_tokens"] if token["id"] < len(pieces)}
    must = special | {i for i, piece in enumerate(pieces) if is_needed(piece)}
    if len(must) > rows:
        raise ValueError(f"{len(must)} pieces are special, single characters or bytes; {rows} rows do not hold them")
    others = [i for i in range(len(pieces)) if i not in must]
    weights = (1 - own_share) * shares([counts[i] for i in others])
    if own_share:
        if tokenizer["model"]["type"] != "Unigram":
            raise ModelRefusedError("a WordPiece vocabulary has no probabilities of its own; leave --own-share out")
        scores = [tokenizer["model"]["vocab"][i][1] for i in others]
        weights += own_share * shares(np.exp(scores))
    order = [others[i] for i in np.argsort(-weights, kind="stable") if weights[i] > 0]
    return sorted(must.union(order[: rows - len(must)]))


def shares(sizes: ArrayLike) -> np.ndarray:
    """Each size in units of their sum, float64; 0 where all are 0."""
    sizes = np.asarray(sizes, dtype=np.float64)
    return sizes / (sizes.sum() or 1)


def is_needed(piece: str) -> bool:
    """Whether texts could become unknown without it: a single character, or one of the bytes that stand for others."""
    return len(piece.removeprefix(WORD_START).removeprefix(WITHIN_WORD)) <= 1 or bool(BYTE.fullmatch(piece))


def pieces_of(tokenizer: dict[str, Any]) -> list[str]:
    """The pieces of the content of a tokenizer.json, in the order of their ids.

    Raises ModelRefusedError for one that is neither Unigram nor WordPiece.
    """
    model = tokenizer["model"]
    if model.get("type") == "Unigram":
        return [piece for piece, _ in model["vocab"]]
    if model.get("type") == "WordPiece":
        if sorted(model["vocab"].values()) != list(range(len(model["vocab"]))):
            raise ModelRefusedError("the ids of the vocabulary have gaps, so that rows cannot be told by them")
        return sorted(model["vocab"], key=model["vocab"].__getitem__)
    raise ModelRefusedError(
        f"the tokenizer is of type {model.get('type')!r}; only Unigram and WordPiece vocabularies are pruned"
    )


def pruned_tokenizer(tokenizer: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The content of tokenizer.json with the pieces `kept` alone, numbered anew."""
    place, pieces, model = {old: new for new, old in enumerate(kept)}, pieces_of(tokenizer), tokenizer["model"]
    # A mask token, which may lie beyond the vocabulary, has no use in a reranker.
    added = [token | {"id": place[token["id"]]} for token in tokenizer["added_tokens"] if token["id"] in place]
    changed = tokenizer | {"added_tokens": added}
    if model["type"] == "Unigram":
        changed["model"] = model | {"vocab": [model["vocab"][old] for old in kept], "unk_id": place[model["unk_id"]]}
    else:
        changed["model"] = model | {"vocab": {pieces[old]: new for old, new in place.items()}}
    changed["post_processor"] = renumbered(tokenizer["post_processor"], place)
    return changed


def renumbered(processor: dict[str, Any] | None, place: dict[int, int]) -> dict[str, Any] | None:
    """What puts special tokens around a text, with their new numbers."""
    if processor is None:
        return None
    if processor["type"] == "TemplateProcessing":
        tokens = {
            name: token | {"ids": [place[old] for old in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return processor | {"special_tokens": tokens}
    if processor["type"] in ("RobertaProcessing", "BertProcessing"):
        return processor | {name: [processor[name][0], place[processor[name][1]]] for name in ("sep", "cls")}
    raise ModelRefusedError(f"the tokenizer's post-processor is a {processor['type']}, which cannot be renumbered")


def prune(model: str | Path, output: Path, kept: Sequence[int], layers: Sequence[int] | None = None) -> None:
    """Writes the encoder with the rows `kept` of its embeddings and, if given, those of its layers alone.

    Raises ModelRefusedError for a tokenizer that cannot be pruned, ValueError for layers or ids that the model has not
    or cannot do without, and FileExistsError where something lies at `output`. A calibration is not taken along.
    """
    files = find_model(str(model))
    tokenizer = json.loads(files.tokenizer_file().read_text(encoding="utf-8"))
    check_kept(kept, tokenizer)
    text = json.dumps(pruned_tokenizer(tokenizer, kept), ensure_ascii=False, separators=(",", ":"))
    config, new = files.config(), {old: new for new, old in enumerate(kept)}
    config |= {"vocab_size": len(kept)} | {name: new[config[name]] for name in SPECIAL_IDS if config.get(name) in new}
    tensors = with_restored_rows(read_tensors(files))
    [words] = [name for name in tensors if name.endswith("embeddings.word_embeddings.weight")]
    tensors[words] = tensors[words][list(kept)].clone()
    if layers is not None:
        check_layers(layers, int(config["num_hidden_layers"]))
        place = {old: new for new, old in enumerate(layers)}
        config["num_hidden_layers"] = len(layers)
        tensors = {moved: tensor for name, tensor in tensors.items() if (moved := moved_layer(name, place))}

    def fill(folder: Path) -> None:
        save_weights({name: tensor.contiguous() for name, tensor in tensors.items()}, folder)
        write_config_and_tokenizer(config, files, folder)
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        copy_chain(files, folder)

    write_directory(fill, output)


def copy_chain(files: ModelFiles, folder: Path) -> None:
    """Copies what sentence-transformers is told beside the model, if anything: how a bi-encoder pools, its prompts."""
    if not (files.directory / MODULES).is_file():
        return
    for name in (MODULES, TRANSFORMER_CONFIG, SENTENCE_TRANSFORMERS):
        if (files.directory / name).is_file():
            shutil.copy(files.directory / name, folder / name)
    for path in (str(module.get("path") or "") for module in read_chain(files.directory)):
        if path and (files.directory / path).is_dir():
            shutil.copytree(files.directory / path, folder / path)


def check_kept(kept: Sequence[int], tokenizer: dict[str, Any]) -> None:
    """Raises ValueError for ids that are not in order, or not of pieces, and where a special token is left out."""
    pieces = len(pieces_of(tokenizer))
    if not all(isinstance(old, int) for old in kept) or list(kept) != sorted(set(kept)):
        raise ValueError("the ids that stay are not different whole numbers in rising order")
    if kept and not 0 <= kept[0] <= kept[-1] < pieces:
        raise ValueError(f"the ids that stay are {kept[0]} to {kept[-1]}; the vocabulary has 0 to {pieces - 1}")
    for token in tokenizer["added_tokens"]:
        if token["id"] < pieces and token["id"] not in set(kept) and "mask" not in token["content"].lower():
            raise ValueError(f"the token {token['content']!r} ({token['id']}) has to stay")


def check_layers(layers: Sequence[int], depth: int) -> None:
    """Raises ValueError for layers that the encoder has not, and for others than rising ones."""
    if not layers or list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < depth:
        raise ValueError(f"layers are {list(layers)}; give different ones in rising order, of 0 to {depth - 1}")


def moved_layer(name: str, place: dict[int, int]) -> str | None:
    """The name of a tensor after layers were left out; None for one of these."""
    before, found, after = name.partition("encoder.layer.")
    if not found:
        return name
    number, _, rest = after.partition(".")
    return f"{before}encoder.layer.{place[int(number)]}.{rest}" if int(number) in place else None


def queries_and_positives(patterns: Sequence[str]) -> Iterator[str]:
    """The queries and positives of all Parquet files that match a pattern.

    Raises ValueError for a file without them, FileNotFoundError where no file matches.
    """
    for path in files_that_match(patterns):
        try:
            file = pq.ParquetFile(path)
            types = {field.name: field.type for field in file.schema_arrow}
            if not all(name in types and may_be_text(types[name]) for name in TEXTS):
                raise ValueError(f"{path} has not the columns {' and '.join(TEXTS)} with texts; it has {list(types)}")
            table = file.read(columns=list(TEXTS))
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        for name in TEXTS:
            yield from (text for text in table[name].to_pylist() if text)


def files_that_match(patterns: Sequence[str]) -> list[str]:
    """The paths of all patterns, sorted; raises FileNotFoundError for none."""
    paths = sorted(path for pattern in patterns for path in glob.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no file matches {' '.join(patterns)}")
    return paths


def may_be_text(data_type: pa.DataType) -> bool:
    """Whether a column of this type holds texts."""
    if pa.types.is_dictionary(data_type):
        return may_be_text(data_type.value_type)
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type) or pa.types.is_null(data_type))


def main() -> None:
    """Runs the command line: counts pieces, chooses those that stay, and writes the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="directory of an encoder with a Unigram or WordPiece tokenizer")
    parser.add_argument("output", type=Path)
    parser.add_argument("--texts", nargs="+", help="Parquet files (`query`, `positive`) whose pieces are counted")
    parser.add_argument("--keep", type=Path, help="JSON list of the ids that stay, instead of --texts and --rows")
    parser.add_argument(
        "--own-share",
        type=float,
        default=0.0,
        metavar="0..1",
        help="how much the probabilities that the vocabulary itself has count beside the texts, which may know little "
        "of some languages (default %(default)s)",
    )
    parser.add_argument("--rows", type=int, default=1 << 16, help="pieces that stay at most (default %(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", help="only these layers, from 0 (default all)")
    args = parser.parse_args()
    if not args.keep and not args.texts:
        parser.error("give --texts to count pieces in, or --keep")
    if not 0 <= args.own_share <= 1:
        parser.error(f"--own-share is {args.own_share}; it is a number from 0 to 1")
    try:
        check_free(args.output)  # before the texts are read
        if args.keep:
            kept = json.loads(args.keep.read_text())
            if not isinstance(kept, list):
                raise ValueError(f"{args.keep} is no JSON list")
        else:
            files = find_model(args.model)
            counts = count_pieces(queries_and_positives(args.texts), files.tokenizer())
            tokenizer = json.loads(files.tokenizer_file().read_text(encoding="utf-8"))
            kept = chosen_pieces(tokenizer, counts, args.rows, args.own_share)
        prune(args.model, args.output, kept, args.layers)
    except (ModelError, ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{len(kept)} pieces in {args.output}")
    if (find_model(args.model).directory / CALIBRATION).is_file():
        print(f"its scores are other ones than those that {args.model} was calibrated with; calibrate it anew")


if __name__ == "__main__":
    main()
