"""The training loop: batches are those that scoring makes, a run learns, and a killed run goes on as if nothing was."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.attention import sdpa_attention
from pipelines.encoder import EncoderShape, PackedEncoder
from pipelines.packing import TokenPair, pack
from pipelines.training.attention import padded_attention
from pipelines.training.batches import BatchMaker, PairLayout, draw, lists_of_step
from pipelines.training.calibration import fold_in
from pipelines.training.kit import Kit, load_weights, report_steps, train
from pipelines.training.loop import DivergedError, Trainer
from pipelines.training.losses import LOSSES
from pipelines.training.recipe import LOSS_NAMES, TEACHER_LOSSES, Recipe
from pipelines.training.token_lists import TokenList, TokenLists

SHAPE = EncoderShape(40, 16, 2, 2, 32, 64, 2, 1e-12)
LAYOUT = PairLayout(start=1, separator=2)
CPU = torch.device("cpu")
RECIPE = Recipe(
    steps=120, lists_per_step=8, passages_per_list=4, max_lengths=(16, 24), max_query_length=6, learning_rate=1e-2
)


def new_encoder(seed: int = 0) -> PackedEncoder:
    torch.manual_seed(seed)
    encoder = PackedEncoder(SHAPE)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, 0.1)
    return encoder


def lists_about_words(count: int = 40, teacher: bool = True) -> TokenLists:
    """The positive of each list holds the query's token; the teacher knows it too."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        word = int(rng.integers(5, 15))
        others = [w for w in range(5, 15) if w != word]
        passages = [[word, 20 + i % 10], *([int(w), 20 + j] for j, w in enumerate(rng.permutation(others)[:5]))]
        scores = [3.0, *[0.0] * 5] if teacher else [math.nan] * 6
        made.append(TokenList([word, 30], passages, [1.0, *[0.0] * 5], scores, held_back=i % 10 == 9))
    return TokenLists.of(made)


@pytest.mark.parametrize(
    ("layout", "between", "padding_id"),
    [(LAYOUT, [2], None), (PairLayout(0, 2, 2, 1, False), [2, 2], 1)],
    ids=["BERT", "XLM-RoBERTa"],
)
def test_batches_are_those_that_scoring_packs(layout: PairLayout, between: list[int], padding_id: int | None) -> None:
    """The query is cut to 4 tokens, then the passage to what is left of 12; an empty passage is a passage."""
    texts = [[5, 6, 7], [8] * 9, [9, 10], [], list(range(10, 30))]
    lists = TokenLists.of([TokenList(texts[0], texts[1:], [0.0] * 4, [0.0] * 4)])
    queries, passages = np.array([0, 1, 0, 2]), np.array([4, 2, 3, 4])
    actual = BatchMaker(lists, layout, CPU).pack(queries, passages, max_length=12, max_query_length=4)

    pairs = []
    for query, passage in zip(queries, passages, strict=True):
        head = [layout.start, *texts[query][:4], *between]
        tail = [*texts[passage][: 12 - len(head) - 1], layout.separator]
        pairs.append(TokenPair(head + tail, [0] * len(head) + [1] * len(tail) if layout.has_segments else None))
    expected = pack(pairs, padding_id)
    for ours, theirs in zip(actual[:4], expected[:4], strict=True):
        if theirs is None or ours is None:
            assert ours is theirs
        else:
            torch.testing.assert_close(ours, theirs)
    assert actual.max_seqlen == expected.max_seqlen


def test_a_recipe_knows_the_losses_that_there_are() -> None:
    assert tuple(LOSSES) == LOSS_NAMES
    assert {*TEACHER_LOSSES} < {*LOSS_NAMES}


@pytest.mark.parametrize("name", TEACHER_LOSSES)
def test_a_teacher_loss_is_never_below_0(name: str) -> None:
    """A loss without a lower bound would drive the logits apart for ever."""
    targets, is_real = torch.tensor([[3.0, 0.0, -4.0]]), torch.ones(1, 3, dtype=torch.bool)
    for size in (-1000.0, -1.0, 1.0, 1000.0):
        assert LOSSES[name](torch.tensor([[size, 0.0, -size]]), targets, is_real) >= 0


