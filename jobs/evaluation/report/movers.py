"""The section on the queries that gained or lost the most, with both lists side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from jobs.evaluation.comparison import FIRST_STAGE
from jobs.evaluation.details import Ranked, Story
from jobs.evaluation.report.words import Results, three
from jobs.report.html import Html, element, joined, paragraphs

SHOWN = 5
"""Documents at the top of each list, besides the first relevant one where that stands lower."""
CUT = 240
"""Characters of a text that are shown."""


def moved_queries(results: Results, stories: Sequence[Story]) -> Html | None:
    """What opens for each set and model; None where no query moved."""
    if not stories:
        return None
    told = paragraphs(
        f"For each set and model the queries whose measure rose or fell the most over the {FIRST_STAGE}. To the left "
        f"are the first {SHOWN} documents as they came, to the right as the model ranks them; an edge marks what is "
        "graded as relevant. Look here first for what is wrong: with the model, or with the grades."
    )
    parts = []
    for (name, row), found in groupby(stories, key=lambda story: (story.set_name, story.row)):
        of_row = list(found)
        gained = sum(story.after > story.before for story in of_row)
        title = joined([element("strong", name), f" · {row}: {gained} gained, {len(of_row) - gained} lost"])
        measure = results["sets"][name]["measure"]
        parts.append(element("details", element("summary", title), *(one_story(story, measure) for story in of_row)))
    return joined([told, *parts])


def one_story(story: Story, measure: str) -> Html:
    """A query with its lists."""
    better = story.after > story.before
    change = element(
        "span",
        f"{'▲' if better else '▼'} {measure} {three(story.before)} → {three(story.after)}",
        class_="good" if better else "bad",
    )
    columns = [
        element("div", element("h4", title), ranks(documents), places(documents))
        for title, documents in zip((FIRST_STAGE.capitalize(), story.row), story.lists, strict=True)
    ]
    return joined(
        [
            element("h3", cut(story.query), dir="auto"),
            element("p", change, element("span", f" · query {cut(story.query_id)}", class_="quiet")),
            element("div", *columns, class_="pair"),
        ]
    )


def ranks(documents: Sequence[Ranked]) -> Html:
    """The top of a list, with the first relevant document where that stands lower."""
    shown = list(enumerate(documents[:SHOWN], 1))
    lower = [(rank, one) for rank, one in enumerate(documents, 1) if is_relevant(one) and rank > SHOWN]
    if lower and not any(is_relevant(one) for _, one in shown):
        shown.append(lower[0])
    return element("ol", *(ranked(rank, one) for rank, one in shown), class_="ranks")


def ranked(rank: int, one: Ranked) -> Html:
    """A document, with its grade."""
    grade = "not graded" if one.grade is None else f"grade {one.grade}"
    about = element("small", f"{cut(one.document)} · {grade}")
    text = element("div", cut(one.text), dir="auto")
    return element("li", about, text, value=rank, class_="hit" if is_relevant(one) else None)


def places(documents: Sequence[Ranked]) -> Html:
    """Where the relevant documents stand."""
    found = [str(rank) for rank, one in enumerate(documents, 1) if is_relevant(one)]
    told = f"relevant: place {', '.join(found[:10])}{', …' if len(found) > 10 else ''}" if found else "nothing relevant"
    return element("p", f"{told} of {len(documents)}", class_="quiet")


def is_relevant(one: Ranked) -> bool:
    """Whether somebody graded it above 0."""
    return one.grade is not None and one.grade > 0


def cut(text: str) -> str:
    """The beginning of a text, with blanks in the place of line breaks."""
    words = " ".join(text.split())
    return words if len(words) <= CUT else words[: CUT - 1].rstrip() + "…"
