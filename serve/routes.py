"""The routes: each reads a body by its schema, asks the Endpoint, and answers by the schema. No logic beyond that."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from fastapi import Body, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.routing import Match
from typing_extensions import override  # in typing from Python 3.12

from serve import docs_page, metrics_page
from serve.answers import answer_of
from serve.endpoint import Endpoint
from serve.error_bodies import ERROR_RESPONSES
from serve.gate import DEFAULT_BODY_LIMITS, STREAM_PATH, BodyLimits, Gate
from serve.recent import Recent
from serve.schemas import (
    AnyRerankRequest,
    CohereAnswer,
    CohereRequest,
    DialectRequest,
    InfoAnswer,
    InvocationAnswer,
    InvocationRequest,
    ModelsAnswer,
    PlainInvocationRequest,
    PlainRequest,
    PlainTokenizeRequest,
    QueriesAnswer,
    QueriesRequest,
    RerankAnswer,
    RerankRequest,
    ScoreAnswer,
    ScoreRequest,
    StreamRequest,
    TeiRequest,
    TeiScore,
    TeiToken,
    TeiTokenizeRequest,
    VllmRerankAnswer,
    VllmRerankRequest,
    VllmTokenizeRequest,
    VllmTokens,
    example_of,
    info_answer,
    models_answer,
)
from serve.streaming import DEFAULT_LIMITS, DuplexResponse, StreamLimits, answer_stream

READY_FRESH_SECONDS = 1.0
"""Time for which an answer of /ready is good."""
PAGE = Path(__file__).parent / "page"
MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".json": "application/json"}
"""Browsers refuse scripts with another type, and what the machine's own tables say varies."""
PAGE_HEADERS = {
    "Cache-Control": "no-cache",  # the files' names say nothing of their version; they have an ETag
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

DESCRIPTION = """Cross-encoder reranking: a query and its candidate documents come back in a better order.

The wire formats of Jina (`/v1/rerank`), Cohere (`/v2/rerank`) and text-embeddings-inference (`/rerank`)."""


def create_api(
    endpoint_of: Callable[[], Endpoint],
    stream_limits: StreamLimits = DEFAULT_LIMITS,
    body_limits: BodyLimits = DEFAULT_BODY_LIMITS,
) -> FastAPI:
    """The ASGI app; `endpoint_of` finds the Endpoint of the process that it runs in."""
    api = FastAPI(
        title="Crossray",
        version=version(),
        description=DESCRIPTION,
        redoc_url=None,
        docs_url=None,
        redirect_slashes=False,
    )
    page_files = {"/": PAGE / "index.html"} | {f"/page/{file.name}": file for file in sorted(PAGE.iterdir())}
    paths = frozenset(page_files)
    api.add_middleware(Gate, endpoint_of=endpoint_of, page_paths=paths, body_limits=body_limits)
    for kind in (RequestValidationError, HTTPException):
        api.add_exception_handler(kind, raise_again)
    api.router.route_class = route_with_body(endpoint_of)
    add_inference(api, endpoint_of)
    add_tokenize(api, endpoint_of)
    api.router.route_class = APIRoute
    add_stream(api, endpoint_of, stream_limits)
    add_operations(api, endpoint_of)
    add_docs(api)
    for path, file in page_files.items():
        api.add_route(path, page_file(file), include_in_schema=False)
    return api


NDJSON = "application/x-ndjson"
LINES: dict[str, Any] = {"schema": {"type": "string"}}
KEY = [Depends(HTTPBearer(auto_error=False, scheme_name="key", description="An API key, where the server wants one."))]
"""For /docs, which offers a place for the key then; it is the Gate that checks it."""


def route_with_body(endpoint_of: Callable[[], Endpoint]) -> type[APIRoute]:
    """The class of a route whose function is called with the request and its body, which our reader has read.

    FastAPI would read it on the event loop, whatever it holds; from the function's annotations it makes /docs.
    """

    class RouteWithBody(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
            # Not later: Serve takes the function to another process, where the names of its annotations are unknown.
            self.body_type = get_type_hints(endpoint, include_extras=True)["body"]
            super().__init__(path, endpoint, **settings)

        @override
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            kind: TypeAdapter[Any] = TypeAdapter(self.body_type)

            async def handle(request: Request) -> Response:
                body = await endpoint_of().bodies.read(kind, await request.body())
                response: Response = await self.endpoint(request, body)
                return response

            return handle

    return RouteWithBody


def add_inference(api: FastAPI, endpoint_of: Callable[[], Endpoint]) -> None:
    """Adds the routes that rank the lists of one body, a route for each dialect."""

    async def answer(request: Request, body: DialectRequest | QueriesRequest) -> Response:
        return await ranked(endpoint_of(), request, body)

    @api.post("/v1/rerank", **documented(RerankAnswer | QueriesAnswer, Jina=RerankRequest, Several=QueriesRequest))
    async def rerank(request: Request, body: Annotated[AnyRerankRequest, Body()]) -> Response:
        """Jina's API; Cohere's v1 clients use it too. With `queries`, which is ours, a list is ranked for each."""
        return await answer(request, body)

    @api.post("/v2/rerank", **documented(CohereAnswer, Cohere=CohereRequest))
    async def rerank_cohere(request: Request, body: CohereRequest) -> Response:
        """Cohere's API."""
        return await answer(request, body)

    @api.post("/rerank", **documented(VllmRerankAnswer | list[TeiScore], TEI=TeiRequest, vLLM=VllmRerankRequest))
    async def rerank_plain(request: Request, body: Annotated[PlainRequest, Body()]) -> Response:
        """TEI's API for a body with `texts`, else vLLM's: Jina's, and an `id` in the answer."""
        return await answer(request, body)

    @api.post("/", include_in_schema=False)  # /docs would have to show the page too, whose address this is
    async def rerank_tei(request: Request, body: TeiRequest) -> Response:
        """TEI's API at its second address."""
        return await answer(request, body)

    @api.post("/v1/score", **documented(ScoreAnswer, vLLM=ScoreRequest))
    @api.post("/score", **documented(ScoreAnswer, vLLM=ScoreRequest))
    async def score(request: Request, body: ScoreRequest) -> Response:
        """vLLM's API: a score for each pair, in the order sent."""
        return await answer(request, body)

    @api.post(
        "/invocations",
        **documented(
            RerankAnswer | InvocationAnswer | list[TeiScore] | ScoreAnswer,
            SageMaker=InvocationRequest,
            TEI=TeiRequest,
            vLLM=ScoreRequest,
            Jina=RerankRequest,
        ),
    )
    async def invocations(request: Request, body: Annotated[PlainInvocationRequest, Body()]) -> Response:
        """On SageMaker: Jina's client for it wraps its body in `data`. Else TEI's API for a body with `texts`, vLLM's
        scores for one with `text_1` or its other names, and Jina's."""
        return await answer(request, body)


def add_tokenize(api: FastAPI, endpoint_of: Callable[[], Endpoint]) -> None:
    """Adds the route that clients count tokens with."""

    @api.post(
        "/tokenize",
        **documented(VllmTokens | list[list[TeiToken]], TEI=TeiTokenizeRequest, vLLM=VllmTokenizeRequest),
    )
    async def tokenize(_: Request, body: Annotated[PlainTokenizeRequest, Body()]) -> Response:
        """TEI's API for a body with `inputs`, else vLLM's."""
        headers = headers_with(body.warnings)
        return Response(await endpoint_of().tokenize(body), media_type="application/json", headers=headers)


def documented(model: Any, **requests: type[BaseModel]) -> dict[str, Any]:
    """What /docs says of a route that answers with `model`; of each of its requests it has an example, by dialect."""
    examples = {dialect: {"value": example_of(request)} for dialect, request in requests.items()}
    return {
        "responses": {200: {"model": model}, **ERROR_RESPONSES},
        "tags": ["inference"],
        "dependencies": KEY,
        # Tools that offer a form for a route would else begin with {}, since some of the bodies are one of several.
        "openapi_extra": {"requestBody": {"content": {"application/json": {"examples": examples}}}},
    }


async def ranked(endpoint: Endpoint, request: Request, body: DialectRequest | QueriesRequest) -> Response:
    """The lists of a body, ranked, in the form of the dialect that the body is written in."""
    answer = await answer_of(endpoint, body, request.state.request_id, timings=request.state.timings)
    return JSONResponse(answer, headers=headers_with(body.warnings))


def headers_with(warnings: Sequence[str]) -> dict[str, str]:
    """The header for the warnings, which is there for all dialects, since two answer with a mere list."""
    return {"X-Crossray-Warning": " ".join(warnings)} if warnings else {}


def add_stream(api: FastAPI, endpoint_of: Callable[[], Endpoint], limits: StreamLimits) -> None:
    """Adds the route that ranks line by line."""
    two_lines = "".join(f"{json.dumps(example_of(StreamRequest), ensure_ascii=False)}\n" for _ in range(2))

    @api.post(
        STREAM_PATH,
        tags=["inference"],
        dependencies=KEY,
        responses={200: {"content": {NDJSON: LINES}, "description": "A line for each line."}, **ERROR_RESPONSES},
        response_class=Response,  # without a type of its own: errors are JSON
        openapi_extra={"requestBody": {"content": {NDJSON: {**LINES, "examples": {"NDJSON": {"value": two_lines}}}}}},
    )
    async def rerank_stream(request: Request) -> Response:
        """One request of /v1/rerank a line, with an `id` of its own; an answer a line, as they are ready."""
        return DuplexResponse(answer_stream(endpoint_of(), request.receive, request.state.request_id, limits))


def add_operations(api: FastAPI, endpoint_of: Callable[[], Endpoint]) -> None:
    """Adds the routes for those who run the server."""
    readiness = Recent(lambda: endpoint_of().check_ready(), READY_FRESH_SECONDS)
    metrics_now = Recent(metrics_page.collect, metrics_page.FRESH_SECONDS)

    @api.get(
        "/v1/models",
        tags=["operations"],
        dependencies=KEY,
        responses={status: ERROR_RESPONSES[status] for status in (401, 503)},
    )
    async def models() -> ModelsAnswer:
        """The model that is served, its effective lengths, and what decides its scores."""
        endpoint = endpoint_of()
        return models_answer(endpoint.args.name, await endpoint.describe())

    @api.get(
        "/info",
        tags=["operations"],
        dependencies=KEY,
        responses={status: ERROR_RESPONSES[status] for status in (401, 503)},
    )
    async def info() -> InfoAnswer:
        """The model that is served, as TEI tells it."""
        endpoint = endpoint_of()
        return info_answer(endpoint.args.name, await endpoint.describe(), endpoint.args.max_documents, version())

    @api.get("/health", tags=["operations"])
    async def health() -> dict[str, str]:
        """200 as long as this process lives."""
        return {"status": "alive"}

    @api.get("/ready", tags=["operations"], responses={503: ERROR_RESPONSES[503]})
    @api.get("/ping", tags=["operations"], responses={503: ERROR_RESPONSES[503]})
    async def ready() -> dict[str, str]:
        """200 when a replica answers."""
        await readiness.get()
        return {"status": "ready"}

    @api.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Our metrics in Prometheus' form, of all processes of the app."""
        return PlainTextResponse(await metrics_now.get(), media_type=metrics_page.MEDIA_TYPE)


def add_docs(api: FastAPI) -> None:
    """Adds /docs, a page without scripts."""

    async def docs(_: Request) -> Response:
        return HTMLResponse(docs_page.render(api.openapi()), headers=PAGE_HEADERS)

    api.add_route("/docs", docs, include_in_schema=False)


def page_file(file: Path) -> Callable[[Request], Any]:
    """The route of one of the page's files."""
    media_type = MEDIA_TYPES.get(file.suffix, "image/svg+xml")

    async def send_file(_: Request) -> Response:
        return FileResponse(file, media_type=media_type, headers=PAGE_HEADERS)

    return send_file


async def raise_again(request: Request, error: Exception) -> Response:
    """Raises the error again, for the Gate: all errors are answered there. A 405 gets all methods of its path."""
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        error.headers = {"Allow": ", ".join(methods_at(request))}
    raise error


def methods_at(request: Request) -> list[str]:
    """The methods that the request's path may be asked with; the Gate answers HEAD wherever there is a GET."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods
    return sorted(found | {"HEAD"} if "GET" in found else found)


def version() -> str:
    """The version of the installed package; `source` where it is not installed."""
    try:
        return importlib.metadata.version("crossray")
    except importlib.metadata.PackageNotFoundError:
        return "source"