def test_every_epoch_takes_every_list_once_in_another_order() -> None:
    members = np.array([3, 5, 7, 9, 11])
    drawn = np.concatenate([lists_of_step(members, step, 2, seed=1) for step in range(5)])
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == list(members)
    assert list(drawn[:5]) != list(drawn[5:])


def test_a_draw_keeps_the_best_label_and_pads_short_lists() -> None:
    long = TokenList([1], [[i] for i in range(9)], [0.0] * 7 + [2.0, 1.0], [float(i) for i in range(9)])
    short = TokenList([2], [[3], [4]], [math.nan, math.nan], [1.0, 2.0])
    drawn = draw(TokenLists.of([long, short]), np.array([0, 1]), 4, seed=0, step=3)
    assert drawn.labels_LC[0].max() == 2.0
    assert drawn.is_real_LC.tolist() == [[True] * 4, [True, True, False, False]]
    assert sorted(drawn.teacher_LC[1, :2]) == [1.0, 2.0]
    again = draw(TokenLists.of([long, short]), np.array([0, 1]), 4, seed=0, step=3)
    np.testing.assert_array_equal(again.passages_LC, drawn.passages_LC)


def test_a_list_with_many_best_labels_is_drawn_with_others_too() -> None:
    many = TokenLists.of([TokenList([1], [[i] for i in range(50)], [1.0] * 12 + [0.0] * 38, [math.nan] * 50)])
    for step in range(20):
        [labels] = draw(many, np.array([0]), 12, seed=0, step=step).labels_LC
        assert (labels[0], labels.min()) == (1.0, 0.0)


def test_a_best_label_is_drawn_however_small_it_is() -> None:
    """Shares of clicks are labels, too."""
    clicks = TokenLists.of([TokenList([1], [[i] for i in range(50)], [0.0] * 49 + [0.05], [math.nan] * 50)])
    firsts = [draw(clicks, np.array([0]), 4, seed=0, step=step).labels_LC[0, 0] for step in range(20)]
    assert firsts == [pytest.approx(0.05, abs=1e-3)] * 20


@pytest.mark.parametrize("label_loss", LOSS_NAMES)
def test_a_label_below_0_is_wrong_like_0(label_loss: str) -> None:
    losses = []
    for wrong in (0.0, -1.0):
        lists = TokenLists.of([TokenList([1], [[2], [3], [4]], [1.0, wrong, math.nan], [math.nan] * 3)])
        trainer = Trainer(new_encoder(), lists, LAYOUT, replace(RECIPE, label_loss=label_loss), CPU)
        drawn = draw(lists, np.array([0]), 3, seed=0, step=0)
        losses.append(float(trainer.loss(torch.tensor([[3.0, 1.0, 2.0]]), trainer.terms(drawn))))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("teacher", [True, False])
def test_training_learns_what_the_lists_show(teacher: bool) -> None:
    """With half as many steps some seeds have not learned it yet, on another CPU others than here."""
    recipe = replace(RECIPE, steps=400, seed=3)
    trainer = Trainer(new_encoder(), lists_about_words(teacher=teacher), LAYOUT, recipe, CPU)
    curve = [progress.positive_first for progress in trainer.run()]
    assert len(curve) == 400
    assert np.mean(curve[:5]) < 0.6
    assert np.mean(curve[-5:]) > 0.9


def test_a_step_leaves_the_arithmetic_of_its_process_as_it_was() -> None:
    """The smallest numbers are 0 during a step, which must not be so in the program that calls it."""
    smallest = torch.tensor(1e-38)
    Trainer(new_encoder(), lists_about_words(), LAYOUT, RECIPE, CPU).train_step()
    assert smallest / 10 > 0


def gradients_of(encoder: PackedEncoder) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in encoder.parameters() if weight.grad is not None])


def test_bfloat16_passes_find_the_gradients_of_float32() -> None:
    found = []
    for in_bfloat16 in (True, False):
        trainer = Trainer(new_encoder(), lists_about_words(), LAYOUT, RECIPE, CPU, in_bfloat16)
        trainer.add_gradients(draw(trainer.lists, np.arange(8), 4, seed=0, step=0), 16)
        found.append(gradients_of(trainer.encoder))
    assert found[0].dtype == torch.float32
    assert torch.cosine_similarity(found[0], found[1], dim=0) > 0.9
    assert abs(found[0].norm() / found[1].norm() - 1) < 0.2


