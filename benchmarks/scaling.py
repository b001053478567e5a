"""What comparing costs, what the harness costs, and how the cost grows: P4, P5 and P6.

    python -m benchmarks.scaling --out results/bench/scaling.json [--rounds 5] [--models embedded,smollm2] [--quick]

methods    the first step of five methods in the demo: rollouts drawn, graded and scored once for all, against each for
           itself, and with the rollouts alone shared, as `fspo compare` shares them
overhead   the share of a whole training step (sample, grade, score, update, log) outside model forward, backward,
           optimizer and decoding
growth     a scoring and update pass against tokens, length, number of responses and vocabulary: slopes of log time on
           log size, by least squares through the medians
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.clock import Program, interleaved
from benchmarks.ratios import Ratio, line, write
from benchmarks.stopwatch import INSIDE_DECODING, WORK, Stopwatch, WatchedSampler, overhead, watched
from suite.config import CompareConfig, EvalConfig, TrainConfig
from suite.experiments.names import METHODS
from suite.experiments.recipe_book import FIVE, TRAINED
from suite.experiments.recipes import recipe
from suite.experiments.start import load, source_of
from suite.policy.loading import has_fast_bfloat16
from suite.records.rollout_set import RolloutSet
from suite.records.run_log import RunLog
from suite.records.trackers import Tracked, Trackers
from suite.replay.length_log import length_logger
from suite.training.rollout_source import RolloutSource
from suite.training.step_batches import Parts, credited, mini_batches, scored
from suite.training.trainer import Trainer, build_learner
from suite.training.update import optimizer_step
from suite.types import FinishReason, Rollout, State

OVERHEAD_GOAL = {"embedded": None, "smollm2": 0.05}
DOUBLING_GOAL = 2.1
SPLIT_GOAL = 1.1
"""Most that twice the responses with as many tokens in all may cost."""
PROMPT = 32
QUICK = {"problems_per_step": 4, "samples_per_problem": 4, "max_new_tokens": 32, "mini_batches": 2}


# --- methods: shared against separate -------------------------------------------------------------


@dataclass
class FirstStep(Trainer):
    """A cell's first step alone; with `given` parts, old log-probs that were scored for another cell."""

    given: Parts | None = field(default=None, kw_only=True)

    def once(self) -> None:
        """The step, without checkpoints."""
        self.start_model, self.state = None, {}
        self.learner = build_learner(self.source.model, self.method, self.config, self.seed)
        self._step(0)

    @torch.no_grad()
    def _score(self, rollouts: Sequence[Rollout], step: int) -> Parts:
        if self.given is None:
            return super()._score(rollouts, step)
        if self.learner.critic is None:
            return self.given
        values = self.learner.values
        return [[replace(p, batch=replace(p.batch, old_values=values(p.micro))) for p in mini] for mini in self.given]


@dataclass(frozen=True)
class FiveCells:
    """The first step of five cells with one seed. The sampler keeps the start model; every cell moves a copy of it."""

    config: TrainConfig
    source: RolloutSource
    folder: Path

    def cell(self, name: str, first: RolloutSet | None, given: Parts | None = None) -> None:
        """One method's step, its copy of the model and its log of updates included."""
        method, source = METHODS[name], replace(self.source, model=copy.deepcopy(self.source.model))
        logger = length_logger(method, source.settings.max_new_tokens)
        FirstStep(self.config, method, 0, source, self.folder, first, on_updates=logger, given=given).once()

    def separate(self) -> None:
        """Each draws, grades and scores for itself."""
        for name in FIVE:
            self.cell(name, None)

    def rollouts_shared(self) -> None:
        """Drawn and graded once."""
        first = self.source.record(0)
        for name in FIVE:
            self.cell(name, first)

    def all_shared(self) -> None:
        """Drawn, graded and scored once."""
        first = self.source.record(0)
        learner = build_learner(self.source.model, METHODS["fspo"], self.config)
        minis = mini_batches(first.rollouts, self.config, 0, 0, self.source.model.device)
        given = [[scored(learner, micro, first.rollouts) for micro in mini] for mini in minis]
        for name in FIVE:
            self.cell(name, first, given)


