"""CodeSearchNet: lines {url, language, docstring_tokens, code_tokens, ...}; a docstring is to find its function.

Query and document are the tokens, as the benchmark's own models and CodeXGLUE take them: `code` itself still has the
docstring in it. All functions that are given are the pool. Files as
https://github.com/github/CodeSearchNet#schema--format describes them, in LANGUAGE/final/jsonl/SPLIT.
"""

from __future__ import annotations

from .reading import Asked, Format, Source
from .writing import NewSet, as_id

FORMAT = Format(
    files="the folder of a language of https://huggingface.co/datasets/code-search-net/code_search_net (data/*.zip), "
    "such as python/final/jsonl/test",
    publisher="https://github.com/github/CodeSearchNet#schema--format",
    measure="MRR@10",
    split="test",
    flags=("split", "languages"),
    languages=("go", "java", "javascript", "php", "python", "ruby"),
)


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads the functions of a split; raises ConfigError."""
    wanted = asked.languages or FORMAT.languages
    for path in source.some(f"*_{asked.split}_*.jsonl"):
        for place, row in source.objects(path):
            language, url = row.get("language"), as_id(row.get("url"))
            query, code = joined(row.get("docstring_tokens")), joined(row.get("code_tokens"))
            if language not in FORMAT.languages:
                told = f"the language is {language!r}, which is none of {', '.join(FORMAT.languages)}"
                source.note(place.problem(told))
            elif language not in wanted:
                new.by_rule["functions of other languages"] += 1
            elif not query or not code:
                source.note(place.problem("has no `docstring_tokens` or no `code_tokens`"))
            elif url is None:
                source.note(place.problem(f"the url is {row.get('url')!r}, which cannot be used as an id"))
            elif url in new.documents:
                source.note(place.problem(f"has the url {url!r}, which stands above already"))
            else:
                new.judge(place, url, url, 1)
                new.add_query(place, url, query, language)
                new.add_document(place, url, code)


def joined(tokens: object) -> str | None:
    """The tokens with spaces between; None where there are none."""
    if not isinstance(tokens, list) or not all(isinstance(one, str) for one in tokens):
        return None
    return " ".join(tokens).strip() or None
