"""Makes a kit: token lists with teacher scores from query-positive Parquet sources, and an encoder to begin from.

    python -m pipelines.training.make_kit STAGE.toml ... --data FOLDER --base MODEL --dense DIR --output KIT

The stages name the sources, as `crossray train` has them: Parquet files in FOLDER with `query, positive` and, where
they are known, `negatives, group`; and how many lists of each. `kit.py` trains from what this writes. The same command
again goes on behind the sources that are done, or says that all is done.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer

from ..errors import ModelError
from .base import load_base
from .dense import DenseEncoder, fastest_dtype
from .kit import KIT, Kit
from .loop import Trainer
from .recipe import Recipe
from .teaching import Dense, TaughtList, teach_source
from .token_lists import TokenList, TokenLists

TOKENIZED_CHARACTERS = 6000
"""Characters of a text that are tokenized, at least; the tokens of what lies beyond would be cut anyway."""
CHARACTERS_PER_TOKEN = 16
"""So many of a text are tokenized where that is more: texts have fewer on average."""
HELD_BACK_SHARE = 0.01
MOST_LISTS = 20_000
"""Lists of a source for which its stage names no number."""
KEYS = frozenset({"path", "name", "licence", "lists"})
"""Of a source. `crossray train` knows more, such as `held_back`, which would be trained on here."""
SOURCES = "sources"
"""Folder of OUTPUT with the lists of each source that is done, until the kit is."""
SETTINGS = "settings.json"
"""File of OUTPUT with the arguments and stages that it was begun with."""
RECIPE = Recipe(steps=20_000, max_lengths=(96, 128, 192), learning_rate=2e-4)


def token_lists(
    taught: Iterable[TaughtList], tokenizer: Tokenizer, rng: random.Random, held_back_share: float, length: int
) -> Iterator[TokenList]:
    """The lists as token ids, a share of them held back; of each text up to `length` tokens, a whole pair's."""

    characters = max(TOKENIZED_CHARACTERS, CHARACTERS_PER_TOKEN * length)

    def ids(texts: list[str]) -> list[list[int]]:
        encodings = tokenizer.encode_batch([text[:characters] for text in texts], add_special_tokens=False)
        return [encoding.ids[:length] for encoding in encodings]

    for one in taught:
        query, *passages = ids([one.query, *one.passages])
        yield TokenList(query, passages, one.labels, one.teacher, held_back=rng.random() < held_back_share)


def sources_of(stages: Sequence[Path]) -> dict[str, int]:
    """Path and lists of every source of some stages; what several stages name counts once, with the most lists.

    Raises ValueError for a key of a source that a kit does not know.
    """
    sources: dict[str, int] = {}
    for stage in stages:
        for source in tomllib.loads(stage.read_text())["sources"]:
            path = source["path"]
            unknown = sorted(source.keys() - KEYS)
            if unknown:
                raise ValueError(f"{stage}: source {path} has the key {unknown[0]!r}; a kit knows {sorted(KEYS)}")
            sources[path] = max(sources.get(path, 0), source.get("lists", MOST_LISTS))
    return sources


def check_sources(args: argparse.Namespace) -> None:
    """Looks at all sources and bi-encoders, before the hours that the first ones take.

    Raises FileNotFoundError for one that is not there, ValueError for a source that lacks a column or is no Parquet.
    """
    for path in (*args.dense, *args.multilingual):
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is no directory of a bi-encoder")
    sources = sources_of(args.stages)
    if missing := set(args.without_bm25) - sources.keys():
        raise ValueError(f"--without-bm25 names {min(missing)}; the stages have {', '.join(sources)}")
    for name in sources:
        columns = pq.read_schema(args.data / name).names
        if not {"query", "positive"} <= set(columns):
            raise ValueError(f"{args.data / name} has not the columns query and positive; it has {columns}")


def source_lists(
    args: argparse.Namespace, tokenizer: Tokenizer, held_back_share: float, length: int
) -> Iterator[TokenList]:
    """The lists of every source, one source after the other; those of a source are kept in OUTPUT when it is done."""
    encoder = partial(DenseEncoder, max_length=max(args.max_lengths), dtype=fastest_dtype())
    dense = [Dense(encoder(path)) for path in args.dense]
    dense += [
        Dense(encoder(path, query_prefix="query: ", passage_prefix="passage: "), crosses=True)
        for path in args.multilingual
    ]
    for name, lists in sources_of(args.stages).items():
        done = args.output / SOURCES / f"{quote(name, safe='')}.npz"
        if not done.exists():
            began = time.monotonic()
            queries = max(1, round(lists * args.scale))
            rng = random.Random(f"{args.seed}/{Path(name).stem}")
            taught = teach_source(
                args.data / name,
                dense,
                queries,
                args.depth,
                rng,
                args.unlabelled,
                args.pool,
                with_bm25=name not in args.without_bm25,
            )
            held_back = random.Random(f"{args.seed}/{name}/held back")
            of_source = TokenLists.of(token_lists(taught, tokenizer, held_back, held_back_share, length))
            unfinished = done.with_suffix(".tmp")
            of_source.save(unfinished)
            unfinished.rename(done)
            print(f"{name}: {len(of_source)} lists, {time.monotonic() - began:.0f} s", flush=True)
        yield from TokenLists.load(done)


