"""The frame of reports: what is escaped, what the policy lets in, and where marks of charts lie."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report.charts import Axis, Point, apart, even_axis, histogram, interval_bar, logarithmic_axis, scatter
from jobs.report.html import Html, element, joined, paragraphs
from jobs.report.page import Section, page
from jobs.report.tables import Cell, Column, heat, table


def test_text_is_escaped_where_it_goes_in_and_html_is_not() -> None:
    assert element("p", '<b>"&', Html("<b>x</b>"), None) == "<p>&lt;b&gt;&quot;&amp;<b>x</b></p>"
    assert element("a", "x", href='"><script>', class_="y", hidden=True, title=None) == (
        '<a href="&quot;&gt;&lt;script&gt;" class="y" hidden>x</a>'
    )
    assert paragraphs("a", None, "", "b") == joined([element("p", "a"), element("p", "b")])


def test_what_no_file_of_html_can_hold_is_replaced() -> None:
    """A lone surrogate could not be written, and a NUL ends some parsers."""
    assert element("p", "a\x00b\ud800c\x1bd\n\t").encode() == "<p>a\ufffdb\ufffdc\ufffdd\n\t</p>".encode()


def test_the_policy_lets_in_the_style_and_the_script_that_are_there_and_nothing_else() -> None:
    text = page("A & B", [Section("First <x>", Html("<p>1</p>")), Section("First <x>", Html("<p>2</p>"))], "lede")
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; ")
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert "<title>A &amp; B</title>" in text
    assert [*re.findall(r'href="#([^"]+)"', text)] == [*re.findall(r'<section id="([^"]+)"', text)]
    assert len(set(re.findall(r'<section id="([^"]+)"', text))) == 2


def test_a_table_has_a_caption_and_headers_of_columns_and_rows() -> None:
    rows = [["a<b", Cell("0.5", 0.5, "best")], ["c", "0.25"]]
    text = table("All", [Column("name"), Column("value", number=True, explained="why")], rows)
    assert "<caption><span>All</span></caption>" in text
    assert '<th scope="row">a&lt;b</th><td class="number best" data-value="0.5">0.5</td>' in text
    assert '<th scope="col" class="number" data-sort="descending"><span>value</span><small>why</small></th>' in text
    assert "data-sort" not in table(None, [Column("name")], [["only one row"]])


def test_tints_go_from_the_lowest_to_the_highest() -> None:
    assert [heat(value, 0.2, 0.6) for value in (0.2, 0.4, 0.6, 0.9)] == ["heat-0", "heat-5", "heat-10", "heat-10"]
    assert heat(0.5, 0.5, 0.5) == "heat-0"


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_an_axis_has_few_ticks_and_all_values_on_it(low: float, width: float) -> None:
    axis = even_axis("x", low, low + width)
    assert axis.low <= low + 1e-6 * width
    assert axis.high >= low + width - 1e-6 * width
    assert 2 <= len(axis.ticks) <= 9
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == 100


@given(st.floats(1e-3, 1e6), st.floats(1, 1e4))
def test_a_logarithmic_axis_has_few_ticks_and_room_at_both_ends(low: float, factor: float) -> None:
    axis = logarithmic_axis("x", low, low * factor)
    assert axis.low < low
    assert axis.high > low * factor
    assert 2 <= len(axis.ticks) <= 13
    assert axis.place(axis.low * (axis.high / axis.low) ** 0.5) == pytest.approx(50)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8))
def test_labels_do_not_lie_on_each_other(places: list[float]) -> None:
    moved = sorted(apart(places))
    assert all(below - above >= 14.999 for above, below in itertools.pairwise(moved))


@pytest.mark.parametrize(("name", "shown"), [("short", ["short"]), ("a/name/that/has/no/room", ["A"])])
def test_a_name_that_is_too_long_stands_below_the_points(name: str, shown: list[str]) -> None:
    axis = Axis("x", 0.0, 1.0)
    text = scatter("t", "d", [Point(name, 0.5, 0.25)], axis, axis)
    assert re.findall(r'<text[^>]* class="label">([^<]+)<', text) == shown
    assert '<circle cx="50%" cy="75%"' in text
    assert (f"<b>A</b> {name}</li>" in text) == (shown == ["A"])


def test_a_bar_is_as_long_as_its_value_says() -> None:
    text = interval_bar(0.4, 0.3, 0.55, "told", most=0.8)
    assert re.findall(r'<rect[^>]* width="([^"]+)"', text) == ["40%"]
    assert '<line x1="30%" y1="10" x2="55%" y2="10" class="whisker">' in text
    assert '<line x1="80%"' in text


def test_bars_of_a_histogram_are_as_high_as_their_shares() -> None:
    x = Axis("score", 0.0, 4.0)
    text = histogram("t", "d", x, [0, 1, 2, 3, 4], ("yes", [0.5, 0.25, 0, 0.25]), ("no", [0, 1.0, 0, 0]))
    heights = [float(one) for one in re.findall(r'<rect[^>]* height="([\d.]+)%"', text)]
    assert heights == pytest.approx([heights[3] * share for share in (0.5, 0.25, 0.25, 1.0)], abs=0.02)
    assert re.findall(r'<svg[^>]* role="img" aria-labelledby="(t\w+) (d\w+)"', text) == [
        tuple(re.findall(r'<(?:title|desc) id="([td]\w+)"', text))
    ]
