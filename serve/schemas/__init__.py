"""The JSON of every dialect, in and out; the only place its field names are written. No routes, no status codes.

Each request model turns into `RerankTask`s, the one form that the rest of the app works with, and makes the answer of
its dialect from their rankings. Requests are read liberally: what a real client was seen to send is accepted, unknown
fields are ignored (near misses of known ones are named), and null means left out.

synonyms         names of the same field, which may not disagree
near_misses      what no dialect knows, and what was meant by it
unsupported      what dialects know and we cannot do
values           texts, queries and documents: what they may be
tasks            RerankTask and Served, which know no dialect
dialect          what the dialects share; each of the next five has the requests and the answers of one
jina, cohere, tei, vllm, sagemaker
queries          several queries in one request of Jina's, which are tasks that may fail one by one
models           the list of models; what TEI says of one
tokenize         how many tokens texts have, in TEI's and vLLM's form
encoding         bytes to JSON, and the lines of a stream to bytes
"""

from serve.schemas.cohere import CohereAnswer, CohereRequest
from serve.schemas.dialect import DialectRequest, example_of
from serve.schemas.encoding import count_values, parse_json, sent_id, stream_line, why_not_json
from serve.schemas.jina import RerankAnswer, RerankRequest, StreamAnswer, StreamRequest
from serve.schemas.models import InfoAnswer, ModelsAnswer, info_answer, models_answer
from serve.schemas.near_misses import nearest
from serve.schemas.queries import (
    AnyRerankRequest,
    AnyStreamRequest,
    QueriesAnswer,
    QueriesRequest,
    Refused,
    StreamQueriesRequest,
)
from serve.schemas.sagemaker import InvocationAnswer, InvocationRequest, PlainInvocationRequest
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.tei import PlainRequest, TeiRequest, TeiScore
from serve.schemas.tokenize import (
    PlainTokenizeRequest,
    TeiToken,
    TeiTokenizeRequest,
    TokenizeRequest,
    VllmTokenizeRequest,
    VllmTokens,
)
from serve.schemas.unsupported import UNSUPPORTED
from serve.schemas.values import MAX_DEPTH, MAX_DOCUMENTS, UNION_TAGS
from serve.schemas.vllm import ScoreAnswer, ScoreRequest, VllmRerankAnswer, VllmRerankRequest

__all__ = [
    "MAX_DEPTH",
    "MAX_DOCUMENTS",
    "UNION_TAGS",
    "UNSUPPORTED",
    "AnyRerankRequest",
    "AnyStreamRequest",
    "CohereAnswer",
    "CohereRequest",
    "DialectRequest",
    "InfoAnswer",
    "InvocationAnswer",
    "InvocationRequest",
    "ModelsAnswer",
    "PlainInvocationRequest",
    "PlainRequest",
    "PlainTokenizeRequest",
    "QueriesAnswer",
    "QueriesRequest",
    "Refused",
    "RerankAnswer",
    "RerankRequest",
    "RerankTask",
    "ScoreAnswer",
    "ScoreRequest",
    "Served",
    "StreamAnswer",
    "StreamQueriesRequest",
    "StreamRequest",
    "TeiRequest",
    "TeiScore",
    "TeiToken",
    "TeiTokenizeRequest",
    "TokenizeRequest",
    "VllmRerankAnswer",
    "VllmRerankRequest",
    "VllmTokenizeRequest",
    "VllmTokens",
    "count_values",
    "example_of",
    "info_answer",
    "models_answer",
    "nearest",
    "parse_json",
    "sent_id",
    "stream_line",
    "why_not_json",
]
