"""Grading throughput: a plain loop over math-verify against our pool and our grader, on the same answers, interleaved.

    python -m benchmarks.grading --data-dir DATA --out results/bench/grading.json

The answers are the gold answers of the sets, each in a box: `own`, graded against itself, and `neighbour`, against the
gold answer of the problem before it. Three sides grade them in turn, round after round:

plain        verify(parse(gold), parse(response)) in this process, with the library's own time-outs
pool         the same two calls for every answer, in our worker processes (the panel's rule `math_verify`)
grader       the reward's rule: texts and exact numbers first, computer algebra in the same workers for the rest

`pool_over_plain` is what the processes alone bring; `grader_over_plain` is what a user gets. The workers stand before
the clock starts; starting them is reported apart. Nothing is remembered from one round to the next. CPU seconds, of
this process and the workers, say what a side costs on a machine that has other work.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.ratios import Ratio
from suite.records.files import write_atomically
from suite.records.provenance import machine, versions
from suite.types import UserError, Verdict
from tasks import grading, symbolic
from tasks.jsonl import read_problems

SETS = ("aime24", "aime25", "amc23", "math500", "minerva_math", "olympiadbench", "gsm8k", "svamp")
ANSWERS = 2000
QUICK_ANSWERS = 40
ROUNDS = 3
Row = tuple[str, str, str]
"""id, response, gold."""


def ordinary_answers(data_dir: Path, count: int) -> list[tuple[str, str]]:
    """(id, gold) of `count` problems: every problem of the smaller sets, an equal share of the larger ones."""
    rows: list[tuple[str, str]] = []
    rng = random.Random(0)
    sets = [read_problems(data_dir / name / "test.jsonl", name, "1") for name in SETS]
    for left, problems in zip(range(len(SETS), 0, -1), sorted(sets, key=len), strict=True):
        share = min(len(problems), (count - len(rows)) // left)
        rows += [(p.id, p.gold) for p in rng.sample(problems, share)]
    if len(rows) < count:
        raise UserError(f"{data_dir}: {len(rows)} answers in all, {count} wanted; lower --answers")
    rng.shuffle(rows)
    return rows


def boxed(rows: Sequence[tuple[str, str]], neighbours: bool) -> list[Row]:
    """Each gold answer in a box as the response, against itself or against the gold answer before it."""
    golds = [rows[i - neighbours][1] for i in range(len(rows))]
    return [
        (name, f"So the answer is $\\boxed{{{answer}}}$.", gold)
        for (name, answer), gold in zip(rows, golds, strict=True)
    ]


def plain(rows: Sequence[Row]) -> list[Verdict]:
    """The loop that everybody writes first."""
    from math_verify import parse, verify

    return [
        Verdict.CORRECT if verify(parse(f"\\boxed{{{gold}}}"), parse(response)) else Verdict.WRONG
        for _, response, gold in rows
    ]


def by_rule(name: str) -> Callable[[Sequence[Row]], list[Verdict]]:
    """A rule of the panel that remembers nothing from an earlier call."""

    def verdicts(rows: Sequence[Row]) -> list[Verdict]:
        grading.forget()
        return grading.PANEL[name].judge([(response, gold) for _, response, gold in rows])

    return verdicts


SIDES = {"plain": plain, "pool": by_rule("math_verify"), "grader": by_rule(grading.REWARD)}


def measured(rows: Sequence[Row], rounds: int) -> dict[str, Any]:
    """Seconds of every side in every round, ratios of their medians, and which rows are not graded correct."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    cpu_seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    verdicts: dict[str, list[Verdict]] = {}
    for turn in range(rounds):
        order = list(SIDES)[turn % len(SIDES) :] + list(SIDES)[: turn % len(SIDES)]
        for side in order:
            start, cpu_start = time.perf_counter(), cpu_of_all()
            verdicts[side] = SIDES[side](rows)
            seconds[side].append(time.perf_counter() - start)
            cpu_seconds[side].append(cpu_of_all() - cpu_start)
            print(f"round {turn + 1} {side:<7} {seconds[side][-1]:8.2f} s", file=sys.stderr)
    medians = {side: statistics.median(found) for side, found in seconds.items()}
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "answers_per_second": {side: len(rows) / medians[side] for side in SIDES},
        "pool_over_plain": medians["plain"] / medians["pool"],
        "grader_over_plain": medians["plain"] / medians["grader"],
        "verdicts": {side: {v: found.count(v) for v in Verdict} for side, found in verdicts.items()},
        "not_correct": {
            side: {row[0]: v for row, v in zip(rows, found, strict=True) if v != Verdict.CORRECT}
            for side, found in verdicts.items()
        },
    }


def cpu_of_all() -> float:
    """CPU seconds so far of this process and its workers, those that ended included."""
    now = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = [psutil.Process(pid).cpu_times() for pid in symbolic.own_pool().pids]
    return sum(used.ru_utime + used.ru_stime for used in now) + sum(times.user + times.system for times in alive)


def main() -> None:
    """Measures and writes one JSON file."""
    parser = argparse.ArgumentParser(description="Grading throughput against a plain loop over math-verify.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=ANSWERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="few answers, one round: shows that it runs")
    chosen = parser.parse_args()
    try:
        rows = ordinary_answers(chosen.data_dir, QUICK_ANSWERS if chosen.quick else chosen.answers)
        start = time.perf_counter()
        symbolic.own_pool().start()
        started = time.perf_counter() - start
    except UserError as error:
        sys.exit(f"error: {error}")
    plain(boxed(rows[:2], neighbours=False))  # builds this process's parser before the clock starts
    rounds = 1 if chosen.quick else chosen.rounds
    results: dict[str, Any] = {"own": measured(boxed(rows, neighbours=False), rounds)}
    results["neighbour"] = measured(boxed(rows, neighbours=True), rounds)
    del results["neighbour"]["not_correct"]
    content = {
        "benchmark": "grading",
        "command": ["python", "-m", "benchmarks.grading", *sys.argv[1:]],
        "quick": chosen.quick,
        "answers": len(rows),
        "workers": symbolic.own_pool().workers,
        "start_seconds": started,
        "retried": symbolic.own_pool().retried,
        "results": results,
        "ratios": [
            asdict(Ratio("grading", f"answers a second, {side} / plain loop, {kind}", found[key], None, "higher"))
            for kind, found in results.items()
            for side, key in (("pool", "pool_over_plain"), ("grader", "grader_over_plain"))
        ],
        "versions": versions(),
        "machine": machine(),
    }
    write_atomically(chosen.out, json.dumps(content, indent=1) + "\n")
    for kind, found in results.items():
        shown = ", ".join(f"{side} {found['answers_per_second'][side]:.0f}/s" for side in SIDES)
        print(f"{kind}: {shown}; pool {found['pool_over_plain']:.2f} x, grader {found['grader_over_plain']:.2f} x")


if __name__ == "__main__":
    main()
