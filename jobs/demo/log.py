"""The demo's retrieval log: Python's own documentation as documents, written questions, BM25 as the first stage.

Reranking it and showing the figures are in `jobs.rerank` and `jobs.demo.report`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from types import ModuleType

import pyarrow as pa

from pipelines.errors import missing_packages

MISSING_PACKAGES = missing_packages("the demo", "bm25s ir-measures", "the group demo")
MIN_DOCSTRING_CHARACTERS = 40
NUM_CANDIDATES = 50
LOG_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("documents", pa.list_(pa.struct([("id", pa.string()), ("text", pa.string()), ("score", pa.float64())]))),
        ("relevant", pa.list_(pa.string())),
    ]
)

# Importing these opens a browser or a window, prints, or touches the terminal.
_INTERACTIVE = "antigravity this idlelib tkinter turtle turtledemo readline rlcompleter"
# Tables, tests, the interpreter's own plumbing, and the platforms' halves of os and os.path.
_INTERNAL = (
    "encodings ensurepip lib2to3 pydoc_data test xxsubtype "
    "nt ntpath nturl2path posix posixpath genericpath sre_compile sre_constants sre_parse"
)
# Deprecated and gone in Python 3.12 or 3.13: importing them warns, and nobody should be sent there.
_REMOVED = (
    "aifc asynchat asyncore audioop cgi cgitb chunk crypt distutils imghdr imp mailcap msilib nis nntplib "
    "ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu xdrlib"
)
_SKIPPED_MODULES = frozenset(f"{_INTERACTIVE} {_INTERNAL} {_REMOVED}".split())
_SKIPPED_SUBMODULES = frozenset({"__main__", "test", "tests"})
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Document:
    """One function, class, method or property of the standard library."""

    id: str
    """Qualified name, without a module for builtins: `fileinput.input`, `str.splitlines`."""
    text: str
    """Signature, where Python knows it, and docstring."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question and the ids of the documents that answer it."""

    query_id: str
    query: str
    relevant: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Named:
    """An object of the standard library under one of its names."""

    name: str
    target: object

    @property
    def preference(self) -> tuple[int, bool, int, str]:
        """Sorts an object's names, its usual one first: shallow, not an alias, short, alphabetical."""
        own_name = getattr(self.target, "__name__", None)
        last_part = self.name.rpartition(".")[2]
        return self.name.count("."), own_name not in (None, last_part), len(self.name), self.name


