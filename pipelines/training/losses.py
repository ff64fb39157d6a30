"""The losses that a cross-encoder is trained with; models, batches, temperatures and optimizers live elsewhere.

Shapes: L lists (a query with its candidates), C candidates of a list, padded to the longest. Every loss takes the
model's `logits_LC`, `targets_LC` and the bool mask `is_real_LC`, and gives a float32 scalar, which is 0 where nothing
counts. What stands in padding places, NaN and infinity included, reaches neither value nor gradient. Each loss is a
mean, of what is said over its function, and the function itself gives the sums of the lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Sums = Callable[[Tensor, Tensor, Tensor], Tensor]
Counts = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A mean in its two parts, so that whoever has a few lists of a step can add their share of the step's mean."""

    sums: Sums
    """Of logits, targets and mask: what each list adds to the sum, float32 [L]."""
    counts: Counts
    """Of targets and mask: how many addends each list has in the sum, [L]."""

    def __call__(self, logits_LC: Tensor, targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
        """Return the mean over all of these lists."""
        count = self.counts(targets_LC, is_real_LC).sum().clamp(min=1)
        return self.sums(logits_LC, targets_LC, is_real_LC).sum() / count


def mean_over(counts: Counts) -> Callable[[Sums], Loss]:
    """Make a function that gives the sums of lists the mean over what `counts` counts."""
    return lambda sums: Loss(sums, counts)


def lists(_: Tensor, is_real_LC: Tensor) -> Tensor:
    """Count the lists that have a real candidate."""
    return is_real_LC.any(dim=1)


def lists_of_two(_: Tensor, is_real_LC: Tensor) -> Tensor:
    """Count the lists of at least two real candidates."""
    return is_real_LC.sum(dim=1) >= 2


def candidates(_: Tensor, is_real_LC: Tensor) -> Tensor:
    """Count the real candidates of each list."""
    return is_real_LC.sum(dim=1)


def pairs_of_unequal_grades(targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Count the pairs of real candidates, one of which has the higher grade."""
    return _better_and_worse(_filled(targets_LC, is_real_LC), is_real_LC).sum(dim=(1, 2))


# The defaults of sentence-transformers' LambdaLoss.
LAMBDA_MU = 10.0  # the weight of NDCG-Loss2 beside LambdaRank's
LAMBDA_SMALLEST_IDEAL_DCG = 1e-10  # keeps the gains of a list without relevant candidates finite


@mean_over(lists)
def listwise_softmax(logits_LC: Tensor, targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Return each list's cross entropy of softmax(logits) against the grades, divided by their sum.

    Targets are grades >= 0, where 0 means irrelevant. A list whose grades are all 0 adds 0 to the mean over lists.
    Source: the top-one probabilities of ListNet (Cao et al. 2007, "Learning to Rank: From Pairwise Approach to
    Listwise Approach"), with grades in place of their exponentials, so that irrelevant ones weigh nothing.
    """
    grades_LC = _filled(targets_LC, is_real_LC)
    total_L1 = grades_LC.sum(dim=1, keepdim=True)
    wanted_LC = grades_LC / total_L1.masked_fill(total_L1 == 0, 1.0)
    return -(wanted_LC * _log_softmax(logits_LC, is_real_LC)).sum(dim=1)


@mean_over(candidates)
def binary_cross_entropy(logits_LC: Tensor, targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Return each list's cross entropies of sigmoid(logits) against targets in 0..1, summed over its candidates.

    Source: the pointwise loss of monoBERT (Nogueira and Cho 2019, "Passage Re-ranking with BERT").
    """
    losses_LC = functional.binary_cross_entropy_with_logits(
        _filled(logits_LC, is_real_LC), _filled(targets_LC, is_real_LC), reduction="none"
    )
    return losses_LC.masked_fill(~is_real_LC, 0.0).sum(dim=1)


@mean_over(candidates)
def mse(logits_LC: Tensor, targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Return each list's squared distances to the teacher's logits, summed over its candidates.

    Source: Ba and Caruana 2014, "Do Deep Nets Really Need to be Deep?".
    """
    return _surplus(logits_LC, targets_LC, is_real_LC).square().sum(dim=1)


@mean_over(lists_of_two)
def margin_mse(logits_LC: Tensor, targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Return each list's squared error of the margins between candidates, against those of the teacher's scores.

    It is the mean of ((s_i - s_j) - (t_i - t_j))^2 over the list's pairs i < j. Source: Hofstaetter et al. 2020,
    "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation", extended here from one
    positive and one negative to all pairs. With d = s - t that mean over pairs is twice the unbiased variance of d,
    which needs no matrix of pairs.
    """
    surplus_LC = _surplus(logits_LC, targets_LC, is_real_LC)
    count_L1 = is_real_LC.sum(dim=1, keepdim=True)
    mean_L1 = surplus_LC.sum(dim=1, keepdim=True) / count_L1.clamp(min=1)
    deviation_LC = (surplus_LC - mean_L1).masked_fill(~is_real_LC, 0.0)
    return 2.0 * deviation_LC.square().sum(dim=1) / (count_L1.squeeze(1) - 1).clamp(min=1)


@mean_over(lists)
def kl_divergence(logits_LC: Tensor, targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Return each list's KL(softmax(targets) || softmax(logits)) over its candidates.

    Targets are the teacher's logits. The caller divides both by its temperature. Source: Hinton et al. 2015,
    "Distilling the Knowledge in a Neural Network", less the teacher's entropy, which no logit changes.
    """
    log_teacher_LC = _log_softmax(targets_LC, is_real_LC)
    teacher_LC = log_teacher_LC.exp().masked_fill(~is_real_LC, 0.0)
    losses_LC = teacher_LC * (log_teacher_LC - _log_softmax(logits_LC, is_real_LC))
    return losses_LC.sum(dim=1)


@mean_over(pairs_of_unequal_grades)
def lambda_loss(logits_LC: Tensor, targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Return each list's LambdaLoss with the weights of NDCG-Loss2++, summed over its pairs of unequal grades.

    Targets are grades >= 0. Each of these pairs costs -log2 sigmoid(s_better - s_worse), times the difference of their
    gains, times (mu * what NDCG discounts between the ranks 1 and 2 apart by the pair's distance + what it discounts
    between the pair's own ranks). Source: Wang et al. 2018, "The LambdaLoss Framework for Ranking Metric Optimization",
    with the constants and the mean over pairs, not lists, of sentence-transformers' LambdaLoss
    (NDCGLoss2PPScheme: mu = 10, sigma = 1, no cut-off).
    """
    logits_LC = _filled(logits_LC, is_real_LC)
    grades_LC = _filled(targets_LC, is_real_LC)
    gains_LC = torch.exp2(grades_LC) - 1.0  # 0 in padding places, which therefore never enter the ideal DCG
    positions_C = torch.arange(1, logits_LC.shape[1] + 1, device=logits_LC.device)
    ideal_dcg_L1 = (gains_LC.sort(dim=1, descending=True).values * _discount(positions_C)).sum(dim=1, keepdim=True)
    gains_LC = gains_LC / ideal_dcg_L1.clamp(min=LAMBDA_SMALLEST_IDEAL_DCG)

    ranks_LC = _ranks(logits_LC, is_real_LC)
    # No candidate is a pair with itself; the clamp only keeps the diagonal finite.
    distance_LCC = _differences(ranks_LC).abs().clamp(min=1)
    loss2_LCC = _discount(distance_LCC) - _discount(distance_LCC + 1)
    lambda_rank_LCC = _differences(_discount(ranks_LC)).abs()
    weights_LCC = (LAMBDA_MU * loss2_LCC + lambda_rank_LCC) * _differences(gains_LC).abs()

    losses_LCC = weights_LCC * functional.softplus(-_differences(logits_LC)) / math.log(2.0)
    return losses_LCC.masked_fill(~_better_and_worse(grades_LC, is_real_LC), 0.0).sum(dim=(1, 2))


LOSSES: dict[str, Loss] = {
    "softmax": listwise_softmax,
    "bce": binary_cross_entropy,
    "mse": mse,
    "margin-mse": margin_mse,
    "kl": kl_divergence,
    "lambda": lambda_loss,
}


def _filled(values_LC: Tensor, is_real_LC: Tensor, fill: float = 0.0) -> Tensor:
    # Before any arithmetic: masked afterwards, a NaN in padding would still make the gradient 0 * NaN.
    return values_LC.float().masked_fill(~is_real_LC, fill)


def _surplus(logits_LC: Tensor, targets_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    return _filled(logits_LC, is_real_LC) - _filled(targets_LC, is_real_LC)


def _log_softmax(logits_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    # The lowest finite number, as minus infinity would make a list of padding alone NaN.
    lowest = torch.finfo(torch.float32).min
    return _filled(functional.log_softmax(_filled(logits_LC, is_real_LC, lowest), dim=1), is_real_LC)


def _better_and_worse(grades_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Return, for each two candidates of a list, whether both are real and the first has the higher grade."""
    return is_real_LC[:, :, None] & is_real_LC[:, None, :] & (_differences(grades_LC) > 0)


def _ranks(logits_LC: Tensor, is_real_LC: Tensor) -> Tensor:
    """Return each candidate's rank by logit, from 1 for the highest; padding ranks last."""
    order_LC = _filled(logits_LC.detach(), is_real_LC, -math.inf).argsort(dim=1, descending=True, stable=True)
    return order_LC.argsort(dim=1) + 1


def _discount(ranks: Tensor) -> Tensor:
    return 1.0 / torch.log2(1.0 + ranks)


def _differences(values_LC: Tensor) -> Tensor:
    return values_LC[:, :, None] - values_LC[:, None, :]
