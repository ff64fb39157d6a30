"""Makes a model directory of what a kit trained: calibrated on the lists that were held back, loadable everywhere.

    python -m pipelines.training.export KIT TRAINED --base MODEL --output DIR

With several TRAINED the model has the mean of their weights. The mean of runs that began from the same encoder and went
different ways (other seeds, rates, losses) often ranks better than each of them, above all on texts unlike those of the
training (Wortsman et al. 2022, "Model soups").
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..calibration import Calibration
from ..encoder import PackedEncoder
from ..errors import ModelError
from .attention import training_attention
from .base import Base, EightBits, check_free, load_base, write_model
from .batches import BatchMaker
from .calibration import FOLDED_IN, fold_in, platt
from .kit import LISTS, Kit
from .token_lists import TokenLists
from .validation import labelled_pairs, score_lists

NO_LISTS = "no list is held back with a positive and another label; make the kit with more queries"


def held_back_pairs(encoder: PackedEncoder, lists: TokenLists, kit: Kit) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels (0 or 1) of the labelled pairs of all lists that were held back, float32 [pairs] each."""
    maker = BatchMaker(lists, kit.layout, torch.device("cpu"))
    longest, longest_query = max(kit.recipe.max_lengths), kit.recipe.max_query_length
    scored = score_lists(encoder, maker, lists, np.flatnonzero(lists.held_back), longest, longest_query)
    logits, labels, _ = labelled_pairs(scored)
    return logits, labels


def mean_encoder(kit: Kit, trained: Sequence[str]) -> PackedEncoder:
    """The encoder whose weights are the mean of those in `trained`: folders that `kit train` wrote, or models.

    Raises ValueError for a model of other sizes or special tokens than the kit's, and for one without a head.
    """
    encoders = []
    for name in trained:
        if (Path(name) / "weights-0.bin").is_file():
            encoders.append(kit.encoder(Path(name)))
        else:
            model = load_base(name)
            check_fits(kit, model)
            if not model.has_head:
                raise ValueError(f"{name} has no classification head; give what was trained from it")
            encoders.append(model.encoder)
    mean = encoders[0]
    weights = [encoder.state_dict() for encoder in encoders]
    mean.load_state_dict({key: torch.stack([one[key] for one in weights]).mean(dim=0) for key in weights[0]})
    return mean


def check_fits(kit: Kit, model: Base) -> None:
    """Raises ValueError for a model of other sizes or special tokens than the kit's."""
    if (kit.shape, kit.layout) != (model.spec.shape, model.layout):
        raise ValueError(
            f"{model.name} has other sizes or special tokens than the kit; give what the kit was made from, or what "
            "was trained from that"
        )


def export(
    folder: Path,
    trained: Sequence[str],
    base_name: str,
    output: Path,
    *,
    eight_bits: EightBits = EightBits.NONE,
) -> tuple[float, float]:
    """Writes the model directory; returns Platt's scale and bias, which its classifier holds now.

    Raises ValueError as `mean_encoder`, for a base of other sizes or special tokens than the kit's, where nothing can
    be fitted, and where the scale is 0 or less; FileExistsError where something lies at `output`.
    """
    check_free(output)
    kit, base = Kit.load(folder), load_base(base_name)
    check_fits(kit, base)
    encoder = mean_encoder(kit, trained)
    encoder.attention = training_attention(torch.device("cpu"))
    logits, labels = held_back_pairs(encoder, TokenLists.load(folder / LISTS), kit)
    if not labels.any() or labels.all():
        raise ValueError(NO_LISTS)
    scale, bias = platt(torch.from_numpy(logits), torch.from_numpy(labels))
    if scale <= 0:
        raise ValueError(
            f"on the lists of {folder} that are held back relevant passages have on average no higher logits than "
            f"others (Platt's scale is {scale:.3g}), so scores cannot be calibrated; train the model longer, or at a "
            "lower rate"
        )
    fold_in(encoder, scale, bias)
    folded = Calibration(1, 0, "", pairs=len(labels), relevant=float(labels.mean(dtype=np.float64)), note=FOLDED_IN)
    write_model(encoder, base, output, eight_bits=eight_bits, calibration=folded)
    return scale, bias


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("trained", nargs="+", help="folder that `kit train` wrote, or a model that began as the kit's")
    parser.add_argument("--base", required=True, help="what the kit was made from; the model takes its tokenizer")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--eight-bits",
        type=EightBits,
        choices=list(EightBits),
        default=EightBits.NONE,
        help="what is stored in 8 bits, at half the size (default %(default)s)",
    )
    args = parser.parse_args()
    try:
        scale, bias = export(args.kit, args.trained, args.base, args.output, eight_bits=args.eight_bits)
    except (ModelError, ValueError, FileNotFoundError, FileExistsError) as error:
        parser.error(str(error))
    print(f"Platt: scale {scale:.3f}, bias {bias:.3f}; the model is in {args.output}")


if __name__ == "__main__":
    main()
