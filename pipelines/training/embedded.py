"""Trains the embedded cross-encoder: listwise softmax towards labels and a dense teacher, then Platt calibration.

    python -m pipelines.training.embedded train --groups groups.parquet --backbone DIR --work DIR --minutes 110
    python -m pipelines.training.embedded export --work DIR --backbone DIR --groups groups.parquet --output DIR

Training is bounded by CPU time and not by steps: the learning rate falls linearly to zero over `--minutes` on all
threads, however fast the machine is and whatever else runs there. It resumes from the last checkpoint in `--work`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from ..encoder import EncoderShape, PackedEncoder
from ..packing import TokenPair, pack, split_by_token_budget
from ..weights import expected_names, from_checkpoint, to_checkpoint
from .attention import padded_attention
from .card import evaluate, first_stage_order
from .mining import fastest_dtype

NEGATIVES = 7
GROUPS_PER_STEP = 8
TEACHER_SCALE = 20  # of cosines before the softmax: the scale that all-MiniLM itself was trained with
TEACHER_SHARE = (0.7, 0.2)  # of the loss, at the start and at the end: first how texts match, then what the labels say
MAX_QUERY_LENGTH = 80
MAX_LENGTHS = (96, 128, 128, 160, 160, 224)  # one is drawn per step, so that the model sees short and long cuts
MICRO_BATCH_TOKENS = 4096
PEAK_LEARNING_RATE = 1.2e-4
WARM_UP = 0.04  # share of the training time
WEIGHT_DECAY = 0.01
DEV_SETS = ("scifact", "nfcorpus", "cosqa", "medquad", "spider-table", "toolbench")
DEV_SAMPLE = (20, 20)


class PairTokenizer:
    """[CLS] query [SEP] passage [SEP], the passage cut to what fits; keeps the ids of texts, which groups repeat."""

    def __init__(self, tokenizer_file: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.cls, self.sep = self.tokenizer.encode("").ids
        self.known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens, at most 512."""
        if text not in self.known:
            self.known[text] = self.tokenizer.encode(text[:6000], add_special_tokens=False).ids[:512]
        return self.known[text]

    def pair(self, query: str, passage: str, max_length: int) -> TokenPair:
        """The pair in at most `max_length` tokens."""
        head = [self.cls, *self.ids(query)[:MAX_QUERY_LENGTH], self.sep]
        tail = [*self.ids(passage)[: max_length - len(head) - 1], self.sep]
        return TokenPair(head + tail, [0] * len(head) + [1] * len(tail))


def load_backbone(backbone: Path) -> PackedEncoder:
    """all-MiniLM-L6-v2 as a cross-encoder: pooler set to the identity, classifier new (mean 0, deviation 0.02)."""
    config = json.loads((backbone / "config.json").read_text())
    shape = shape_of(config)
    prefixed = {f"bert.{name}": tensor for name, tensor in load_file(backbone / "model.safetensors").items()}
    wanted = expected_names("bert", shape.num_hidden_layers)
    tensors = {name: tensor.float() for name, tensor in prefixed.items() if name in wanted}
    tensors["bert.pooler.dense.weight"] = torch.eye(shape.hidden_size)
    tensors["bert.pooler.dense.bias"] = torch.zeros(shape.hidden_size)
    tensors["classifier.weight"] = torch.randn(1, shape.hidden_size) * 0.02
    tensors["classifier.bias"] = torch.zeros(1)
    encoder = PackedEncoder(shape)
    encoder.load_state_dict(from_checkpoint(tensors, "bert", shape.num_hidden_layers))
    return encoder


def shape_of(config: dict[str, Any]) -> EncoderShape:
    """The sizes in a config.json."""
    return EncoderShape(**{name: config[name] for name in EncoderShape.__dataclass_fields__})


def draw_list(group: dict[str, Any], rng: random.Random) -> list[tuple[str, float]]:
    """(text, cosine to the query) of the positive and NEGATIVES others: two by BM25, two by the dense order, two of
    those that came with the source, the rest random; fewer where the source is too small.
    """
    chosen = {group["positive"]: group["positive_cosine"]}
    for kind, wanted in (("bm25", 3), ("dense", 5), ("given", 7), ("random", 8), ("bm25", 8), ("dense", 8)):
        ranked = list(zip(group[kind], group[f"{kind}_cosines"], strict=True))
        for text, cosine in rng.sample(ranked, len(ranked)):
            if len(chosen) >= wanted:
                break
            chosen.setdefault(text, cosine)
    return list(chosen.items())


