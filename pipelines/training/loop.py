"""The training loop: token lists and an encoder in, a better encoder and its learning curve out.

torch and numpy suffice; model directories are read and written elsewhere. What a step does depends on the recipe, the
seed and the step's number alone, so a run that was killed goes on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed

from ..encoder import PackedEncoder
from .attention import training_attention
from .batches import BatchMaker, Drawn, PairLayout, draw, lists_of_step
from .calibration import fold_in
from .losses import LOSSES, Loss
from .recipe import Recipe
from .token_lists import TokenLists

SCALED_BY = 64
"""Lists that decide by how much a head is scaled."""
SCALES = np.geomspace(1 / 16, 16, 65)
LESS_THAN_FLAT = 0.95
"""Of the loss that equal logits have: what a model reaches at one scale or another if it knows something."""


class DivergedError(Exception):
    """A step has gradients that are not finite, and would have them again; the weights are those before the step."""


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers below 1e-38 are 0 meanwhile: gradients of lists that are learnt, which make a CPU ten times as slow.

    The thread computes with them again afterwards, since it may be that of somebody else's program.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Progress(NamedTuple):
    """How a run stands after a step."""

    step: int
    """Steps done."""
    loss: float
    positive_first: float
    """Share of the step's labelled lists whose best label got the highest logit; NaN where none is labelled."""
    pairs: int
    """Pairs of this step."""
    seconds: float
    """Seconds that this step took."""


class Term(NamedTuple):
    """The label loss or the teacher loss of a step: what it takes from each list. On the device."""

    loss: Loss
    targets_LC: torch.Tensor
    known_LC: torch.Tensor
    """bool: which passages take part."""
    weights_L: torch.Tensor
    """What the loss of each list is multiplied by, so that all of them add up to the step's loss."""

    def part(self, number: int, of: int) -> Term:
        """The share of one worker, as `Drawn.part` makes it."""
        return Term(self.loss, *(rows[number::of] for rows in self[1:]))

    def of_rows(self, logits_LC: torch.Tensor, rows: slice) -> torch.Tensor:
        """What the lists of `rows` add to the step's loss."""
        losses_L = self.loss.sums(logits_LC, self.targets_LC[rows], self.known_LC[rows])
        return (self.weights_L[rows] * losses_L).sum()


