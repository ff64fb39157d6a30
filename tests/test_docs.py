"""The documentation holds together: what its links, its index and its promises name is there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
INDEX = ROOT / "docs" / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "pipelines" / "embedded" / "README.md"])
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"^ *def (test_\w+)", re.MULTILINE)
NAMED_TEST = re.compile(r"`(test_\w+)`")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {link}" for page in PAGES for link in relative_links(page) if not leads(page, link)
    ]
    assert broken == []


def test_the_index_names_every_page_of_docs() -> None:
    named = {(INDEX.parent / link.partition("#")[0]).resolve() for link in relative_links(INDEX)}
    assert [page.name for page in PAGES if page.parent == INDEX.parent and page not in {*named, INDEX}] == []


def test_the_tests_that_pages_name_are_there() -> None:
    """By their whole names, so that a promise does not outlive the test that shows it."""
    there = {name for path in ROOT.glob("tests/**/test_*.py") for name in TEST.findall(path.read_text("utf-8"))}
    named = {(page.name, name) for page in PAGES for name in NAMED_TEST.findall(prose(page))}
    assert ("security.md", "test_whatever_dies_each_row_comes_out_once") in named
    assert sorted((page, name) for page, name in named if name not in there) == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Ray's ports", "rays-ports"),
        ("Document ids, and pairs in any order", "document-ids-and-pairs-in-any-order"),
        ("The `--where` flag", "the---where-flag"),
        ("See [the page](page.md)", "see-the-page"),
    ],
)
def test_anchors_are_those_of_github(heading: str, anchor: str) -> None:
    assert anchor_of(heading) == anchor


def relative_links(page: Path) -> list[str]:
    """The links of a page that lead to another file or to a heading, as they are written."""
    links = LINK.findall(INLINE_CODE.sub("", prose(page)))
    return [link for link in links if re.match(r"[a-z]+:", link) is None]


def leads(page: Path, link: str) -> bool:
    """Whether the file is there, and has the heading if the link names one."""
    path, _, anchor = unquote(link).partition("#")
    target = page if not path else page.parent / path
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page; of equal headings all but the first get a number."""
    seen: dict[str, int] = {}
    found = set()
    for heading in HEADING.findall(prose(page)):
        anchor = anchor_of(heading)
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


def anchor_of(heading: str) -> str:
    """Lower case, without punctuation, and with a hyphen for each space."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))