def backward_on_lists(
    encoder: PackedEncoder,
    lists: Sequence[Sequence[TokenPair]],
    cosines: Sequence[Sequence[float]],
    teacher_share: float,
) -> tuple[float, float]:
    """Adds the gradients of one step; returns the loss and the share of lists whose positive, the first, won.

    The target of a list is `teacher_share` of the softmax over the dense cosines, and the label for the rest.
    A softmax needs all pairs of a list in one pass, so whole lists, not pairs, are packed into micro-batches.
    """
    lengths = [sum(len(pair.input_ids) for pair in one) for one in lists]
    total = 0.0
    right = 0
    for run in split_by_token_budget(lengths, MICRO_BATCH_TOKENS):
        members = [pair for i in run for pair in lists[i]]
        order = sorted(range(len(members)), key=lambda i: len(members[i].input_ids))
        with torch.autocast("cpu", fastest_dtype(), enabled=fastest_dtype() != torch.float32):
            sorted_logits = encoder(pack([members[i] for i in order]))
        logits = sorted_logits[torch.tensor(order).argsort()].split([len(lists[i]) for i in run])
        losses = [
            F.cross_entropy(one, list_target(cosines[i], teacher_share)) for i, one in zip(run, logits, strict=True)
        ]
        loss = torch.stack(losses).sum()
        (loss / len(lists)).backward()
        total += float(loss.detach())
        right += sum(int(one.argmax() == 0) for one in logits)
    return total / len(lists), right / len(lists)


def list_target(cosines: Sequence[float], teacher_share: float) -> torch.Tensor:
    """What the softmax over a list's logits should be; the positive is the first."""
    target = teacher_share * torch.softmax(TEACHER_SCALE * torch.tensor(cosines), dim=0)
    target[0] += 1 - teacher_share
    return target


def learning_rate(progress: float) -> float:
    """Linear warm-up, then linear decay to zero; `progress` is the share of the training time that is over."""
    return PEAK_LEARNING_RATE * min(progress / WARM_UP, max(0.0, (1 - progress) / (1 - WARM_UP)))


@torch.inference_mode()
def score(encoder: PackedEncoder, pairs: list[TokenPair]) -> np.ndarray:
    """Logits of the pairs, float32 [len(pairs)]."""
    logits = np.zeros(len(pairs), dtype=np.float32)
    for run in split_by_token_budget([len(pair.input_ids) for pair in pairs], MICRO_BATCH_TOKENS):
        logits[run] = encoder(pack([pairs[i] for i in run])).numpy()
    return logits


def dev_report(encoder: PackedEncoder, tokenizer: PairTokenizer, folder: Path) -> str:
    """nDCG@10 by set, first stage -> model, on a small fixed sample: enough to see which way training goes."""

    def order(query: str, documents: list[str]) -> Sequence[float]:
        logits = score(encoder, [tokenizer.pair(query, document, 192) for document in documents])
        return [float(logit) for logit in logits]

    report = []
    for name in DEV_SETS:
        results = evaluate(folder / name, {"before": first_stage_order, "after": order}, sample=DEV_SAMPLE)
        report.append(f"{name} {results['before']['nDCG@10']:.3f} -> {results['after']['nDCG@10']:.3f}")
    return ", ".join(report)


