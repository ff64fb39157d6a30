"""Attention over packed pairs equals softmax(q k^T / sqrt(H)) v of each pair by itself."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.attention import (
    CAUSAL,
    EVERYWHERE,
    WindowedAttention,
    WindowSize,
    alibi_slopes,
    sdpa_attention,
    select_attention,
    torch_varlen_attention,
)

HEADS, HEAD_WIDTH = 2, 8
LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8)


def bounds(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def draw_qkv(q_lengths: list[int], k_lengths: list[int], head_width: int = HEAD_WIDTH) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    tokens = (sum(q_lengths), sum(k_lengths), sum(k_lengths))
    return [torch.randn(count, HEADS, head_width, generator=generator) for count in tokens]


def run(
    attention: WindowedAttention,
    qkv: list[torch.Tensor],
    q_lengths: list[int],
    k_lengths: list[int],
    window_size: WindowSize = EVERYWHERE,
    slopes: list[float] | None = None,
) -> torch.Tensor:
    device = qkv[0].device
    cu_seqlens = bounds(q_lengths).to(device), bounds(k_lengths).to(device)
    tensor = None if slopes is None else torch.tensor(slopes, device=device)
    longest = max(q_lengths), max(k_lengths)
    return attention(*qkv, *cu_seqlens, *longest, window_size=window_size, alibi_slopes=tensor)


def naive(
    qkv: list[torch.Tensor], q_lengths: list[int], k_lengths: list[int], window_size: tuple[float, float] = (1e9, 1e9)
) -> torch.Tensor:
    """One pair, one head, one softmax at a time."""
    left, right = window_size
    outputs = []
    parts = zip(qkv[0].split(q_lengths), qkv[1].split(k_lengths), qkv[2].split(k_lengths), strict=True)
    for q_QNH, k_KNH, v_KNH in parts:
        sees = [[-left <= j - i <= right for j in range(len(k_KNH))] for i in range(len(q_QNH))]
        bias_QK = torch.where(torch.tensor(sees), 0.0, -torch.inf)
        heads = [
            (q_QNH[:, head] @ k_KNH[:, head].T / q_QNH.shape[-1] ** 0.5 + bias_QK).softmax(-1) @ v_KNH[:, head]
            for head in range(q_QNH.shape[1])
        ]
        outputs.append(torch.stack(heads, dim=1))
    return torch.cat(outputs)


@given(lengths=LENGTHS)
@settings(max_examples=50)
def test_sdpa_equals_a_naive_softmax_per_pair(lengths: list[tuple[int, int]]) -> None:
    """Queries and keys of different numbers, neighbours of equal and of different lengths."""
    q_lengths, k_lengths = [q for q, _ in lengths], [k for _, k in lengths]
    qkv = draw_qkv(q_lengths, k_lengths)

    actual = run(sdpa_attention, qkv, q_lengths, k_lengths)

    torch.testing.assert_close(actual, naive(qkv, q_lengths, k_lengths), atol=1e-5, rtol=1e-5)


@given(
    lengths=st.lists(st.sampled_from([1, 2, 5, 6, 7, 127, 128, 129, 260, 300]), min_size=1, max_size=4),
    window_size=st.tuples(st.integers(0, 140), st.integers(0, 140)),
)
@settings(max_examples=25)
def test_a_window_hides_what_is_beyond_it(lengths: list[int], window_size: WindowSize) -> None:
    """Pairs below, at and above the window and the blocks of queries; windows of unequal sides too."""
    qkv = draw_qkv(lengths, lengths)

    actual = run(sdpa_attention, qkv, lengths, lengths, window_size)

    torch.testing.assert_close(actual, naive(qkv, lengths, lengths, window_size), atol=1e-5, rtol=1e-5)


@given(lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=6))
@settings(max_examples=50)
def test_causal_queries_are_the_last_of_the_keys_and_share_heads(lengths: list[tuple[int, int]]) -> None:
    """After a prefix of any length, with two heads of queries for each of the keys."""
    q_lengths, k_lengths = [own for own, _ in lengths], [own + prefix for own, prefix in lengths]
    q_TNH, k_TGH, v_TGH = draw_qkv(q_lengths, k_lengths)
    q_TNH = torch.cat([q_TNH, -q_TNH], dim=1)

    actual = run(sdpa_attention, [q_TNH, k_TGH, v_TGH], q_lengths, k_lengths, CAUSAL)

    keys, values = (part.repeat_interleave(2, dim=1).split(k_lengths) for part in (k_TGH, v_TGH))
    expected = []
    for q_QNH, k_KNH, v_KNH in zip(q_TNH.split(q_lengths), keys, values, strict=True):
        for i in range(len(q_QNH)):
            seen = len(k_KNH) - len(q_QNH) + i + 1
            expected.append(naive([q_QNH[i : i + 1], k_KNH[:seen], v_KNH[:seen]], [1], [seen]))
    torch.testing.assert_close(actual, torch.cat(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, [2**-8]),
        (2, [2**-4, 2**-8]),
        (3, [2**-4, 2**-8, 2**-2]),
        (8, [2**-i for i in range(1, 9)]),
        (12, [*(2**-i for i in range(1, 9)), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
    ],
)
def test_slopes_are_those_of_the_paper(heads: int, expected: list[float]) -> None:
    assert alibi_slopes(heads) == pytest.approx(expected, rel=1e-12)


@given(lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=6))
@settings(max_examples=50)
def test_slopes_weaken_what_is_far_on_both_sides(lengths: list[tuple[int, int]]) -> None:
    """The queries are the last of the keys, as flash-attn counts them; each head has a slope of its own."""
    q_lengths, k_lengths = [own for own, _ in lengths], [own + before for own, before in lengths]
    qkv, slopes = draw_qkv(q_lengths, k_lengths), [0.5, 0.125]

    actual = run(sdpa_attention, qkv, q_lengths, k_lengths, slopes=slopes)

    expected = []
    parts = zip(qkv[0].split(q_lengths), qkv[1].split(k_lengths), qkv[2].split(k_lengths), strict=True)
    for q_QNH, k_KNH, v_KNH in parts:
        i_Q, j_K = torch.arange(len(k_KNH))[-len(q_QNH) :], torch.arange(len(k_KNH))
        heads = []
        for head, slope in enumerate(slopes):
            scores_QK = q_QNH[:, head] @ k_KNH[:, head].T / HEAD_WIDTH**0.5 - slope * (i_Q[:, None] - j_K).abs()
            heads.append(scores_QK.softmax(-1) @ v_KNH[:, head])
        expected.append(torch.stack(heads, dim=1))
    torch.testing.assert_close(actual, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_torchs_kernel_which_has_no_slopes_leaves_them_to_sdpa() -> None:
    lengths, slopes = [7, 3], [0.5, 0.125]
    qkv = draw_qkv(lengths, lengths)
    ours = [run(kernel, qkv, lengths, lengths, slopes=slopes) for kernel in (torch_varlen_attention, sdpa_attention)]
    torch.testing.assert_close(*ours, atol=0, rtol=0)


def test_one_query_per_pair_reads_all_keys_of_its_pair() -> None:
    """What the last layer asks for."""
    q_lengths, k_lengths = [1, 1, 1, 1], [7, 7, 3, 1]
    qkv = draw_qkv(q_lengths, k_lengths)

    actual = run(sdpa_attention, qkv, q_lengths, k_lengths)

    torch.testing.assert_close(actual, naive(qkv, q_lengths, k_lengths), atol=1e-5, rtol=1e-5)


def test_a_pair_does_not_see_its_neighbours() -> None:
    lengths = [4, 4, 2]
    qkv = draw_qkv(lengths, lengths)
    before = run(sdpa_attention, qkv, lengths, lengths)
    poisoned = [part.clone() for part in qkv]
    for part in poisoned:
        part[4:8] = float("nan")

    after = run(sdpa_attention, poisoned, lengths, lengths)

    torch.testing.assert_close(after[:4], before[:4], atol=0, rtol=0)
    torch.testing.assert_close(after[8:], before[8:], atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_cpu_always_gets_sdpa(dtype: torch.dtype) -> None:
    assert select_attention(torch.device("cpu"), dtype) is sdpa_attention


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 8.0, as far as torch is asked."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))


def test_float32_on_a_gpu_gets_sdpa(ampere: None) -> None:
    assert select_attention(torch.device("cuda"), torch.float32) is sdpa_attention


def test_half_precision_on_a_gpu_gets_torchs_kernel_without_flash_attn(
    ampere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)

    assert select_attention(torch.device("cuda"), torch.float16) is torch_varlen_attention


def test_half_precision_on_a_gpu_gets_flash_attn_where_it_is_installed(
    ampere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash_attn = types.ModuleType("flash_attn")
    flash_attn.flash_attn_varlen_func = sdpa_attention  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", flash_attn)

    assert select_attention(torch.device("cuda"), torch.bfloat16) is flash_attn.flash_attn_varlen_func


def test_a_gpu_older_than_ampere_gets_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both FlashAttention-2 kernels need compute capability 8.0; a T4 has 7.5."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))

    assert select_attention(torch.device("cuda"), torch.float16) is sdpa_attention


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["torch", "flash_attn"])
@pytest.mark.parametrize("head_width", [64, 256])
@pytest.mark.parametrize(
    "queries", ["all", "first", "in windows", "causal after a prefix", "with slopes", "in groups of heads"]
)
def test_gpu_kernels_equal_sdpa(kernel: str, queries: str, head_width: int, cuda: str) -> None:
    """float16: queries of all tokens, of each pair's first, in windows of 64, causal, with ALiBi, and in grouped heads.

    Gemma's heads are 256 wide, which is the most that the kernels know.
    """
    k_lengths = [300, 128, 128, 17, 1]
    q_lengths = [1] * len(k_lengths) if queries == "first" else k_lengths
    window_size = (64, 64) if queries == "in windows" else EVERYWHERE
    if queries == "causal after a prefix":
        q_lengths, window_size = [200, 128, 1, 5, 1], CAUSAL
    qkv = [part.to(cuda, torch.float16) for part in draw_qkv(q_lengths, k_lengths, head_width=head_width)]
    if window_size == CAUSAL or queries == "in groups of heads":
        qkv[0] = torch.cat([qkv[0], -qkv[0]], dim=1)  # heads of keys that several of queries share
    if kernel == "torch":
        attention: WindowedAttention = torch_varlen_attention
    else:
        attention = pytest.importorskip("flash_attn").flash_attn_varlen_func

    slopes = alibi_slopes(HEADS) if queries == "with slopes" else None
    actual = run(attention, qkv, q_lengths, k_lengths, window_size, slopes)

    expected = run(sdpa_attention, qkv, q_lengths, k_lengths, window_size, slopes)
    torch.testing.assert_close(actual, expected, atol=5e-3, rtol=5e-3)
