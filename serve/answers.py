"""A request to rank, in any dialect -> the JSON of its answer; for routes and for the lines of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines.errors import CrossrayError
from serve.error_answers import as_app_error, not_valid
from serve.lanes import Lane
from serve.schemas import DialectRequest, QueriesRequest, Refused, RerankTask, Served

if TYPE_CHECKING:
    from serve.endpoint import Endpoint, Timings


async def answer_of(
    endpoint: Endpoint,
    body: DialectRequest | QueriesRequest,
    request_id: str,
    lane: Lane = Lane.ONLINE,
    timings: Timings | None = None,
) -> Any:
    """The answer, in the form of the dialect that the body is written in. Raises what `Endpoint.rank` does."""
    served = Served(endpoint.args.name, request_id, endpoint.args.return_documents)
    if isinstance(body, QueriesRequest):
        endpoint.check_model(body.model)
        tasks = body.tasks()
        checked = [
            task if isinstance(task, RerankTask) else not_valid(errors_at(place, task))
            for place, task in enumerate(tasks)
        ]
        outcomes = await endpoint.rank_each(checked, lane, timings)
        answers = [refused(one) if isinstance(one, CrossrayError) else one for one in outcomes]
        return body.with_warnings(body.answer(tasks, answers, served))
    lists = body.tasks()
    rankings = await endpoint.rank(lists, lane, timings)
    return body.with_warnings(body.answer(lists, rankings, served))


def errors_at(place: int, error: ValidationError) -> list[Any]:
    """What is wrong with the query at this place.

    Without what was sent: to look in each of a thousand queries for what was meant would take seconds, and `warnings`
    say it for all of them.
    """
    errors = error.errors(include_url=False, include_input=False)
    return [{**one, "loc": ("queries", place, *one["loc"])} for one in errors]


def refused(error: CrossrayError) -> Refused:
    """What is said of one of several queries in place of its ranking."""
    known = as_app_error(error)
    return {"detail": known.message, "code": known.code}
