"""Figures that models must reach, for whoever ships rerankers: a TOML file with a table for each set.

[scifact]
"nDCG@10" = 0.70
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError
from pipelines.evaluation.measures import parse_measure

Gate = Mapping[str, Mapping[str, float]]
"""By set, then measure: the least that the mean has to be."""


def read_gate(path: str) -> Gate:
    """Reads the file; raises ConfigError where it is not as it should be."""
    try:
        gate = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"--gate: {path} cannot be read: {error}") from None
    for name, least in gate.items():
        if not isinstance(least, dict) or not least:
            raise ConfigError(
                f'--gate: {path}: give a table for each set, such as [{name}] and "nDCG@10" = 0.7 below it'
            )
        for measure, value in least.items():
            parse_measure(measure)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigError(f"--gate: {path}: {measure} of [{name}] is {value!r}; it is a number in 0..1")
    if not gate:
        raise ConfigError(f'--gate: {path} asks for nothing; give a table for each set, and "nDCG@10" = 0.7 below it')
    return gate


def check_sets(gate: Gate, sets: Iterable[str]) -> None:
    """Raises ConfigError for a set of the gate that is not evaluated: nothing would be asked of it."""
    given = sorted(sets)
    for name in gate:
        if name not in given:
            raise ConfigError(f"--gate has [{name}], which is no SET of this evaluation; these are {', '.join(given)}")


def missed(gate: Gate, results: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """What each model misses, a line for each; empty where all reach what they must."""
    return [
        f"{model}: {measure} of {name} is {mean:.4f}, and has to be {least:g}"
        for name, by_measure in gate.items()
        for measure, least in by_measure.items()
        for model in models
        if (mean := results["sets"][name]["rows"][model][measure]["mean"]) < least
    ]
