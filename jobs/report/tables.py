"""Tables of a report: real ones, with a caption, and headers for columns and rows. The page's script sorts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.report.html import Html, Inside, element

HEAT_LEVELS = 10
MANY = 9
"""Columns from which on a table has smaller letters on paper, where it cannot scroll."""


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column."""

    title: str
    number: bool = False
    """Set to the right, and sorted with the highest first."""
    sortable: bool = True
    explained: str | None = None
    """More words, in smaller letters below the title."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that is more than a text."""

    content: Inside
    value: float | None = None
    """What the cell is sorted by; without it by its text."""
    css: str | None = None
    """Names of classes of the style sheet: `best`, `quiet`, `good`, `bad`, `chart`, `text`, or of `heat`."""


def table(
    caption: Inside, columns: Sequence[Column], rows: Sequence[Sequence[Cell | Inside]], css: str | None = None
) -> Html:
    """A table, of which the first cell of each row is its header. It scrolls sideways by itself where it is too wide.

    There are buttons to sort it where a column is `sortable` and it has more than one row.
    """
    heads = [head(column, column.sortable and len(rows) > 1) for column in columns]
    body = [
        element("tr", *(row_cell(cell, column, number == 0) for number, (cell, column) in enumerate(cells)))
        for cells in (list(zip(map(as_cell, row), columns, strict=True)) for row in rows)
    ]
    told = element("caption", element("span", caption)) if caption else None
    css = " ".join(name for name in (css, "many" if len(columns) > MANY else None) if name) or None
    inside = element("table", told, element("thead", element("tr", *heads)), element("tbody", *body), class_=css)
    return element("div", inside, class_="wide", tabindex=0, role="group", aria_label="Table, scrolls sideways")


def head(column: Column, sortable: bool) -> Html:
    """The head of a column; the script makes a button of its title where `data-sort` says so."""
    explained = column.explained and element("small", column.explained)
    css = "number" if column.number else None
    direction = ("descending" if column.number else "ascending") if sortable else None
    return element("th", element("span", column.title), explained, scope="col", class_=css, data_sort=direction)


def as_cell(cell: Cell | Inside) -> Cell:
    """A text as a cell."""
    return cell if isinstance(cell, Cell) else Cell(cell)


def row_cell(cell: Cell, column: Column, first: bool) -> Html:
    """One cell of the body."""
    css = " ".join(name for name in ("number" if column.number else None, cell.css) if name) or None
    value = None if cell.value is None else repr(cell.value)
    if first:
        return element("th", cell.content, scope="row", class_=css, data_value=value)
    return element("td", cell.content, class_=css, data_value=value)


def heat(value: float, lowest: float, highest: float) -> str:
    """The class of a cell of a heat map: a tint that says where the value lies between the lowest and the highest."""
    share = (value - lowest) / (highest - lowest) if highest > lowest else 0.0
    return f"heat-{round(HEAT_LEVELS * min(max(share, 0.0), 1.0))}"
