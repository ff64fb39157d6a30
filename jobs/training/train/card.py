"""Writes the model card of a run: its data with their licences, steps, scores and calibration."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from jobs import storage
from jobs.training.train.config import TrainConfig
from jobs.training.train.paths import RunFiles
from pipelines.training.recipe import Recipe

LIBRARIES = ("crossray", "torch", "ray", "tokenizers")


def write_card(output: RunFiles, config: TrainConfig, summary: dict[str, Any], result: dict[str, Any]) -> None:
    """Writes README.md into the model's directory."""
    text = "\n".join(card_lines(output, config, summary, result)) + "\n"
    storage.store_of(output.card).write(output.card, text.encode())


def card_lines(output: RunFiles, config: TrainConfig, summary: dict[str, Any], result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the card."""
    yield from (f"# {config.name}", "", f"A cross-encoder that `crossray train` made out of {summary['base']}.", "")
    yield from ("```bash", f"crossray rerank INPUT OUTPUT --model {output.model}", "```", "")
    yield from (
        "## Data",
        "",
        "| source | licence | rows | lists | held back | not usable |",
        "|---|---|---|---|---|---|",
    )
    for source in summary["sources"]:
        bad = ", ".join(f"{count} {reason}" for reason, count in source["bad_rows"].items()) or "0"
        numbers = f"{source['rows']:,} | {source['lists']:,} | {source['held_back']:,}"
        yield f"| {source['name']} | {source['licence']} | {numbers} | {bad} |"
    yield ""
    yield from validation_lines(config, summary)
    yield from calibration_lines(result)
    yield from training_lines(config, summary)


def validation_lines(config: TrainConfig, summary: dict[str, Any]) -> Iterator[str]:
    """Yields the lines on the order before and after training."""
    if not summary["after"]:
        return
    yield from ("## Validation", "")
    yield f"Measured on {summary['validation_lists']:,} lists whose queries were held back. {candidates_of(config)}"
    yield from ("", f"| source | {summary['measure']} before | after |", "|---|---|---|")
    for name, after in summary["after"].items():
        before = summary["before"].get(name)
        yield f"| {name} | {'' if before is None else f'{before:.3f}'} | {after:.3f} |"
    yield ""


def candidates_of(config: TrainConfig) -> str:
    """What the passages of the lists are that a run is measured on."""
    if any(source.held_back for source in config.sources):
        return "The candidates are those of the sources that were held back whole."
    return (
        "The candidates are those of the training rows, so these figures compare runs and say little of a search "
        "engine's lists."
    )


def calibration_lines(result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines on calibration: the expected error by source, and how often scores come true."""
    yield from ("## Calibration", "")
    if "calibration" not in result:
        yield from (f"Not calibrated: {why_not_calibrated(result['platt'])}", "")
        return
    (scale, bias), found = result["platt"], result["calibration"]
    yield (
        f"Scale {scale:.3f} and bias {bias:.3f} were fitted on every second held-back list (Platt) and are part of the "
        "classifier. Both classes count for one half, so a score of 0.5 is the even bet."
    )
    if not found:
        yield from ("", "How far scores are off is not known: the other lists have labels of one class alone.", "")
        return
    yield from ("", "Measured on the other lists:")
    yield from ("", "| source | pairs | expected calibration error |", "|---|---|---|")
    for name, one in found.items():
        yield f"| {name} | {one['pairs']:,} | {one['error']:.1%} |"
    if "all" in found:
        yield from ("", "| mean score | share of positives | weight |", "|---|---|---|")
        for score, share, weight in found["all"]["bins"]:
            yield f"| {score:.2f} | {share:.2f} | {weight:.2f} |"
    yield ""


def why_not_calibrated(platt: list[float] | None) -> str:
    """Why scale and bias of a run are not part of its classifier; `platt` is None where they could not be fitted."""
    if platt is None:
        return "the held-back lists to fit on have no passage with a label above 0, or none with the label 0."
    return (
        f"fitted on every second held-back list (Platt), the scale is {platt[0]:.3f}. Relevant passages of these lists "
        "have on average no higher logits than others, and such a scale would turn the order round."
    )


def training_lines(config: TrainConfig, summary: dict[str, Any]) -> Iterator[str]:
    """Yields the lines on steps, recipe and versions."""
    workers = config.workers
    kind = f"{workers.gpus:g} GPU(s)" if workers.gpus else f"{workers.cpus:g} CPU(s)"
    is_best = config.validation.keep == "best" and summary["after"]
    yield from ("## Training", "")
    yield (
        f"{summary['steps']:,} of {summary['planned_steps']:,} steps, {summary['pairs']:,} pairs, "
        f"{summary['seconds'] / 60:,.1f} minutes on {workers.count} worker(s) of {kind}; the weights are those of step "
        f"{summary['best_step']:,}{', the best validation' if is_best else ''}."
    )
    default = asdict(Recipe(steps=config.recipe.steps))
    changed = {name: value for name, value in asdict(config.recipe).items() if value != default[name]}
    yield from ("", f"Recipe: {', '.join(f'{name} {value}' for name, value in changed.items()) or 'the default one'}.")
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    yield from ("", f"SHA-256 over config, tokenizer and weights: `{summary['digest']}`.")
    yield from ("", f"Made with {versions}, Python {platform.python_version()}.")