def load_groups(path: Path, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Groups to train on, shuffled, and groups held back."""
    groups = pq.read_table(path).to_pylist()
    random.Random(seed).shuffle(groups)
    usable = [group for group in groups if len(draw_list(group, random.Random(0))) > 1]
    return [one for one in usable if not one["held_back"]], [one for one in usable if one["held_back"]]


def train(args: argparse.Namespace) -> None:
    """Trains until `--minutes` are over, from the last checkpoint on."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    encoder = load_backbone(args.backbone)
    encoder.attention = padded_attention
    encoder.word_embeddings.weight.requires_grad_(False)  # half of the parameters; a short run moves them little
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    decayed = {"weight_decay": WEIGHT_DECAY, "params": [p for p in trained if p.ndim > 1]}
    free = {"weight_decay": 0.0, "params": [p for p in trained if p.ndim == 1]}
    optimizer = torch.optim.AdamW([decayed, free], lr=PEAK_LEARNING_RATE)
    groups, _ = load_groups(args.groups, args.seed)
    tokenizer = PairTokenizer(args.backbone / "tokenizer.json")

    step, seconds = 0, 0.0
    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        encoder.load_state_dict(saved["encoder"])
        optimizer.load_state_dict(saved["optimizer"])
        step, seconds = saved["step"], saved["seconds"]
    args.work.mkdir(parents=True, exist_ok=True)

    losses: list[float] = []
    rights: list[float] = []
    saved_at = evaluated_at = seconds
    while seconds < args.minutes * 60:
        started = time.process_time()
        rng = random.Random(f"{args.seed}/{step}")
        at = step * GROUPS_PER_STEP
        chosen = [groups[i % len(groups)] for i in range(at, at + GROUPS_PER_STEP)]
        max_length = rng.choice(MAX_LENGTHS)
        drawn = [draw_list(group, rng) for group in chosen]
        lists = [
            [tokenizer.pair(group["query"], text, max_length) for text, _ in one]
            for group, one in zip(chosen, drawn, strict=True)
        ]
        progress = seconds / (args.minutes * 60)
        rate = learning_rate(progress)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        teacher_share = TEACHER_SHARE[0] + (TEACHER_SHARE[1] - TEACHER_SHARE[0]) * progress
        cosines = [[cosine for _, cosine in one] for one in drawn]
        loss, right = backward_on_lists(encoder, lists, cosines, teacher_share)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
        rights.append(right)
        step += 1
        seconds += (time.process_time() - started) / args.threads
        if step % 20 == 0:
            print(
                f"step {step} {seconds / 60:.1f} min, loss {np.mean(losses[-100:]):.3f}, "
                f"positive first {np.mean(rights[-100:]):.3f}, lr {rate:.2e}",
                flush=True,
            )
        if seconds - saved_at > 180 or seconds >= args.minutes * 60:
            saved_at = seconds
            state = {"encoder": encoder.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state | {"step": step, "seconds": seconds}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
        if args.dev and (seconds - evaluated_at > args.dev_minutes * 60 or seconds >= args.minutes * 60):
            evaluated_at = seconds
            print(f"step {step}: {dev_report(encoder, tokenizer, args.dev)}", flush=True)


def platt(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Scale and bias of Platt's sigmoid (1999), both classes weighted equally, so that 0.5 is the even bet."""
    scale_bias = torch.tensor([1.0, 0.0], requires_grad=True)
    weights = torch.where(labels > 0, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    optimizer = torch.optim.LBFGS([scale_bias], max_iter=100)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits * scale_bias[0] + scale_bias[1], labels, weight=weights)
        value.backward()
        return value

    optimizer.step(loss)
    scale, bias = scale_bias.detach().tolist()
    return scale, bias


def export(args: argparse.Namespace) -> None:
    """Calibrates the last checkpoint and writes it as a fp16 model directory."""
    torch.set_num_threads(args.threads)
    encoder = load_backbone(args.backbone)
    saved = torch.load(args.work / "checkpoint.pt", weights_only=True)
    encoder.load_state_dict(saved["encoder"])
    _, held_back = load_groups(args.groups, args.seed)
    tokenizer = PairTokenizer(args.backbone / "tokenizer.json")
    rng = random.Random(args.seed)
    lists = [[tokenizer.pair(group["query"], text, 224) for text, _ in draw_list(group, rng)] for group in held_back]
    logits = torch.from_numpy(score(encoder, [pair for one in lists for pair in one]))
    labels = torch.cat([F.one_hot(torch.tensor(0), len(one)).float() for one in lists])
    scale, bias = platt(logits, labels)
    fold_in(encoder, scale, bias)
    first = np.mean([int(one.argmax()) == 0 for one in logits.split([len(one) for one in lists])])
    print(f"steps {saved['step']}, minutes {saved['seconds'] / 60:.1f}, held-back positive first {first:.3f}")
    print(f"Platt: scale {scale:.3f}, bias {bias:.3f}")
    write_model(encoder, args.backbone, args.output)


def fold_in(encoder: PackedEncoder, scale: float, bias: float) -> None:
    """Makes the classifier give `scale` times its logit plus `bias`, so that Platt's sigmoid is the plain one."""
    with torch.no_grad():
        encoder.head_out.weight.mul_(scale)
        encoder.head_out.bias.mul_(scale).add_(bias)


def write_model(encoder: PackedEncoder, backbone: Path, output: Path) -> None:
    """Writes a fp16 model directory that `Reranker` and transformers load; tokenizer and sizes are the backbone's."""
    output.mkdir(parents=True, exist_ok=True)
    tensors = to_checkpoint(encoder.state_dict(), "bert", encoder.shape.num_hidden_layers)
    halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(halves, output / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((backbone / "config.json").read_text())
    kept = {name: config[name] for name in EncoderShape.__dataclass_fields__}
    kept |= {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "pad_token_id": 0,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "dtype": "float16",
        "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
    }
    (output / "config.json").write_text(json.dumps(kept, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(backbone / name, output / name)
    files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    sums = [f"{hashlib.sha256((output / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    (output / "SHA256SUMS").write_text("".join(sums))
    for name in files:
        (output / name).chmod(0o644)  # safetensors writes 0600, which a wheel would carry on


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("train", train), ("export", export)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--groups", type=Path, required=True, help="table that mining.py wrote")
        command.add_argument("--backbone", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
        command.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--seed", type=int, default=0)
        if name == "export":
            command.add_argument("--output", type=Path, required=True)
        else:
            command.add_argument("--minutes", type=float, default=110, help="CPU time per thread")
            command.add_argument("--dev", type=Path, help="folder of dev sets; reports nDCG@10 while training")
            command.add_argument("--dev-minutes", type=float, default=15)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
