"""Puts the report together."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.evaluation.details import Story
from jobs.evaluation.report.breakdowns import by_language, by_length
from jobs.evaluation.report.leaderboard import leaderboard, set_by_set, summary
from jobs.evaluation.report.movers import moved_queries
from jobs.evaluation.report.origin import how_it_was_made
from jobs.evaluation.report.published import published
from jobs.evaluation.report.scores import distributions, probabilities
from jobs.evaluation.report.speed import speed
from jobs.evaluation.report.words import Results
from jobs.report.html import Html
from jobs.report.page import Section, page


def report(results: Results, stories: Sequence[Story]) -> str:
    """The text of the HTML file; a part that has nothing to say is left out."""
    parts: list[tuple[str, Html | None]] = [
        ("Leaderboard", leaderboard(results)),
        ("Set by set", set_by_set(results)),
        ("Languages", by_language(results)),
        ("Speed", speed(results)),
        ("Scores", distributions(results)),
        ("Scores as probabilities", probabilities(results)),
        ("Length of documents", by_length(results)),
        ("Queries that moved", moved_queries(results, stories)),
        ("Published figures", published(results)),
        ("How this was made", how_it_was_made(results)),
    ]
    sections = [Section(title, body) for title, body in parts if body is not None]
    return page("How good are these rerankers?", sections, summary(results), footer(results))


def footer(results: Results) -> str:
    """The last line."""
    day = results["created"].partition("T")[0]
    return f"Made by crossray {results['versions']['crossray']} on {day}. This file needs no network."
