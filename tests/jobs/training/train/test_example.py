"""The example of docs/training.md, as a reader would follow it: the config and the two commands that stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

DOCS = Path(__file__).parents[4] / "docs" / "training.md"
TOPICS = ("refund", "shipping", "password", "invoice", "warranty", "delivery", "account", "coupon", "size", "return")
KINDS = ("policy", "form", "help page", "status", "question", "limit", "address", "date")


@pytest.mark.slow
def test_the_ten_minutes_of_the_documentation(tmp_path: Path) -> None:
    text = DOCS.read_text()
    [config] = re.findall(r"```toml\n# train\.toml\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"^crossray .*$", text, re.MULTILINE)[:2]
    assert commands[0] == "crossray train train.toml"
    (tmp_path / "train.toml").write_text(config)
    rows = [(f"where is my {topic} {kind}", f"the {topic} {kind}, explained") for topic in TOPICS for kind in KINDS]
    clicks = {"query": [query for query, _ in rows], "positive": [positive for _, positive in rows]}
    pq.write_table(pa.table(clicks), tmp_path / "clicks.parquet")
    log = {"query": ["my coupon date"], "documents": [["the size limit, explained", "the coupon date, explained"]]}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")

    for command in commands:
        words = [sys.executable, "-m", "jobs.cli", *shlex.split(command)[1:]]
        subprocess.run(words, cwd=tmp_path, check=True, timeout=250)

    [row] = pq.read_table(tmp_path / "ranked").to_pylist()
    assert [document["index"] for document in row["ranking"]] == [1, 0]
    model = tmp_path / "my-reranker" / "model"
    assert "| clicks | our own logs | 80 |" in (model / "README.md").read_text()
    for name in ("curve.csv", "curve.png", "_summary.json"):
        assert (model.parent / name).exists()
