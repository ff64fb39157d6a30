"""CrossEncoder: token ids of pairs -> logits, in batches under a token budget.

The forward pass is that of the model's family (`pipelines/families/`); it is chosen when the model is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from .attention import select_attention
from .encoder import PackedNetwork
from .errors import ModelRefusedError, is_out_of_memory
from .families import ModelSpec, spec_of
from .families.int8_rows import with_restored_rows
from .linear import pack_linear_layers
from .memory import first_places, pair_digest
from .model_files import ModelFiles, read_tensors, refusals_naming
from .packing import PackedBatch, TokenPair, pack, split_by_token_budget
from .shared_prefixes import SharedBatch, pack_shared, split_by_prefixes

logger = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 2048  # activations of a run stay in the cache; 1,024 to 4,096 measure alike
GPU_BATCH_TOKENS = 65_536


class CrossEncoder:
    """A loaded model on one device."""

    def __init__(self, encoder: PackedNetwork, spec: ModelSpec, max_batch_tokens: int | None = None) -> None:
        self.encoder = encoder
        self.spec = spec
        parameter = next(encoder.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        on_cpu = self.device.type == "cpu"
        self.max_batch_tokens = max_batch_tokens or (CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS)
        # One batch per core beats one batch on all cores: no barriers, and small operations are not split. The
        # thread count that torch gives a thread holds for that thread alone. A single one has its thread too: the
        # C library keeps memory per thread, and callers that come and go had their activations paged in anew.
        self.parallel_batches = torch.get_num_threads() if on_cpu else 1
        self.workers = ThreadPoolExecutor(self.parallel_batches, "batch", torch.set_num_threads, (1,))

    @classmethod
    def load(
        cls, files: ModelFiles, device: torch.device, dtype: torch.dtype, max_batch_tokens: int | None = None
    ) -> CrossEncoder:
        """Reads the weights strictly; raises ModelRefusedError for a model that would score wrongly."""
        spec = spec_of(files)
        tensors = read_tensors(files)
        if pooler := [name for name in tensors if name.startswith(spec.unused)]:
            logger.warning("%s: no score depends on %s, which is left out", files.name, ", ".join(sorted(pooler)))
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
            encoder = spec.network()
        try:
            with refusals_naming(files.directory):
                encoder.load_state_dict(spec.state_dict(with_restored_rows(tensors)), assign=True)
        except RuntimeError as error:
            message = f"the tensors of {files.name} do not have the sizes of its config.json: {error}"
            raise ModelRefusedError(message) from None
        encoder = encoder.to(device=device, dtype=dtype).eval().requires_grad_(False)
        encoder.attention = select_attention(device, dtype)
        if device.type == "cpu" and dtype == torch.float32:
            pack_linear_layers(encoder)
        return cls(encoder, spec, max_batch_tokens)

    def logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        """The logit of each pair, float32 [len(pairs)], in the order given and whatever shares a batch with it.

        Equal pairs run once: a matrix product rounds by a row's place, and equal documents must tie exactly.
        """
        keys = [pair_digest(pair) for pair in pairs]
        first = first_places(keys)
        place_of = {key: place for place, key in enumerate(first)}
        logits = self.distinct_logits([pairs[i] for i in first.values()])
        return logits[np.array([place_of[key] for key in keys], dtype=np.intp)]

    def distinct_logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        """The logit of each pair, in the order given, for pairs of which no two are equal; float32 [len(pairs)]."""
        budget_of = partial(even_budget, max_batch_tokens=self.max_batch_tokens, parallel_batches=self.parallel_batches)
        if self.spec.shares_prefixes:
            runs = list(split_by_prefixes(pairs, budget_of))
        else:
            lengths = [len(pair.input_ids) for pair in pairs]
            runs = list(split_by_token_budget(lengths, budget_of(sum(lengths))))
        batches = ([pairs[i] for i in run] for run in runs)
        logits = np.empty(len(pairs), dtype=np.float32)
        map_batches = self.workers.map if self.device.type == "cpu" else map
        # A GPU works behind our back: while it runs one batch we pack the next, and only then ask for the logits.
        for run, values in zip(runs, list(map_batches(self._forward, batches)), strict=True):
            logits[run] = torch.cat(values).cpu().numpy()
        return logits

    @torch.inference_mode()
    def _forward(self, pairs: Sequence[TokenPair]) -> list[torch.Tensor]:
        """Logits of the pairs, on the device, in one piece, or in more where memory does not suffice for one."""
        try:
            return [self.encoder(self._packed(pairs).to(self.device))]
        except (MemoryError, RuntimeError) as error:
            if len(pairs) == 1 or not is_out_of_memory(error):
                raise
        # Only here is the traceback gone, and with it what it kept in memory.
        torch.cuda.empty_cache()
        tokens = len(self._packed(pairs).input_ids)
        self.max_batch_tokens = min(self.max_batch_tokens, tokens // 2)
        logger.warning("no memory for %d tokens on %s; the token budget is %d now", tokens, self.device, tokens // 2)
        middle = len(pairs) // 2
        return self._forward(pairs[:middle]) + self._forward(pairs[middle:])

    def _packed(self, pairs: Sequence[TokenPair]) -> PackedBatch | SharedBatch:
        """The batch that the model's network takes."""
        return pack_shared(pairs) if self.spec.shares_prefixes else pack(pairs, self.spec.padding_id)


def even_budget(tokens: int, max_batch_tokens: int, parallel_batches: int) -> int:
    """The token budget that gives each of `parallel_batches` threads equally many, equally large batches."""
    rounds = max(1, -(-tokens // (max_batch_tokens * parallel_batches)))
    return min(max_batch_tokens, -(-tokens // (rounds * parallel_batches)) + 1)