def test_padded_attention_and_its_gradients_are_those_of_torch() -> None:
    torch.manual_seed(0)
    lengths, heads, width = [3, 40, 1, 17], 2, 8
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    firsts = torch.arange(len(lengths) + 1, dtype=torch.int32)
    for q_bounds, longest_q in ((bounds, 40), (firsts, 1)):
        shapes = [(int(q_bounds[-1]), heads, width), (61, heads, width), (61, heads, width)]
        inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
        wanted = torch.randn(shapes[0])
        outputs = []
        for attention in (padded_attention, sdpa_attention):
            output = attention(*inputs, q_bounds, bounds, longest_q, 40)
            outputs.append([output, *torch.autograd.grad((output * wanted).sum(), inputs)])
        for ours, theirs in zip(*outputs, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_run_that_diverges_says_so_and_keeps_its_weights() -> None:
    trainer = Trainer(new_encoder(), lists_about_words(), LAYOUT, RECIPE, CPU)
    with torch.no_grad():
        trainer.encoder.head_out.bias.fill_(math.nan)
    before = [weight.clone() for weight in trainer.encoder.parameters()]
    with pytest.raises(DivergedError, match=r"step 1 are not finite .*lower learning_rate"):
        trainer.train_step()
    for ours, theirs in zip(trainer.encoder.parameters(), before, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0, equal_nan=True)


def uneven_lists() -> TokenLists:
    """Lists of 2 to 7 passages, graded, scored by a teacher, or both; of some passages either is unknown."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(24):
        count = 2 + i % 6
        grades, scores = rng.integers(0, 4, count) / 3, rng.normal(size=count)
        grades[0] = 1.0
        for values, is_left_out in ((grades, i % 3 == 1), (scores, i % 3 == 2)):
            values[(rng.random(count) < 0.2) & (np.arange(count) > 0) | is_left_out] = math.nan
        passages = rng.integers(3, 40, (count, 4)).tolist()
        made.append(TokenList(rng.integers(3, 40, 2).tolist(), passages, grades.tolist(), scores.tolist()))
    return TokenLists.of(made)


def recipes_of_all_losses() -> list[Recipe]:
    """All label losses, with the teacher losses in turn."""
    recipe = replace(RECIPE, steps=2, passages_per_list=7, max_lengths=(16,), label_share=0.3)
    teachers = itertools.cycle(TEACHER_LOSSES)
    return [replace(recipe, label_loss=name, teacher_loss=next(teachers)) for name in LOSS_NAMES]


def gradients_of_a_step(recipe: Recipe) -> tuple[float, float, torch.Tensor]:
    """Loss, share of best labels first and gradients of a first step, of all workers."""
    trainer = Trainer(new_encoder(), uneven_lists(), LAYOUT, recipe, CPU, in_bfloat16=False)
    drawn = draw(trainer.lists, np.arange(17), recipe.passages_per_list, seed=0, step=0)
    trained = list(trainer.encoder.parameters())
    loss, first = trainer.add_up(trained, *trainer.add_gradients(drawn, 16))
    return loss, first, gradients_of(trainer.encoder)


def worker_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = [gradients_of_a_step(recipe) for recipe in recipes_of_all_losses()]
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("recipe", recipes_of_all_losses(), ids=LOSS_NAMES)
def test_gradients_do_not_depend_on_the_micro_batches(recipe: Recipe) -> None:
    few, many = (gradients_of_a_step(replace(recipe, micro_batch_tokens=tokens)) for tokens in (60, 10_000))
    assert few[:2] == pytest.approx(many[:2], rel=1e-5)
    torch.testing.assert_close(few[2], many[2], atol=1e-6, rtol=1e-4)


def test_two_workers_find_the_gradients_of_one(tmp_path: Path) -> None:
    """One of them has nine lists of a step and the other eight, of other lengths."""
    torch.multiprocessing.spawn(worker_of_two, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for recipe, (loss, first, gradients) in zip(recipes_of_all_losses(), found, strict=True):
            alone = gradients_of_a_step(recipe)
            assert (loss, first) == pytest.approx(alone[:2], rel=1e-5)
            torch.testing.assert_close(gradients, alone[2], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("recipe", recipes_of_all_losses(), ids=LOSS_NAMES)
def test_the_loss_of_a_step_is_the_mean_that_it_is_named_after(recipe: Recipe) -> None:
    """Where all lists have a label and no teacher, it is the label loss of all of them."""
    lists = uneven_lists()
    lists.teacher[:] = math.nan
    trainer = Trainer(new_encoder(), lists, LAYOUT, recipe, CPU)
    labelled = [i for i in range(len(lists)) if i % 3 != 1]
    drawn = draw(lists, np.array(labelled), recipe.passages_per_list, seed=0, step=0)
    logits_LC = torch.randn(drawn.labels_LC.shape, generator=torch.Generator().manual_seed(0))
    labels_LC = torch.from_numpy(drawn.labels_LC)
    known_LC = torch.from_numpy(drawn.is_real_LC) & ~labels_LC.isnan()
    expected = LOSSES[recipe.label_loss](logits_LC, labels_LC, known_LC)
    torch.testing.assert_close(trainer.loss(logits_LC, trainer.terms(drawn)), expected)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=12)
    whole = Trainer(new_encoder(), lists_about_words(), LAYOUT, recipe, CPU)
    for _ in whole.run():
        pass

    first = Trainer(new_encoder(), lists_about_words(), LAYOUT, recipe, CPU)
    for progress in first.run():
        if progress.step == 5:
            first.save(tmp_path / "checkpoint.pt")
    second = Trainer(new_encoder(seed=1), lists_about_words(), LAYOUT, recipe, CPU)
    second.resume(tmp_path / "checkpoint.pt")
    assert [progress.step for progress in second.run()] == list(range(6, 13))
    for ours, theirs in zip(second.encoder.parameters(), whole.encoder.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(new_encoder(), lists_about_words(), LAYOUT, RECIPE, CPU)
    trainer.save(tmp_path / "checkpoint.pt")
    other = Trainer(new_encoder(), lists_about_words(), LAYOUT, replace(RECIPE, seed=4), CPU)
    with pytest.raises(ValueError, match="was made with seed = 0, and now it is 4"):
        other.resume(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"passages_per_list": 1}, "passages_per_list is 1"),
        ({"max_lengths": ()}, "max_lengths is"),
        ({"max_lengths": (10,)}, "above max_query_length"),
        ({"label_share": 1.5}, "label_share is 1.5"),
        ({"teacher_loss": "hinge"}, "teacher_loss is 'hinge'; it is one of kl, margin-mse, mse"),
        *(({"teacher_loss": name}, f"teacher_loss is '{name}'; it is one of") for name in ("softmax", "bce", "lambda")),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **change)  # type: ignore[arg-type]


def test_pairs_longer_than_the_model_reads_are_refused() -> None:
    with pytest.raises(ValueError, match="max_lengths reaches 65; the model reads 64 tokens"):
        Trainer(new_encoder(), lists_about_words(), LAYOUT, replace(RECIPE, max_lengths=(65,)), CPU)


def test_a_step_that_fails_costs_a_kit_nothing_but_that_step(tmp_path: Path) -> None:
    """A list that the fourth step takes has a teacher score that no step can be taken with."""
    lists = lists_about_words()
    number = lists_of_step(np.flatnonzero(~lists.held_back), 3, RECIPE.lists_per_step, RECIPE.seed)[0]
    lists.teacher[lists.list_starts[number]] = math.inf
    Kit(SHAPE, LAYOUT, replace(RECIPE, max_lengths=(16,))).save(tmp_path / "kit", lists, new_encoder().state_dict())

    with pytest.raises(DivergedError, match="the gradients of step 4 are not finite"):
        train(tmp_path / "kit", tmp_path / "out", 1, 1, CPU)

    assert json.loads((tmp_path / "out" / "progress.json").read_text())["step"] == 3
    start, left = (load_weights(tmp_path / folder) for folder in ("kit", "out"))
    assert any((start[name] != left[name]).any() for name in start)


def test_a_kit_trains_and_goes_on_from_its_weights(tmp_path: Path) -> None:
    """Two calls of a run; the second begins at the first one's weights and steps, and the third has nothing left."""
    kit = Kit(SHAPE, LAYOUT, replace(RECIPE, max_lengths=(16,)))
    kit.save(tmp_path / "kit", lists_about_words(), new_encoder().state_dict())
    assert Kit.load(tmp_path / "kit") == kit

    minutes = 2 / 60
    first = train(tmp_path / "kit", tmp_path / "out", minutes, 2 * minutes, CPU)
    left = load_weights(tmp_path / "out")
    second = train(tmp_path / "kit", tmp_path / "out", minutes, 2 * minutes, CPU)
    third = train(tmp_path / "kit", tmp_path / "out", minutes, 2 * minutes, CPU)

    assert first is not None
    assert second is not None
    assert second.step > first.step > 1
    assert second.positive_first > 0.7
    assert third is None
    assert any((left[name] != tensor).any() for name, tensor in load_weights(tmp_path / "out").items())
    lines = (tmp_path / "out" / "curve.csv").read_text().splitlines()
    assert len(lines) >= 2


@pytest.mark.parametrize("factor", [1 / 8, 1, 8])
def test_a_head_is_scaled_to_the_least_loss_and_keeps_its_order(factor: float) -> None:
    """However flat or steep its logits were: what comes out is the same, and the loss is least there."""
    lists, recipe = lists_about_words(), replace(RECIPE, steps=40)
    learned = Trainer(new_encoder(), lists, LAYOUT, recipe, CPU)
    assert sum(1 for _ in learned.run()) == 40
    learned.scale_head()

    def scaled_by(scale: float) -> Trainer:
        encoder = copy.deepcopy(learned.encoder)
        fold_in(encoder, scale, 0.0)
        return Trainer(encoder, lists, LAYOUT, recipe, CPU)

    trainer = scaled_by(factor)
    assert trainer.scale_head() == pytest.approx(1 / factor, rel=0.01)
    torch.testing.assert_close(trainer.encoder.state_dict(), learned.encoder.state_dict(), rtol=0.01, atol=1e-6)
    numbers = lists_of_step(trainer.members, 0, len(trainer.members), recipe.seed)
    drawn = draw(lists, numbers, recipe.passages_per_list, recipe.seed, 0)
    losses = [scaled_by(scale).add_gradients(drawn, max(recipe.max_lengths))[0] for scale in (1.0, 0.8, 1.25)]
    assert losses[0] == min(losses)


def test_a_head_that_knows_nothing_is_not_scaled() -> None:
    """Logits near zero would suit it best, but what stands behind such a head learns slowly."""
    encoder = new_encoder()
    before = encoder.head_out.weight.clone()
    assert Trainer(encoder, lists_about_words(), LAYOUT, RECIPE, CPU).scale_head() == 1
    torch.testing.assert_close(encoder.head_out.weight, before, rtol=0, atol=0)


@pytest.mark.parametrize("knows", [True, False])
def test_workers_send_the_scale_of_a_head_in_one_type(knows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that do not agree on whether the head knows anything would else wait for different numbers of bytes."""
    sent: list[torch.dtype] = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda scale, _: sent.append(scale.dtype))
    trainer = Trainer(new_encoder(), lists_about_words(), LAYOUT, RECIPE, CPU)
    trainer.workers = 2
    monkeypatch.setattr(trainer, "loss", lambda logits_LC, *_: 1 / (1 + knows * logits_LC.abs().sum()))
    trainer.scale_head()
    assert sent == [torch.float32]


def test_the_curve_of_a_kit_has_the_rate_of_the_step_that_was_taken() -> None:
    trainer, curve = Trainer(new_encoder(), lists_about_words(), LAYOUT, RECIPE, CPU), io.StringIO()
    report_steps([trainer.train_step()], trainer, csv.writer(curve))
    assert float(curve.getvalue().split(",")[-1]) == pytest.approx(RECIPE.rate(0), rel=0.01)


def test_progress_of_a_kit_that_cannot_be_written_stays_that_of_the_save_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, text: str) -> None:
        path.write_bytes(text[:3].encode())
        raise OSError("no space left")

    Kit(SHAPE, LAYOUT, replace(RECIPE, max_lengths=(16,))).save(
        tmp_path / "kit", lists_about_words(), new_encoder().state_dict()
    )
    monkeypatch.setattr(Path, "write_text", fail)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "progress.json").write_bytes(b'{"step": 0, "seconds": 0.0}')
    with pytest.raises(OSError, match="no space left"):
        train(tmp_path / "kit", tmp_path / "out", 0.01, 1, CPU)
    assert json.loads((tmp_path / "out" / "progress.json").read_bytes()) == {"step": 0, "seconds": 0.0}