def five_methods(rounds: int, quick: bool) -> tuple[list[Ratio], dict[str, Any]]:
    """P4 on the demo's step."""
    demo = recipe("demo")
    config = replace(demo, train=replace(demo.train, **QUICK)) if quick else demo
    loaded, sampler = load(config.train)
    with tempfile.TemporaryDirectory() as folder:
        cells = FiveCells(config.train, source_of(config, loaded, sampler, 0), Path(folder))
        seconds = interleaved(
            {"separate": cells.separate, "rollouts": cells.rollouts_shared, "all": cells.all_shared}, rounds
        )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    what = {"rollouts": "rollouts and grades shared", "all": "rollouts, grades and first scores shared"}
    found = [
        Ratio("methods", f"five methods' step, {said} / separate", median[name] / median["separate"], 1.0, "lower")
        for name, said in what.items()
    ]
    return found, {"methods": FIVE, "seconds": seconds}


# --- overhead -------------------------------------------------------------------------------------


def step_config(model: str, quick: bool) -> TrainConfig:
    """The demo's step for the embedded model; four problems of eight responses for others."""
    if model == "embedded":
        train = recipe("demo").train
    else:
        precision = "bfloat16" if has_fast_bfloat16() else "float32"
        train = TrainConfig(
            TRAINED,
            model=model,
            problems_per_step=4,
            mini_batches=4,
            max_new_tokens=64,
            sampling_batch_size=64,
            tokens_per_micro_batch=1024,
            learning_rate=2e-6,
            precision=precision,
        )
    return replace(train, **QUICK) if quick else train


def harness(model: str, steps: int, quick: bool) -> dict[str, Any]:
    """Seconds of whole steps of a model by name, after one step unseen."""
    config, method = step_config(model, quick), METHODS["fspo"]
    loaded, sampler = load(config)
    whole = CompareConfig("overhead", ("grpo", "fspo"), (0,), config, EvalConfig(TRAINED))
    watch, totals = Stopwatch(), []
    source = source_of(whole, loaded, WatchedSampler(sampler, watch), 0)
    with tempfile.TemporaryDirectory() as folder, watched(watch, loaded.model):
        logger = length_logger(method, source.settings.max_new_tokens)
        trainer = FirstStep(config, method, 0, source, Path(folder), on_updates=logger)
        trainer.once()
        watch.seconds.clear()
        log = RunLog(Path(folder), 1, Trackers(("tensorboard",), Path(folder), Tracked("scaling", method.name, {})))
        for step in range(1, steps + 1):
            start = time.perf_counter()
            log.append(step, trainer._step(step))
            totals.append(time.perf_counter() - start)
    total = sum(totals)
    shares = {name: watch.seconds[name] / total for name in (*WORK, INSIDE_DECODING)}
    return {"model": model, "steps": totals, "shares": shares, "overhead": overhead(watch, total)}


# --- growth ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """Responses of one length after prompts of PROMPT tokens, `length` both together; a head of `vocabulary` rows."""

    responses: int
    length: int
    vocabulary: int = 64


