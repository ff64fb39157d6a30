"""The leaderboard as Markdown."""

from __future__ import annotations

from jobs.evaluation.markdown import leaderboard


def test_the_best_order_of_each_set_is_bold_and_the_ceiling_is_not() -> None:
    def mean(value: float) -> dict[str, dict[str, float]]:
        return {"nDCG@10": {"mean": value}, "MRR@10": {"mean": 0.0}}

    rows = {"first stage": mean(0.5), "a|b": mean(0.61239), "best possible": mean(0.9)}
    large = {"first stage": mean(100.0), "a|b": mean(20.0), "best possible": mean(100.0)}
    one = {"measures": ["nDCG@10", "MRR@10"], "queries": 50, "queries_in_all": 1500, "rows": rows}
    tied = one | {"queries": 1500, "rows": rows | {"first stage": mean(0.61241)}}
    assert leaderboard({"sets": {"small": one, "tied": tied, "large": one | {"rows": large}}}) == (
        "| set | measure | first stage | a\\|b | best possible |\n"
        "| --- | --- | ---: | ---: | ---: |\n"
        "| small (50 of 1,500) | nDCG@10 | 0.500 | **0.612** | 0.900 |\n"
        "| tied (1,500) | nDCG@10 | **0.612** | **0.612** | 0.900 |\n"
        "| large (50 of 1,500) | nDCG@10 | **100.000** | 20.000 | 100.000 |\n"
    )