class Trainer:
    """One run: an encoder, its optimizer and the number of steps done.

    Where torch.distributed is initialized, each of its processes has a Trainer of the same lists and recipe. Each
    computes the gradients of its share of a step's lists, the processes add them up, and all take the same step.
    """

    def __init__(
        self,
        encoder: PackedEncoder,
        lists: TokenLists,
        layout: PairLayout,
        recipe: Recipe,
        device: torch.device,
        in_bfloat16: bool | None = None,
    ) -> None:
        """`in_bfloat16` is whether both passes are; by default where the device is fast at it.

        Raises ValueError for lists or a recipe that this encoder cannot be trained with.
        """
        self.recipe = recipe
        self.lists = lists
        self.device = device
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank, self.workers = (
            (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
        )
        if recipe.lists_per_step < self.workers:
            raise ValueError(
                f"lists_per_step is {recipe.lists_per_step}; {self.workers} workers need one each at least"
            )
        self.members = np.flatnonzero(~lists.held_back & (np.diff(lists.list_starts) > 1))
        if not len(self.members):
            raise ValueError(f"none of {len(lists)} lists can be trained on: all are held back or have one passage")
        check_lengths(recipe, encoder, layout)
        self.batches = BatchMaker(lists, layout, device)
        self.encoder = encoder.to(device=device, dtype=torch.float32).train()
        self.encoder.word_embeddings.weight.requires_grad_(recipe.train_embeddings)
        in_bfloat16 = has_fast_bfloat16(device) if in_bfloat16 is None else in_bfloat16
        self.passing = passing_copy(self.encoder) if in_bfloat16 else self.encoder
        self.passing.attention = training_attention(device)
        groups = decayed_apart(encoder, recipe.weight_decay)
        trained = [one for one in encoder.parameters() if one.requires_grad]
        self.zeros = [(one, one.detach() == 0) for one in trained] if recipe.keep_zeros else []
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
        self.step = 0
        self.moments_since = 0
        """The step in which the optimizer's moments were zero."""

    @torch.no_grad()
    def scale_head(self, lists: int = SCALED_BY) -> float:
        """Multiplies the logits by the one of SCALES with which the loss on some lists is least, and returns it.

        No order changes. But a model whose logits are too flat or too steep for the targets would mend that first, by
        steps that push in one direction for all pairs, and in these its order suffers. Call it before the first step.
        A model that knows nothing of these lists yet, to which flat logits would suit best, stays as it is.
        """
        recipe = self.recipe
        numbers = lists_of_step(self.members, 0, min(lists, len(self.members)), recipe.seed)
        drawn = draw(self.lists, numbers, recipe.passages_per_list, recipe.seed, 0)
        terms = self.terms(drawn)
        self.refresh_passing()
        logits_LC = torch.zeros(drawn.is_real_LC.shape, device=self.device)
        for rows, some_LC in self.passes(drawn, max(recipe.max_lengths)):
            logits_LC[rows] = some_LC
        flat, *losses = (float(self.loss(scale * logits_LC, terms)) for scale in (0.0, *SCALES))
        knows = min(losses) < LESS_THAN_FLAT * flat
        best = SCALES[int(np.argmin(losses))] if knows else 1.0
        scale = torch.tensor(best, dtype=torch.float32, device=self.device)
        if self.workers > 1:  # which may round otherwise
            torch.distributed.broadcast(scale, 0)
        fold_in(self.encoder, float(scale), 0.0)
        return float(scale)

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
        """Trains until the recipe's steps are done or `should_stop`; gives the progress after every step."""
        while self.step < self.recipe.steps and not should_stop():
            yield self.train_step()

    @flushed_denormals()
    def train_step(self) -> Progress:
        """One update of the weights."""
        began = time.perf_counter()
        recipe = self.recipe
        numbers = lists_of_step(self.members, self.step, recipe.lists_per_step, recipe.seed)
        drawn = draw(self.lists, numbers, recipe.passages_per_list, recipe.seed, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.step, self.moments_since)
        loss, is_first = self.add_gradients(drawn, recipe.max_length(self.step))
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        loss, first = self.add_up(trained, loss, is_first)
        for parameter, is_zero in self.zeros:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(is_zero, 0.0)
        if not torch.isfinite(torch.nn.utils.clip_grad_norm_(trained, recipe.clip_norm)):
            raise DivergedError(
                f"the gradients of step {self.step + 1} are not finite (loss {loss:.3g}, learning_rate "
                f"{recipe.learning_rate:g}); lower learning_rate, or look for extreme teacher scores"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return Progress(self.step, loss, first, int(drawn.is_real_LC.sum()), time.perf_counter() - began)

    def add_up(self, trained: list[torch.nn.Parameter], loss: float, is_first: np.ndarray) -> tuple[float, float]:
        """Adds up what all workers found: leaves the gradients, returns the loss and the share of best labels first."""
        sums = torch.tensor([loss, len(is_first), is_first.sum()], dtype=torch.float32)
        if self.workers > 1:
            gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
            whole = torch.cat([sums.to(self.device), *(gradient.flatten() for gradient in gradients)])
            torch.distributed.all_reduce(whole)
            sums, *pieces = whole.split([len(sums), *(one.numel() for one in trained)])
            for one, piece in zip(trained, pieces, strict=True):
                one.grad = piece.view_as(one)
        loss, labelled, firsts = sums.tolist()
        return loss, firsts / labelled if labelled else math.nan

    def add_gradients(self, drawn: Drawn, max_length: int) -> tuple[float, np.ndarray]:
        """Adds the gradients of this worker's lists, as parts of the loss of all lists of `drawn`.

        Returns what these lists add to that loss, and `best_is_first` of them.
        """
        total = torch.zeros((), device=self.device)
        self.refresh_passing()
        terms = [term.part(self.rank, self.workers) for term in self.terms(drawn)]
        mine = drawn.part(self.rank, self.workers)
        logits = np.full(mine.labels_LC.shape, -np.inf, dtype=np.float32)
        parts = []
        for rows, logits_LC in self.passes(mine, max_length):
            loss = self.loss(logits_LC, terms, rows)
            loss.backward()
            total += loss.detach()
            parts.append((rows, logits_LC.detach()))
        for rows, part in parts:  # only now, so that a GPU is never waited for between two passes
            logits[rows] = np.where(mine.is_real_LC[rows], part.cpu().numpy(), -np.inf)
        return float(total), best_is_first(logits, mine)

    def passes(self, drawn: Drawn, max_length: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Forward passes over micro-batches of `drawn`: which rows, and their logits [rows, C], 0 in padding."""
        recipe = self.recipe
        for rows, batch in self.batches.micro_batches(
            drawn, max_length, recipe.max_query_length, recipe.micro_batch_tokens
        ):
            real_LC = torch.from_numpy(drawn.is_real_LC[rows]).to(self.device)
            yield rows, torch.zeros(real_LC.shape, device=self.device).masked_scatter(real_LC, self.passing(batch))

    def refresh_passing(self) -> None:
        """Brings the copy that passes are made with to where the encoder stands."""
        if self.passing is not self.encoder:
            with torch.no_grad():
                torch._foreach_copy_(list(self.passing.parameters()), list(self.encoder.parameters()))

    def terms(self, drawn: Drawn) -> list[Term]:
        """The two losses that the recipe mixes, over the lists of a step.

        A passage whose label is unknown takes no part in the label loss; a label below 0 counts as 0. A list without a
        positive label, or without a teacher, has the other loss alone, with all of the weight. A loss that is a mean
        over candidates is one over those of the whole step, however the lists are spread over passes and workers.
        """
        recipe = self.recipe
        labels_LC, teacher_LC = torch.from_numpy(drawn.labels_LC), torch.from_numpy(drawn.teacher_LC)
        labels_LC = labels_LC.clamp(min=0)  # NaN stays
        is_real_LC = torch.from_numpy(drawn.is_real_LC)
        known_LC, scored_LC = is_real_LC & ~labels_LC.isnan(), is_real_LC & ~teacher_LC.isnan()
        has_label, has_teacher = (known_LC & (labels_LC > 0)).any(dim=1), scored_LC.any(dim=1)
        share_L = torch.where(has_label & has_teacher, recipe.label_share, has_label.float())
        terms = []
        for name, targets_LC, told_LC, share in (
            (recipe.label_loss, labels_LC, known_LC, share_L * has_label),
            (recipe.teacher_loss, teacher_LC * recipe.teacher_scale, scored_LC, (1 - share_L) * has_teacher),
        ):
            takes_part = share > 0
            taking_part_LC = told_LC & takes_part[:, None]
            addends = LOSSES[name].counts(targets_LC, taking_part_LC).sum() / takes_part.sum().clamp(min=1)
            weights_L = share / len(share) / torch.where(addends > 0, addends, 1.0)
            terms.append(Term(LOSSES[name], *(one.to(self.device) for one in (targets_LC, taking_part_LC, weights_L))))
        return terms

    def loss(self, logits_LC: torch.Tensor, terms: list[Term], rows: slice = slice(None)) -> torch.Tensor:
        """What the lists of `rows` add to the loss of all lists that the terms are of."""
        return torch.stack([term.of_rows(logits_LC, rows) for term in terms]).sum()

    def save(self, path: Path) -> None:
        """Writes a checkpoint, whole or not at all."""
        state = {
            "encoder": self.encoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "moments_since": self.moments_since,
            "recipe": asdict(self.recipe),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint; raises ValueError, naming what differs, where it has another recipe."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        mine = asdict(self.recipe)
        different = [name for name in mine if state["recipe"].get(name) != mine[name]]
        if different:
            name = different[0]
            raise ValueError(
                f"{path} was made with {name} = {state['recipe'].get(name)!r}, and now it is {mine[name]!r}; "
                "take the old value, or another folder"
            )
        self.encoder.load_state_dict(state["encoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.moments_since = state["step"], state["moments_since"]


def check_lengths(recipe: Recipe, encoder: PackedEncoder, layout: PairLayout) -> None:
    """Raises ValueError for a recipe with pairs that are longer than what the encoder's positions hold."""
    first_position = 0 if layout.padding_id is None else layout.padding_id + 1
    longest = encoder.position_embeddings.num_embeddings - first_position
    if max(recipe.max_lengths) > longest:
        raise ValueError(f"max_lengths reaches {max(recipe.max_lengths)}; the model reads {longest} tokens")


def best_is_first(logits_LC: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Whether the best label got the highest logit, of each list with a positive label; bool."""
    labels_LC = np.nan_to_num(drawn.labels_LC, nan=-1)
    best_L = labels_LC.max(axis=1)
    winners_L = np.take_along_axis(labels_LC, logits_LC.argmax(axis=1)[:, None], axis=1)[:, 0]
    is_first: np.ndarray = (winners_L == best_L)[best_L > 0]
    return is_first


def decayed_apart(encoder: PackedEncoder, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of AdamW: matrices decay towards zero, biases and norms do not."""
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in trained if one.ndim == 1], "weight_decay": 0.0},
    ]


def passing_copy(encoder: PackedEncoder) -> PackedEncoder:
    """A bfloat16 copy of the encoder for both passes: what it finds as gradients goes to the encoder, in float32.

    Where bfloat16 is fast, casting costs more than the products: autocast would do it for every weight and activation
    of every pass. The weights themselves stay in float32, as a step's change is too small for bfloat16, and so does
    the head, as bfloat16 tells logits apart by a hundredth at best.
    """
    passing = copy.deepcopy(encoder).bfloat16()
    passing.head_dense.float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    passing.head_out.float()

    def hand_over(weight: torch.nn.Parameter, copied: torch.Tensor) -> None:
        gradient, copied.grad = copied.grad, None
        assert gradient is not None
        weight.grad = gradient.float() if weight.grad is None else weight.grad.add_(gradient)

    for weight, copied in zip(encoder.parameters(), passing.parameters(), strict=True):
        if copied.requires_grad:
            copied.register_post_accumulate_grad_hook(partial(hand_over, weight))
    return passing


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32 there: on GPUs, and on CPUs with AVX-512 BF16 or AMX."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
