"""The log-prob op, from hidden states to log-probs of chosen tokens, against other people's: time, memory, error.

    python -m benchmarks.log_probs --out results/bench/log_probs.json [--rounds 5] [--quick]

Hidden states and head are random, the chosen tokens drawn from what they say, in sequences of 128. Two passes:
`forward` is a first scoring (log-probs and entropy, no gradient), `both` an update's (log-probs, then the gradients of
hidden states and head). Sides:

ours     suite.policy.vocabulary_tiles.log_probs_of: tiles of the vocabulary, no logits kept beyond 128 MiB
plain    all logits, log_softmax in float32, gather
trl      all logits, TRL's selective_log_softmax and entropy_from_logits, as its trainers call them
liger    Liger's fused linear cross entropy, -log p of each token; it has no entropy, and gradients of the sum alone

Errors are against float64 logits of the same rounded inputs: what the op adds, not what rounding the weights does.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.clock import interleaved
from benchmarks.ratios import Ratio, line, write
from suite.policy.loading import has_fast_bfloat16
from suite.policy.vocabulary_tiles import log_probs_of
from suite.records.costs import Clock, peak_bytes

SEQUENCE = 128
MIB = 2**20
PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "bfloat16, float32 head": (torch.bfloat16, torch.float32),
}
"""Precision of hidden states and weights, and of the head's product."""
VOCABULARIES, TOKENS, WIDTH = (20, 16_384, 49_152, 151_936), 1024, 576
QUICK_VOCABULARIES, QUICK_TOKENS, QUICK_WIDTH = (20, 2048), 256, 32
MEMORY_GROWTH = 1.1
"""Most that memory beyond the gradients may grow from the second largest vocabulary to the largest."""
Found = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Case:
    """One size of the op: `tokens` rows of `width`, a head of `vocabulary` rows, arithmetic named in PRECISIONS."""

    vocabulary: int
    precision: str
    tokens: int = TOKENS
    width: int = WIDTH
    device: str = "cpu"


@dataclass(frozen=True)
class Inputs:
    """hidden [K, d], weight [V, d], targets [K]; `head` is what the product is computed in."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    head: torch.dtype

    def logits(self) -> Tensor:
        """All of them, [K / 128, 128, V]."""
        return linear(self.hidden.to(self.head), self.weight.to(self.head)).unflatten(0, (-1, SEQUENCE))


def inputs(case: Case) -> Inputs:
    """The case's tensors, always the same: logits spread with standard deviation 3 about 0."""
    noise = torch.Generator(case.device).manual_seed(0)
    options: dict[str, Any] = {"generator": noise, "device": case.device}
    kept, head = PRECISIONS[case.precision]
    hidden = torch.randn(case.tokens, case.width, **options).to(kept)
    weight = torch.randn(case.vocabulary, case.width, **options).mul_(3 / case.width**0.5).to(kept)
    rows = []
    for part in hidden.split(SEQUENCE):
        scores = linear(part.float(), weight.float())
        rows.append((scores - torch.empty_like(scores).exponential_(generator=noise).log_()).argmax(dim=1))
    return Inputs(hidden.requires_grad_(), weight.requires_grad_(), torch.cat(rows), head)


# --- the sides: log-probs [K] and, where asked for, entropy ---------------------------------------


def ours(x: Inputs, entropy: bool) -> Found:
    """The suite's op."""
    return log_probs_of(x.hidden, x.weight, None, x.targets, dtype=x.head, entropy=entropy)


def plain(x: Inputs, entropy: bool) -> Found:
    """What everybody writes first."""
    rows = torch.log_softmax(x.logits().float(), dim=-1)
    chosen = rows.gather(-1, x.targets.view(-1, SEQUENCE, 1)).flatten()
    return chosen, -(rows.exp() * rows).sum(dim=-1).flatten() if entropy else None


