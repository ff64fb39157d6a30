"""The training losses against sentence-transformers' own, and what padding must not do to them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.training.losses import (
    LOSSES,
    Loss,
    binary_cross_entropy,
    kl_divergence,
    lambda_loss,
    listwise_softmax,
    margin_mse,
    mse,
)

LENGTHS = [5, 2, 7, 3]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Logits and the mask of lists of LENGTHS candidates."""
    generator = torch.Generator().manual_seed(7)
    is_real_LC = torch.arange(max(LENGTHS))[None, :] < torch.tensor(LENGTHS)[:, None]
    return 3 * torch.randn(is_real_LC.shape, generator=generator), is_real_LC


@pytest.fixture
def grades_LC(batch: tuple[Tensor, Tensor]) -> Tensor:
    """Whole grades 0..3, at least one of them relevant in each list."""
    _, is_real_LC = batch
    grades_LC = torch.randint(0, 4, is_real_LC.shape, generator=torch.Generator().manual_seed(8)).float()
    grades_LC[:, 1] = 2.0
    return grades_LC


@pytest.fixture
def teacher_LC(batch: tuple[Tensor, Tensor]) -> Tensor:
    return 2 * torch.randn(batch[0].shape, generator=torch.Generator().manual_seed(9))


@pytest.fixture
def reference() -> Any:
    return pytest.importorskip("sentence_transformers.cross_encoder.losses")


def model_giving(logits: Tensor) -> Any:
    """A CrossEncoder without weights: the document "17" scores the 17th of `logits`."""
    from sentence_transformers import CrossEncoder  # slow, and tests of padding do without it

    class FixedLogits(CrossEncoder):
        num_labels = 1
        device = torch.device("cpu")

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def preprocess(self, pairs: list[tuple[str, str]], **_: Any) -> dict[str, Tensor]:
            return {"place": torch.tensor([int(document) for _, document in pairs])}

        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"scores": logits[features["place"]]}

    return FixedLogits()


def documents(is_real_LC: Tensor) -> list[list[str]]:
    numbers = itertools.count()
    return [[str(next(numbers)) for _ in range(int(count))] for count in is_real_LC.sum(dim=1)]


def listwise(loss_class: Any, labels_LC: Tensor, is_real_LC: Tensor) -> Callable[[Tensor], Tensor]:
    """sentence-transformers' listwise `loss_class` as a function of logits."""

    def loss(logits_LC: Tensor) -> Tensor:
        texts = documents(is_real_LC)
        labels = [row[mask] for row, mask in zip(labels_LC, is_real_LC, strict=True)]
        result: Tensor = loss_class(model_giving(logits_LC[is_real_LC]))([["query"] * len(texts), texts], labels)
        return result

    return loss


def pointwise(loss_class: Any, labels_LC: Tensor, is_real_LC: Tensor) -> Callable[[Tensor], Tensor]:
    """sentence-transformers' pointwise `loss_class` as a function of logits."""

    def loss(logits_LC: Tensor) -> Tensor:
        texts = list(itertools.chain(*documents(is_real_LC)))
        model = model_giving(logits_LC[is_real_LC])
        result: Tensor = loss_class(model)([["query"] * len(texts), texts], labels_LC[is_real_LC])
        return result

    return loss


def value_and_gradient(loss: Callable[[Tensor], Tensor], logits_LC: Tensor) -> tuple[Tensor, Tensor]:
    leaf_LC = logits_LC.clone().requires_grad_()
    value = loss(leaf_LC)
    (gradient_LC,) = torch.autograd.grad(value, leaf_LC)
    return value.detach(), gradient_LC


