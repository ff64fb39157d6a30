"""docs/structures.md is true."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_server_is_named() -> None:
    page = (ROOT / "docs" / "structures.md").read_text(encoding="utf-8")
    files = [one.name for one in (ROOT / "serve").rglob("*.py") if one.name != "__init__.py"]
    assert [name for name in files if f"`{name}`" not in page] == []
