"""NanoBEIR: Parquet files in `corpus` and `queries` {_id, text} and `qrels` {query-id, corpus-id}.

Each relevant document has a row, or each query has one with all of them. The folder `bm25` {query-id, corpus-ids},
where there is one, is the first stage that the publisher's rerankers start from; a run that is given takes its place.
As `NanoBEIREvaluator` reads them:
https://github.com/UKPLab/sentence-transformers/blob/main/sentence_transformers/evaluation/NanoBEIREvaluator.py
"""

from __future__ import annotations

from .reading import Asked, Format, Source, one_language
from .writing import NewSet

FORMAT = Format(
    files="the folder of a dataset of https://huggingface.co/collections/zeta-alpha-ai, such as NanoSciFact; or of "
    "https://huggingface.co/datasets/sentence-transformers/NanoBEIR-en with --split NanoSciFact",
    publisher="https://github.com/UKPLab/sentence-transformers (NanoBEIREvaluator)",
    measure="nDCG@10",
    split="train",
    flags=("split", "languages"),
)


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads a dataset; raises ConfigError."""
    language = one_language(asked, "en")
    of_split = f"{asked.split}-*.parquet"
    for place, (query, documents) in source.rows(source.file(f"qrels/{of_split}"), "query-id", "corpus-id"):
        for document in documents if isinstance(documents, list) else [documents]:
            new.judge(place, query, document, 1)
    for path in source.files(f"bm25/{of_split}") if asked.run is None else ():
        for place, (query, documents) in source.rows(path, "query-id", "corpus-ids"):
            for rank, document in enumerate(documents if isinstance(documents, list) else [documents]):
                new.rank(place, query, document, -rank)
    for path in source.some(f"queries/{of_split}"):
        for place, (query, text) in source.rows(path, "_id", "text"):
            new.add_query(place, query, text, language)
    for path in source.some(f"corpus/{of_split}"):
        for place, (document, text) in source.rows(path, "_id", "text"):
            if text == "":
                source.note(
                    place.problem(f"document {document!r} has an empty text, which NanoBEIREvaluator leaves out")
                )
            else:
                new.add_document(place, document, text)
