"""Makes a kit: token lists with teacher scores from query-positive Parquet sources, and an encoder to begin from.

    python -m pipelines.training.make_kit --train SOURCES --backbone NAME --teacher MINILM --output KIT

SOURCES is a folder of Parquet files (`query, positive, negatives, group`); the backbone is any model that `base.py`
takes. The dense half of the teacher is all-MiniLM-L6-v2, which may be the backbone too: then `--teacher` is not needed.
`kit.py` trains from what this writes.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer

from .base import load_base
from .kit import Kit
from .loop import Recipe
from .mining import QUERIES_PER_SOURCE, DenseEncoder, fastest_dtype
from .teaching import TaughtList, teach_source
from .token_lists import TokenList, TokenLists

MAX_CHARACTERS = 6000
"""Of a text that is tokenized; what lies beyond would be cut anyway."""
STORED_TOKENS = 160
"""Of a text: what pairs of at most 192 tokens can hold beside a query."""
HELD_BACK_SHARE = 0.01
RECIPE = Recipe(steps=20_000, max_lengths=(96, 128, 192), learning_rate=2e-4)


def token_lists(taught: Iterable[TaughtList], tokenizer: Tokenizer, rng: random.Random) -> Iterator[TokenList]:
    """The lists as token ids, some of them held back."""

    def ids(texts: list[str]) -> list[list[int]]:
        encodings = tokenizer.encode_batch([text[:MAX_CHARACTERS] for text in texts], add_special_tokens=False)
        return [encoding.ids[:STORED_TOKENS] for encoding in encodings]

    for one in taught:
        query, *passages = ids([one.query, *one.passages])
        yield TokenList(query, passages, one.labels, one.teacher, held_back=rng.random() < HELD_BACK_SHARE)


def taught_sources(args: argparse.Namespace) -> Iterator[TaughtList]:
    """The lists of every source that may be shipped, one source after the other."""
    encoder = DenseEncoder(args.teacher or Path(args.backbone), dtype=fastest_dtype())
    for source in args.sources or QUERIES_PER_SOURCE:
        began = time.monotonic()
        queries = max(1, round(QUERIES_PER_SOURCE[source] * args.scale))
        unlabelled = round(queries * args.unlabelled)
        rng = random.Random(f"{args.seed}/{source}")
        count = 0
        path = args.train / f"{source}.parquet"
        for one in teach_source(path, encoder, queries, args.depth, rng, unlabelled, args.pool):
            yield one
            count += 1
        print(f"{source}: {count} lists, {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """Writes the kit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of the training sources")
    parser.add_argument("--backbone", required=True, help="embedded, a directory, a uri or a hub name")
    parser.add_argument("--teacher", type=Path, help="folder of all-MiniLM-L6-v2; the backbone's without it")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=24, help="passages of a list")
    parser.add_argument("--scale", type=float, default=1.0, help="of the queries that each source gives by default")
    parser.add_argument("--unlabelled", type=float, default=0.5, help="lists without labels for each one with labels")
    parser.add_argument("--pool", type=int, default=20_000, help="passages of a source that candidates come out of")
    parser.add_argument("--sources", nargs="*", choices=list(QUERIES_PER_SOURCE), metavar="SOURCE", help="not all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    base = load_base(args.backbone, seed=args.seed)
    rng = random.Random(args.seed)
    lists = TokenLists.of(token_lists(taught_sources(args), base.tokenizer, rng))
    Kit(base.spec.shape, base.layout, RECIPE).save(args.output, lists, base.encoder.state_dict())
    size = sum(path.stat().st_size for path in args.output.iterdir()) / 1e6
    print(f"{len(lists)} lists of {len(lists.passages)} passages in {args.output}: {size:.1f} MB")


if __name__ == "__main__":
    main()
