"""A server that the page can talk to without a model: the page's files, a ranking by hash, and refusals on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, NamedTuple

PAGE = files("serve").joinpath("page")
MODEL = "tests/reranker"
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
JSON = "application/json"


class Answer(NamedTuple):
    """What goes back over the wire."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def json_answer(status: int, body: Any, **headers: str) -> Answer:
    """`body` as JSON; underscores in the names of headers become hyphens."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(body).encode(), {"Content-Type": JSON} | names)


@dataclass
class Stub:
    """What a test tells the server, and what it saw."""

    base_url: str = ""
    api_key: str = ""
    """The only key that is let in; "" lets everyone in."""
    refusal: Answer | None = None
    """The answer to every request for a ranking."""
    may_answer: threading.Event = field(default_factory=threading.Event)
    """Clear it, and requests for a ranking wait."""
    model: dict[str, Any] = field(default_factory=dict)
    """What the list of models says of the one there is, besides its name and limit."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The bodies that came to /v1/rerank."""

    def answer(self, path: str, authorization: str, body: bytes) -> Answer:
        """The answer to one request."""
        if path.startswith("/v1/") and self.api_key and authorization != f"Bearer {self.api_key}":
            return json_answer(401, {"detail": "Unauthorized"})
        if path == "/v1/models":
            return json_answer(200, {"object": "list", "data": [{"id": MODEL, "max_length": 1024} | self.model]})
        if path == "/v1/rerank":
            request = json.loads(body)
            self.requests.append(request)
            self.may_answer.wait(timeout=10)
            return self.refusal or json_answer(200, ranked(request))
        return page_file("index.html" if path == "/" else path.removeprefix("/page/"))


def page_file(name: str) -> Answer:
    """A file of the page, or 404."""
    file = PAGE.joinpath(name)
    if not file.is_file():
        return json_answer(404, {"detail": "Not Found"})
    media_type = TYPES.get(name.rpartition(".")[2], JSON)
    return Answer(200, file.read_bytes(), {"Content-Type": media_type, "Content-Security-Policy": POLICY})


def score(query: str, document: str) -> float:
    """A number from 0 to 1: the same for the same texts, and without any meaning."""
    return int.from_bytes(hashlib.sha256(f"{query}\0{document}".encode()).digest()[:4]) / 2**32


def ranked(request: dict[str, Any]) -> dict[str, Any]:
    """The answer of /v1/rerank to `request`."""
    documents = request["documents"]
    results: list[dict[str, Any]] = [
        {"index": index, "document": {"text": text}, "relevance_score": score(request["query"], text)}
        for index, text in enumerate(documents)
    ]
    results.sort(key=lambda result: -result["relevance_score"])
    tokens = sum(map(len, documents))
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    return {"model": request["model"], "usage": usage, "results": results[: request.get("top_n")]}


@contextmanager
def serve_page() -> Iterator[Stub]:
    """The stub on a free port of 127.0.0.1, until the block ends."""
    stub = Stub()
    stub.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = stub.answer(self.path, self.headers.get("Authorization", ""), body)
            with suppress(ConnectionError):  # the page may have stopped waiting
                self.reply(answer)

        do_POST = do_GET

        def reply(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub.base_url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            stub.may_answer.set()
            server.shutdown()
            thread.join()
