"""How texts are cut: the lengths of one call, clamped to what the model can read."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from .config import RerankerConfig


@dataclass(frozen=True, slots=True)
class Lengths:
    """The length knobs of RerankerConfig, which a call may change."""

    max_length: int
    max_query_length: int
    overlap_tokens: int
    max_chunks_per_doc: int | None

    @classmethod
    def of(cls, config: RerankerConfig) -> Lengths:
        """The lengths of a configuration, not yet clamped to a model."""
        return cls(config.max_length, config.max_query_length, config.overlap_tokens, config.max_chunks_per_doc)

    def clamped(self, model_limit: int) -> Lengths:
        """These lengths for a model that reads `model_limit` tokens; a query has at most half of what a pair has."""
        max_length = min(self.max_length, model_limit)
        return replace(self, max_length=max_length, max_query_length=min(self.max_query_length, max_length // 2))

    def choices_lost(self, clamped: Lengths) -> set[str]:
        """Names of the lengths that somebody chose (they are not the defaults) and clamping changed."""
        defaults = Lengths.of(RerankerConfig())
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name for name, value in mine.items() if value not in (getattr(defaults, name), getattr(clamped, name))}