def asked(args: argparse.Namespace) -> str:
    """The arguments and stages that decide what a kit holds, as JSON."""
    stages = {str(path): path.read_text() for path in args.stages}
    settings = {name: value for name, value in vars(args).items() if name not in ("output", "overwrite")}
    return json.dumps(settings | {"stages": stages}, default=str, indent=2, sort_keys=True) + "\n"


def is_complete(args: argparse.Namespace) -> bool:
    """Whether OUTPUT holds the whole kit of this command already; with --overwrite never.

    Raises FileExistsError where OUTPUT was begun by another command, or holds something else.
    """
    settings: Path = args.output / SETTINGS
    whole: bool = (args.output / KIT).exists()
    if not settings.exists() and not whole:
        if args.output.exists() and not (args.output.is_dir() and not any(args.output.iterdir())):
            raise FileExistsError(f"{args.output} is there already and holds no kit; give another --output")
        return False
    if args.overwrite:
        return False
    if not settings.exists():
        raise FileExistsError(
            f"{args.output} holds a kit that does not say how it was made; give another --output, or --overwrite"
        )
    if settings.read_text() != asked(args):
        raise FileExistsError(
            f"{args.output} was begun with other arguments or stages, see {settings}; give another --output, or "
            "--overwrite"
        )
    return whole


def begin(args: argparse.Namespace) -> None:
    """Makes OUTPUT, or what lies there ready for going on: with --overwrite nothing of it counts any longer."""
    if args.overwrite:
        shutil.rmtree(args.output / SOURCES, ignore_errors=True)
        (args.output / KIT).unlink(missing_ok=True)
    (args.output / SOURCES).mkdir(parents=True, exist_ok=True)
    settings = args.output / SETTINGS
    unfinished = settings.with_suffix(".tmp")
    unfinished.write_text(asked(args))
    unfinished.rename(settings)


def main(recipe: Recipe = RECIPE, held_back_share: float = HELD_BACK_SHARE) -> None:
    """Runs the command line: writes the kit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path, nargs="+", help="configs of `crossray train` with the sources")
    parser.add_argument("--data", type=Path, required=True, help="folder of the sources")
    parser.add_argument("--base", required=True, help="model that training begins from")
    parser.add_argument("--dense", type=Path, nargs="*", default=[], help="bi-encoders of the teacher")
    parser.add_argument(
        "--multilingual", type=Path, nargs="*", default=[], help="bi-encoders of the e5 kind, for all languages"
    )
    parser.add_argument(
        "--without-bm25",
        nargs="*",
        default=[],
        help="paths of sources, as the stages have them, whose teacher is the bi-encoders alone: those of code",
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=24, help="passages of a list")
    parser.add_argument("--scale", type=float, default=1.0, help="of the queries that each source gives by default")
    parser.add_argument("--unlabelled", type=float, default=0.5, help="lists without labels for each one with labels")
    parser.add_argument("--pool", type=int, default=20_000, help="passages of a source that candidates come out of")
    parser.add_argument(
        "--max-lengths",
        type=int,
        nargs="+",
        default=recipe.max_lengths,
        help="tokens of a pair; the run goes through these in equal shares. Teachers read as far as the longest",
    )
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="throw away the kit that OUTPUT holds, and start anew")
    args = parser.parse_args()
    try:
        recipe = replace(recipe, max_lengths=tuple(args.max_lengths), learning_rate=args.learning_rate)
    except ValueError as error:
        parser.error(str(error))
    if not args.dense and not args.multilingual:
        parser.error("give at least one bi-encoder: --dense or --multilingual")
    try:
        if is_complete(args):
            print(f"{args.output} is complete; --overwrite makes it anew")
            return
        check_sources(args)
        base = load_base(args.base, seed=args.seed)
        recipe = base.with_kept_zeros(recipe)
        begin(args)
    except (ModelError, ValueError, KeyError, OSError) as error:
        parser.error(str(error))
    lists = TokenLists.of(source_lists(args, base.tokenizer, held_back_share, max(recipe.max_lengths)))
    if base.has_head:  # that of a kit from an encoder alone is random
        Trainer(base.encoder, lists, base.layout, recipe, torch.device("cpu"), in_bfloat16=False).scale_head()
    Kit(base.spec.shape, base.layout, recipe).save(args.output, lists, base.encoder.state_dict())
    shutil.rmtree(args.output / SOURCES)
    size = sum(path.stat().st_size for path in args.output.iterdir()) / 1e6
    print(f"{len(lists)} lists of {len(lists.passages)} passages in {args.output}: {size:.1f} MB")
    held_back = len(lists.measurable())
    print(f"{held_back} of them are held back to calibrate on" + ("" if held_back else "; `export` needs some"))


if __name__ == "__main__":
    main()
