"""One page of the pages of all nodes: only what is ours, each family once."""

from __future__ import annotations

from serve.metrics_page import merge

NODE = """# HELP ray_crossray_tokens Tokens ranked.
# TYPE ray_crossray_tokens counter
ray_crossray_tokens{{WorkerId="{0}"}} 5.0
# HELP ray_object_store_memory Not ours.
# TYPE ray_object_store_memory gauge
ray_object_store_memory{{a="b"}} 1.0
# HELP ray_crossray_seconds Time.
# TYPE ray_crossray_seconds histogram
ray_crossray_seconds_bucket{{le="1",WorkerId="{0}"}} 1
ray_crossray_seconds_count{{WorkerId="{0}"}} 1
"""


def test_families_of_several_nodes_stand_once_with_all_their_samples() -> None:
    page = merge([NODE.format("x"), "", NODE.format("y")])
    assert page.splitlines() == [
        "# HELP crossray_tokens Tokens ranked.",
        "# TYPE crossray_tokens counter",
        'crossray_tokens{WorkerId="x"} 5.0',
        'crossray_tokens{WorkerId="y"} 5.0',
        "# HELP crossray_seconds Time.",
        "# TYPE crossray_seconds histogram",
        'crossray_seconds_bucket{le="1",WorkerId="x"} 1',
        'crossray_seconds_count{WorkerId="x"} 1',
        'crossray_seconds_bucket{le="1",WorkerId="y"} 1',
        'crossray_seconds_count{WorkerId="y"} 1',
    ]


def test_nothing_counted_is_an_empty_page() -> None:
    assert merge(["", ""]) == ""
