"""What several tests of training begin from."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture
def backbone(bert_directory: Path, tmp_path: Path) -> Path:
    """The tiny BERT as a bi-encoder is published: no classifier, no `bert.` before the names."""
    folder = tmp_path / "backbone"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((bert_directory / name).read_bytes())
    tensors = load_file(bert_directory / "model.safetensors")
    kept = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    save_file(kept, folder / "model.safetensors")
    return folder