def trl(x: Inputs, entropy: bool) -> Found:
    """TRL's two functions on all logits."""
    utils = importlib.import_module("trl.trainer.utils")
    logits = x.logits()
    chosen = utils.selective_log_softmax(logits, x.targets.view(-1, SEQUENCE)).flatten()
    return chosen, utils.entropy_from_logits(logits).flatten() if entropy else None


def liger(x: Inputs, entropy: bool) -> Found:
    """Liger's fused linear cross entropy: by token without gradients, their sum with them."""
    op = importlib.import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
    kind = "sum" if torch.is_grad_enabled() else "none"
    return -op(x.hidden.to(x.head), x.weight.to(x.head), x.targets, reduction=kind), None


Side = Callable[[Inputs, bool], Found]
SIDES: dict[str, Side] = {"ours": ours, "plain": plain, "trl": trl, "liger": liger}


def runnable(device: str) -> tuple[dict[str, Side], dict[str, str]]:
    """The sides that run on this device, and why the others do not."""
    sides, reasons = {}, {}
    small = inputs(Case(20, "float32", SEQUENCE, 16, device))
    for name, side in SIDES.items():
        try:
            forward(side, small)
            both(side, small)
        except (ImportError, RuntimeError, AttributeError, ValueError, AssertionError) as error:
            reasons[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
        else:
            sides[name] = side
    return sides, reasons


@torch.no_grad()
def forward(side: Side, x: Inputs) -> Found:
    """A first scoring."""
    found = side(x, True)
    _wait(x)
    return found


def both(side: Side, x: Inputs) -> None:
    """Log-probs and the gradients of their sum."""
    x.hidden.grad = x.weight.grad = None
    side(x, False)[0].sum().backward()
    _wait(x)


def _wait(x: Inputs) -> None:
    if x.hidden.is_cuda:
        torch.cuda.synchronize()


# --- what is measured -----------------------------------------------------------------------------


def errors(case: Case, sides: Mapping[str, Side]) -> dict[str, dict[str, float]]:
    """Of each side against float64, in nats: a token's mean and largest, a sequence sum's root mean square."""
    x = inputs(case)
    wide = [linear(part.double(), x.weight.detach().double()) for part in x.hidden.detach().split(SEQUENCE)]
    exact = torch.cat([torch.log_softmax(part, dim=1) for part in wide]).gather(1, x.targets[:, None])[:, 0]
    found = {}
    for name, side in sides.items():
        off = forward(side, x)[0].double() - exact
        of_sequences = off.view(-1, SEQUENCE).sum(dim=1)
        found[name] = {
            "token_mean": float(off.abs().mean()),
            "token_max": float(off.abs().max()),
            "sequence_rms": float(of_sequences.square().mean().sqrt()),
        }
    return found


def memory(case: Case, side: str, kind: str) -> dict[str, float]:
    """Largest memory of one pass beyond the inputs, in MiB; in this process, which should do nothing else."""
    warm = inputs(Case(20, case.precision, SEQUENCE, 16, case.device))
    x = inputs(case)
    run = forward if kind == "forward" else both
    run(SIDES[side], warm)
    _give_back()
    Clock()  # the peak begins again
    before = peak_bytes()
    run(SIDES[side], x)
    extra = peak_bytes() - before
    gradients = 0 if kind == "forward" else sum(t.numel() * t.element_size() for t in (x.hidden, x.weight))
    return {"extra_mib": extra / MIB, "beyond_gradients_mib": (extra - gradients) / MIB}


def _give_back() -> None:
    """Return what was freed to the system where glibc can: a pass that filled it again would look free."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def memory_apart(case: Case, sides: Iterable[str]) -> dict[str, dict[str, dict[str, float]]]:
    """`memory` of every pass and side, each in a process that has imported everything and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    installed = [module for module in ("trl.trainer.utils",) if "trl" in sides]
    context.set_forkserver_preload(
        ["benchmarks.clock", "benchmarks.ratios", "suite.policy.vocabulary_tiles", *installed]
    )
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes:
        return {
            kind: {side: processes.submit(memory, case, side, kind).result() for side in sides}
            for kind in ("forward", "both")
        }


def is_slow(precision: str, device: str) -> bool:
    """Whether products of this precision have no hardware here: they take ten to forty times as long as in float32."""
    return device == "cpu" and PRECISIONS[precision][1] == torch.bfloat16 and not has_fast_bfloat16()


def measured(case: Case, sides: Mapping[str, Side], rounds: int) -> dict[str, Any]:
    """Times, peaks and errors of every side in one case; errors alone, of fewer tokens, where products are slow."""
    if is_slow(case.precision, case.device):
        case = replace(case, tokens=min(case.tokens, 2 * SEQUENCE))
        return {**asdict(case), "seconds": {}, "memory": {}, "errors": errors(case, sides)}
    x = inputs(case)
    seconds = {
        kind: interleaved({name: lambda side=side, run=run: run(side, x) for name, side in sides.items()}, rounds)
        for kind, run in (("forward", forward), ("both", both))
    }
    memories = memory_apart(case, sides)
    return {**asdict(case), "seconds": seconds, "memory": memories, "errors": errors(case, sides)}


def ratios(cases: list[dict[str, Any]]) -> list[Ratio]:
    """Peers against ours at the largest vocabulary: time, memory, and errors in sums; and our memory's growth."""
    found = []
    *_, second, largest = sorted({case["vocabulary"] for case in cases})
    of = {(case["vocabulary"], case["precision"]): case for case in cases}
    for precision in PRECISIONS:
        case, smaller = of[largest, precision], of[second, precision]
        for peer in (name for name in case["errors"] if name != "ours"):
            at = f"{precision}, vocabulary {largest}"
            for kind, seconds in case["seconds"].items():
                median = {name: statistics.median(values) for name, values in seconds.items()}
                what = f"{peer} / ours, seconds, {kind}, {at}"
                found.append(Ratio("log_probs", what, median[peer] / median["ours"], 1.0, "higher"))
            for kind, peaks in case["memory"].items():
                peak = {name: peaks[name]["extra_mib"] for name in (peer, "ours")}
                what = f"{peer} / ours, peak memory, {kind}, {at}"
                found.append(Ratio("log_probs", what, peak[peer] / max(peak["ours"], 1.0), 1.0, "higher"))
            wrong = {name: case["errors"][name]["sequence_rms"] for name in (peer, "ours")}
            what = f"{peer} / ours, error of a sequence sum, {at}"
            found.append(Ratio("log_probs", what, wrong[peer] / wrong["ours"], None, "higher"))
        if not case["memory"]:
            continue
        pair = [one["memory"]["both"]["ours"]["beyond_gradients_mib"] for one in (case, smaller)]
        what = f"ours, memory beyond gradients, vocabulary {largest} / {second}, {precision}"
        found.append(Ratio("log_probs", what, pair[0] / max(pair[1], 1.0), MEMORY_GROWTH, "lower"))
    return found


def main() -> None:
    """Measures and writes one JSON file."""
    parser = argparse.ArgumentParser(description="The log-prob op against others: time, memory, error.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds: shows that it runs")
    chosen = parser.parse_args()
    sizes = (QUICK_VOCABULARIES, QUICK_TOKENS, QUICK_WIDTH) if chosen.quick else (VOCABULARIES, TOKENS, WIDTH)
    sides, reasons = runnable(chosen.device)
    slow = [precision for precision in PRECISIONS if is_slow(precision, chosen.device)]
    reasons |= {f"times in {precision}": "this machine has no such products in hardware" for precision in slow}
    for name, reason in reasons.items():
        print(f"{name} did not run: {reason}")
    cases = []
    for vocabulary in sizes[0]:
        for precision in PRECISIONS:
            case = Case(vocabulary, precision, *sizes[1:], chosen.device)
            print(case, file=sys.stderr)
            cases.append(measured(case, sides, 2 if chosen.quick else chosen.rounds))
    found = ratios(cases)
    write(chosen.out, "log_probs", chosen.quick, found, cases=cases, did_not_run=reasons)
    print("\n".join(map(line, found)))


if __name__ == "__main__":
    main()
