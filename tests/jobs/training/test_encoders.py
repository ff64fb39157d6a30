"""What tells the vectors of one encoder from those of another."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.training.encoders import EncoderSettings
from tests.pipelines.training.test_embedding import as_before_version_6, saved


def test_what_changes_a_vector_is_in_the_identity(bert_directory: Path, tmp_path: Path) -> None:
    """A bare transformer is what it was before there were other ways to pool."""
    bare = EncoderSettings(str(bert_directory)).identity()
    assert bare == {"files": bare["files"], "query_prefix": "", "passage_prefix": "", "max_length": 512, "num_gpus": 0}
    folder = saved(bert_directory, tmp_path / "dense", "cls")
    as_before_version_6(folder, "cls", max_seq_length=20, do_lower_case=True)
    found = EncoderSettings(str(folder)).identity()
    assert {"max_length": 20, "pooling": "cls", "lower_case": True}.items() <= found.items()
    assert EncoderSettings(str(folder), max_length=99).identity()["max_length"] == 99
    prompts = {"prompts": {"query": "q: ", "document": "d: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    found = EncoderSettings(str(folder), passage_prefix="").identity()
    assert (found["query_prefix"], found["passage_prefix"]) == ("q: ", "")