AXES: dict[str, dict[int, Size]] = {
    "tokens": {n * 128: Size(n, 128) for n in (32, 64, 128, 256)},
    "length": {length: Size(64, length) for length in (64, 128, 256, 512)},
    "responses, as many tokens": {n: Size(n, 16384 // n) for n in (32, 64, 128, 256)},
    "vocabulary": {size: Size(64, 128, size) for size in (1024, 4096, 16384, 65536)},
}
QUICK_AXES: dict[str, dict[int, Size]] = {
    "tokens": {n * 48: Size(n, 48) for n in (4, 8)},
    "length": {length: Size(4, length) for length in (48, 96)},
    "responses, as many tokens": {n: Size(n, 768 // n) for n in (8, 16)},
    "vocabulary": {size: Size(4, 48, size) for size in (64, 1024)},
}
GOALS = {name: SPLIT_GOAL if name.startswith("responses") else DOUBLING_GOAL for name in AXES}


def scoring_and_update(size: Size) -> Program:
    """A pass over random responses by a random model with the embedded one's body."""
    method, noise = METHODS["fspo"], torch.Generator().manual_seed(0)
    ids = torch.randint(0, size.vocabulary, (size.responses, size.length), generator=noise).tolist()
    rollouts = [
        Rollout(
            problem_id=str(i // 4),
            sample_index=i % 4,
            seed=i,
            prompt_ids=tuple(row[:PROMPT]),
            response_ids=tuple(row[PROMPT:]),
            sampler_log_probs=(-1.0,) * (len(row) - PROMPT),
            finish_reason=FinishReason.STOP,
            reward=float(i % 2),
        )
        for i, row in enumerate(ids)
    ]
    model = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=384,
        tie_word_embeddings=True,
    )
    config = TrainConfig(TRAINED, mini_batches=4, tokens_per_micro_batch=4096, learning_rate=1e-6)
    learner = build_learner(Qwen3ForCausalLM(model).eval(), method, config)

    def run() -> None:
        minis = mini_batches(rollouts, config, 0, 0, "cpu")
        parts = [[scored(learner, micro, rollouts) for micro in mini] for mini in minis]
        state: State = {}
        for mini in credited(method, parts, rollouts):
            state = optimizer_step(learner, method, mini, state, size.length)[1]

    return run


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Of log seconds on log size, by least squares.

    >>> round(slope([1, 2, 4], [3, 6, 12]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def growth(rounds: int, quick: bool) -> tuple[list[Ratio], dict[str, Any]]:
    """P6: every axis with its seconds, slope, and the largest ratio of two neighbours."""
    found, content = [], {}
    for name, sizes in (QUICK_AXES if quick else AXES).items():
        print(f"growth with {name}", file=sys.stderr)
        seconds = interleaved({str(size): scoring_and_update(one) for size, one in sizes.items()}, rounds)
        median = [statistics.median(values) for values in seconds.values()]
        steep = slope(list(sizes), median)
        found.append(Ratio("growth", f"cost of doubling {name} (2 ^ slope)", 2**steep, GOALS[name], "lower"))
        content[name] = {"seconds": seconds, "slope": steep}
        if name == "tokens":
            worst = max(after / before for before, after in itertools.pairwise(median))
            found.append(Ratio("growth", "largest cost of one doubling of tokens", worst, DOUBLING_GOAL, "lower"))
    return found, content


def main() -> None:
    """Measures and writes one JSON file."""
    parser = argparse.ArgumentParser(description="What comparing costs, what the harness costs, how cost grows.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default="embedded,smollm2", help="models whose harness overhead is measured")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: shows that it runs")
    chosen = parser.parse_args()
    rounds = 1 if chosen.quick else chosen.rounds
    ratios, methods = five_methods(rounds, chosen.quick)
    print("\n".join(map(line, ratios)), flush=True)  # as they come: the whole takes long
    steps = []
    for model in chosen.models.split(","):
        print(f"overhead of {model}", file=sys.stderr)
        steps.append(found := harness(model, min(rounds, 3), chosen.quick))
        what = f"share of a step outside forward, backward, optimizer, decoding; {model}"
        ratios.append(Ratio("overhead", what, found["overhead"], OVERHEAD_GOAL.get(model), "lower"))
        print(line(ratios[-1]), flush=True)
    more, axes = growth(rounds, chosen.quick)
    ratios += more
    write(chosen.out, "scaling", chosen.quick, ratios, methods=methods, overhead=steps, growth=axes)
    print("\n".join(map(line, more)))


if __name__ == "__main__":
    main()