def build_log() -> pa.Table:
    """The log that a search over this machine's Python documentation leaves behind: one row per query, LOG_SCHEMA."""
    documents = standard_library_documents()
    queries = labelled_queries(document.id for document in documents)
    candidates = retrieve(documents, [query.query for query in queries])
    rows = [
        {
            "query_id": query.query_id,
            "query": query.query,
            "documents": [{"id": found.id, "text": found.text, "score": score} for found, score in best],
            "relevant": list(query.relevant),
        }
        for query, best in zip(queries, candidates, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=LOG_SCHEMA)


def standard_library_documents() -> list[Document]:
    """What this machine's Python says about its public functions, classes, methods and properties, sorted by id.

    An object with several names stands under its usual one only. Raises DemoError where Python runs without
    docstrings.
    """
    if sys.flags.optimize >= 2:
        raise DemoError("Python runs with -OO, which removes docstrings; run the demo without -OO or PYTHONOPTIMIZE")
    usual: dict[int, _Named] = {}
    for module in _public_modules():
        for named in _public_members(module):
            identity = id(getattr(named.target, "__func__", named.target))
            known = usual.get(identity)
            if known is None or named.preference < known.preference:
                usual[identity] = named
    documents: dict[tuple[str, str], Document] = {}
    for named in sorted(usual.values(), key=lambda named: named.preference):
        docstring = _docstring(named.target)
        if len(docstring) >= MIN_DOCSTRING_CHARACTERS:
            text = f"{named.name}{_signature(named.target)}\n{docstring}"
            copies = (named.name.rpartition(".")[2], docstring)
            documents.setdefault(copies, Document(named.name, text))
    return sorted(documents.values(), key=lambda document: document.id)


def labelled_queries(document_ids: Iterable[str]) -> list[Query]:
    """The questions of `queries.jsonl` that these documents can answer, in file order.

    Labels were made on Python 3.11; an id that another Python lacks is dropped, and with the last one its question.
    """
    known = frozenset(document_ids)
    queries = []
    for line in resources.files("jobs.demo").joinpath("queries.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        relevant = tuple(document_id for document_id in row["relevant"] if document_id in known)
        if relevant:
            queries.append(Query(row["query_id"], row["query"], relevant))
    return queries


def retrieve(documents: Sequence[Document], queries: Sequence[str]) -> list[list[tuple[Document, float]]]:
    """Per query the documents that share a word with it, best BM25 score first, NUM_CANDIDATES at most.

    Equal scores keep the order of the documents.
    """
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise DemoError(MISSING_PACKAGES) from error

    def words(texts: Sequence[str]) -> list[list[str]]:
        split: list[list[str]] = bm25s.tokenize(list(texts), stopwords="english", return_ids=False, show_progress=False)
        return split

    index = bm25s.BM25()
    index.index(words([document.text for document in documents]), show_progress=False)
    found: list[list[tuple[Document, float]]] = []
    for query_words in words(queries):
        known_words = [word for word in query_words if word in index.vocab_dict]
        if not known_words:  # bm25s fails on a query without words
            found.append([])
            continue
        scores = index.get_scores(known_words)
        best = (-scores).argsort(kind="stable")[:NUM_CANDIDATES]
        found.append([(documents[i], float(scores[i])) for i in best if scores[i] > 0])
    return found


def _public_modules() -> Iterator[ModuleType]:
    for name in sorted(sys.stdlib_module_names - _SKIPPED_MODULES):
        if not name.startswith("_"):
            yield from _importable(name)
    yield from _importable("os.path")


def _importable(name: str) -> Iterator[ModuleType]:
    """The module and the modules inside it; nothing where this platform lacks it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except Exception:  # builds leave modules out in many ways, and a demo can do without them
        return
    yield module
    for inner in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not inner.name.startswith("_") and inner.name not in _SKIPPED_SUBMODULES:
            yield from _importable(f"{name}.{inner.name}")


def _public_members(module: ModuleType) -> Iterator[_Named]:
    """What a module offers, and what its classes define themselves."""
    prefix = "" if module.__name__ == "builtins" else f"{_import_name(module)}."
    for name in sorted(getattr(module, "__all__", None) or vars(module)):
        target = getattr(module, name, None)
        if not name.startswith("_") and _is_offered(target, module):
            yield _Named(prefix + name, target)
            if inspect.isclass(target):
                for inner, attribute in sorted(vars(target).items()):
                    if not inner.startswith("_") and (inspect.isroutine(attribute) or isinstance(attribute, property)):
                        yield _Named(f"{prefix}{name}.{inner}", attribute)


def _import_name(module: ModuleType) -> str:
    return "os.path" if module is sys.modules["os.path"] else module.__name__


def _is_offered(target: object, module: ModuleType) -> bool:
    """Without `__all__` a module offers what it defines, itself or in its C half: `_bisect` for `bisect`."""
    if not (inspect.isclass(target) or inspect.isroutine(target)):
        return False
    if hasattr(module, "__all__") or module.__name__ == "builtins":
        return True
    return getattr(target, "__module__", None) in (module.__name__, f"_{module.__name__}")


def _docstring(target: object) -> str:
    """Its own docstring; a class does not inherit one and adds that of its constructor."""
    if not inspect.isclass(target):
        return _cleaned(getattr(target, "__doc__", None))
    constructor = vars(target).get("__init__")
    about = _cleaned(vars(target).get("__doc__"))
    return f"{about}\n\n{_cleaned(constructor.__doc__) if inspect.isfunction(constructor) else ''}".strip()


def _cleaned(docstring: object) -> str:
    return inspect.cleandoc(docstring) if isinstance(docstring, str) else ""


def _signature(target: object) -> str:
    function = getattr(target, "__func__", target)
    if not callable(function):
        return ""
    try:
        return _MEMORY_ADDRESS.sub("", str(inspect.signature(function)))
    except Exception:  # C functions carry none, or one whose defaults cannot be evaluated, which fails in any way
        return ""
