"""The benchmark's command line; its figures are for idle machines, by hand."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from serve import benchmark


@pytest.mark.parametrize("url", ["http://example.org", "http://10.0.0.1:8000"])
def test_no_other_machine_is_loaded(url: str) -> None:
    result = CliRunner().invoke(benchmark.app, ["load", url])
    assert result.exit_code == 2
    assert "only servers on this machine" in result.output