def assert_same(actual: Callable[[Tensor], Tensor], expected: Callable[[Tensor], Tensor], logits_LC: Tensor) -> None:
    for ours, theirs in zip(
        value_and_gradient(actual, logits_LC), value_and_gradient(expected, logits_LC), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_softmax_is_listnet_with_the_logarithms_of_the_shares(
    batch: tuple[Tensor, Tensor], grades_LC: Tensor, reference: Any
) -> None:
    logits_LC, is_real_LC = batch
    expected = listwise(reference.ListNetLoss, grades_LC.log(), is_real_LC)
    assert_same(lambda logits: listwise_softmax(logits, grades_LC, is_real_LC), expected, logits_LC)


def test_kl_is_listnet_less_the_entropy_of_the_teacher(
    batch: tuple[Tensor, Tensor], teacher_LC: Tensor, reference: Any
) -> None:
    logits_LC, is_real_LC = batch
    rows = zip(teacher_LC, is_real_LC, strict=True)
    entropy = torch.stack([torch.distributions.Categorical(logits=row[mask]).entropy() for row, mask in rows]).mean()
    listnet = listwise(reference.ListNetLoss, teacher_LC, is_real_LC)
    assert_same(
        lambda logits: kl_divergence(logits, teacher_LC, is_real_LC),
        lambda logits: listnet(logits) - entropy,
        logits_LC,
    )


def test_lambda_is_lambda_loss_with_ndcg_loss_2_plus_plus(
    batch: tuple[Tensor, Tensor], grades_LC: Tensor, reference: Any
) -> None:
    logits_LC, is_real_LC = batch
    expected = listwise(reference.LambdaLoss, grades_LC, is_real_LC)
    assert_same(lambda logits: lambda_loss(logits, grades_LC, is_real_LC), expected, logits_LC)


def test_lambda_takes_fractional_grades(batch: tuple[Tensor, Tensor], teacher_LC: Tensor, reference: Any) -> None:
    logits_LC, is_real_LC = batch
    grades_LC = teacher_LC.sigmoid()
    expected = listwise(reference.LambdaLoss, grades_LC, is_real_LC)
    assert_same(lambda logits: lambda_loss(logits, grades_LC, is_real_LC), expected, logits_LC)


def test_lambda_keeps_its_gradient_for_badly_misordered_pairs(reference: Any) -> None:
    logits_LC, grades_LC = torch.tensor([[-90.0, 80.0, 0.0]]), torch.tensor([[2.0, 0.0, 1.0]])
    is_real_LC = torch.ones(1, 3, dtype=torch.bool)
    expected = listwise(reference.LambdaLoss, grades_LC, is_real_LC)
    assert_same(lambda logits: lambda_loss(logits, grades_LC, is_real_LC), expected, logits_LC)


def test_bce_matches(batch: tuple[Tensor, Tensor], teacher_LC: Tensor, reference: Any) -> None:
    logits_LC, is_real_LC = batch
    labels_LC = teacher_LC.sigmoid()
    expected = pointwise(reference.BinaryCrossEntropyLoss, labels_LC, is_real_LC)
    assert_same(lambda logits: binary_cross_entropy(logits, labels_LC, is_real_LC), expected, logits_LC)


def test_mse_matches(batch: tuple[Tensor, Tensor], teacher_LC: Tensor, reference: Any) -> None:
    logits_LC, is_real_LC = batch
    expected = pointwise(reference.MSELoss, teacher_LC, is_real_LC)
    assert_same(lambda logits: mse(logits, teacher_LC, is_real_LC), expected, logits_LC)


def test_margin_mse_of_two_candidates_matches(batch: tuple[Tensor, Tensor], teacher_LC: Tensor, reference: Any) -> None:
    logits_L2, teacher_L2 = batch[0][:, :2], teacher_LC[:, :2]
    is_real_L2 = torch.ones_like(logits_L2, dtype=torch.bool)

    def expected(logits_L2: Tensor) -> Tensor:
        texts = documents(is_real_L2)
        first, second = ([pair[place] for pair in texts] for place in (0, 1))
        loss = reference.MarginMSELoss(model_giving(logits_L2.flatten()))
        result: Tensor = loss([["query"] * len(texts), first, second], list(teacher_L2))
        return result

    assert_same(lambda logits: margin_mse(logits, teacher_L2, is_real_L2), expected, logits_L2)


def test_margin_mse_is_the_mean_over_pairs_then_over_lists(batch: tuple[Tensor, Tensor], teacher_LC: Tensor) -> None:
    logits_LC, is_real_LC = batch

    def expected(logits_LC: Tensor) -> Tensor:
        rows = []
        for s, t, count in zip(logits_LC, teacher_LC, LENGTHS, strict=True):
            pairs = itertools.combinations(range(count), 2)
            rows.append(torch.stack([((s[i] - s[j]) - (t[i] - t[j])) ** 2 for i, j in pairs]).mean())
        return torch.stack(rows).mean()

    assert_same(lambda logits: margin_mse(logits, teacher_LC, is_real_LC), expected, logits_LC)


def test_margin_mse_leaves_out_lists_of_one(batch: tuple[Tensor, Tensor], teacher_LC: Tensor) -> None:
    logits_LC, is_real_LC = batch
    with_one_LC = is_real_LC.clone()
    with_one_LC[0, 1:] = False
    actual = margin_mse(logits_LC, teacher_LC, with_one_LC)
    torch.testing.assert_close(actual, margin_mse(logits_LC[1:], teacher_LC[1:], is_real_LC[1:]))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_padding_changes_neither_value_nor_gradient(loss: Loss, garbage: float) -> None:
    """Between candidates, after them and as a list of nothing else, with garbage in logits and targets alike."""
    generator = torch.Generator().manual_seed(10)
    logits_LC, targets_LC = torch.randn(3, 4, generator=generator), torch.rand(3, 4, generator=generator)
    all_real_LC = torch.ones(3, 4, dtype=torch.bool)
    value, gradient_LC = value_and_gradient(lambda logits: loss(logits, targets_LC, all_real_LC), logits_LC)

    places = torch.tensor([0, 2, 3, 5])
    padded_logits_LC, padded_targets_LC = torch.full((4, 7), garbage), torch.full((4, 7), garbage)
    is_real_LC = torch.zeros(4, 7, dtype=torch.bool)
    expected_gradient_LC = torch.zeros(4, 7)
    for padded, rows in (
        (padded_logits_LC, logits_LC),
        (padded_targets_LC, targets_LC),
        (is_real_LC, all_real_LC),
        (expected_gradient_LC, gradient_LC),
    ):
        padded[:3, places] = rows
    padded_value, padded_gradient_LC = value_and_gradient(
        lambda logits: loss(logits, padded_targets_LC, is_real_LC), padded_logits_LC
    )

    torch.testing.assert_close(padded_value, value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(padded_gradient_LC, expected_gradient_LC, rtol=1e-6, atol=1e-6)
    assert torch.all(padded_gradient_LC[~is_real_LC] == 0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_a_batch_of_padding_alone_counts_0(loss: Loss) -> None:
    nothing_LC = torch.full((2, 3), math.nan)
    value, gradient_LC = value_and_gradient(
        lambda logits: loss(logits, nothing_LC, torch.zeros(2, 3, dtype=torch.bool)), nothing_LC
    )
    assert value == 0
    assert torch.equal(gradient_LC, torch.zeros(2, 3))


@pytest.mark.parametrize("loss", [listwise_softmax, lambda_loss])
def test_a_list_without_relevant_candidates_counts_0(loss: Loss) -> None:
    logits_LC = torch.tensor([[1.0, -2.0, 0.5]])
    value, gradient_LC = value_and_gradient(
        lambda logits: loss(logits, torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)), logits_LC
    )
    assert value == 0
    assert torch.equal(gradient_LC, torch.zeros(1, 3))


def test_softmax_keeps_a_list_without_relevant_candidates_in_its_mean() -> None:
    logits_LC, is_real_LC = torch.tensor([[1.0, -2.0], [0.5, 0.25]]), torch.ones(2, 2, dtype=torch.bool)
    actual = listwise_softmax(logits_LC, torch.tensor([[0.0, 1.0], [0.0, 0.0]]), is_real_LC)
    torch.testing.assert_close(actual, torch.tensor(math.log1p(math.exp(3.0)) / 2))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_half_precision_gives_a_float32_scalar(loss: Loss) -> None:
    logits_LC = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.bfloat16)
    targets_LC = torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.bfloat16)
    is_real_LC = torch.ones(1, 3, dtype=torch.bool)
    actual = loss(logits_LC, targets_LC, is_real_LC)
    assert (actual.dtype, actual.shape) == (torch.float32, torch.Size([]))
    torch.testing.assert_close(actual, loss(logits_LC.float(), targets_LC.float(), is_real_LC))
