"""Seconds of the bootstrap behind a report, beside rliable's for its nearest job.

    python -m benchmarks.bootstrap --out results/bench/bootstrap.json

ours      `suite.statistics.bootstrap.bootstrap` as a report calls it: base and 5 methods x 8 seeds x 500 problems x 8
samples, 21
          quantities (6 accuracies, 15 paired differences), 10,000 draws of seeds and problems
rliable   `get_interval_estimates` of the means of the same 5 methods over a matrix [8 seeds, 500 problems] of avg@8,
          10,000 draws of seeds within each problem (its stratified bootstrap): no problems drawn, no differences

rliable is no dependency, and what it needs (arch 7.2) does not import beside pandas 3: `--rliable-python` names the
interpreter of an environment that has it (`pip install rliable 'pandas<3'`); its side runs there. Without one the file
says so. With fewer `--rliable-repetitions` its seconds are also given for as many draws as ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from suite.records.files import write_atomically
from suite.records.provenance import machine, versions
from suite.statistics.bootstrap import REPETITIONS, bootstrap
from suite.statistics.variance import Cells

METHODS, SEEDS, PROBLEMS, SAMPLES = 5, 8, 500, 8
LIMIT_SECONDS = 10.0


def accuracies(problems: int = PROBLEMS) -> dict[str, np.ndarray]:
    """avg@8 [seeds, problems] of a base model and five methods, from binomial counts with fixed seed."""
    rng = np.random.default_rng(0)
    chance = rng.beta(1, 1, (1, problems))
    made = {"base": rng.binomial(SAMPLES, chance) / SAMPLES}
    return made | {f"method{i}": rng.binomial(SAMPLES, chance, (SEEDS, problems)) / SAMPLES for i in range(METHODS)}


def quantities(models: dict[str, np.ndarray]) -> dict[str, Cells]:
    """Every accuracy and every paired difference, as `suite.statistics.compare.compare` asks for them."""
    single: dict[str, Cells] = {name: {"set": matrix} for name, matrix in models.items()}
    pairs = itertools.combinations(models, 2)
    return single | {f"{b} - {a}": {"set": models[b] - models[a]} for a, b in pairs}


RLIABLE = """
import importlib.metadata, json, sys, time
import numpy as np
from rliable import library

settings = json.load(sys.stdin)
scores = {name: np.array(matrix) for name, matrix in settings["scores"].items()}
seconds = []
for _ in range(settings["rounds"]):
    start = time.perf_counter()
    library.get_interval_estimates(scores, lambda x: np.array([x.mean()]), reps=settings["repetitions"])
    seconds.append(time.perf_counter() - start)
packages = ("rliable", "arch", "numpy", "pandas")
print(json.dumps({"seconds": seconds, "versions": {name: importlib.metadata.version(name) for name in packages}}))
"""


def rliable_side(python: Path, models: dict[str, np.ndarray], repetitions: int, rounds: int) -> dict[str, Any]:
    """rliable's raw seconds and versions, measured by another interpreter."""
    scores = {name: matrix.tolist() for name, matrix in models.items() if name != "base"}
    asked = json.dumps({"scores": scores, "repetitions": repetitions, "rounds": rounds})
    done = subprocess.run([str(python), "-c", RLIABLE], input=asked, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "repetitions": repetitions}


def seconds(job: Callable[[], object], rounds: int) -> list[float]:
    """Wall-clock seconds of every round, after one round unseen."""
    job()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        job()
        found.append(time.perf_counter() - start)
    return found


def measured(
    rounds: int,
    repetitions: int = REPETITIONS,
    problems: int = PROBLEMS,
    rliable: tuple[Path, int] | None = None,
) -> dict[str, Any]:
    """Raw seconds, the best of each side, what was run, versions and machine. `rliable`: interpreter, repetitions."""
    models = accuracies(problems)
    asked = quantities(models)
    ours = seconds(lambda: bootstrap(asked, seed=0, repetitions=repetitions), rounds)
    found = {
        "job": {
            "methods": METHODS,
            "seeds": SEEDS,
            "problems": problems,
            "samples": SAMPLES,
            "repetitions": repetitions,
            "quantities": len(asked),
        },
        "seconds": ours,
        "best": min(ours),
        "limit_seconds": LIMIT_SECONDS,
        "rliable": "not measured: no --rliable-python",
        "versions": versions(),
        "machine": machine(),
    }
    if rliable:
        side = rliable_side(rliable[0], models, rliable[1], rounds)
        side["best_for_as_many_draws"] = min(side["seconds"]) * repetitions / side["repetitions"]
        found["rliable"] = side | {"over_ours": side["best_for_as_many_draws"] / found["best"]}
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rliable-python", type=Path)
    parser.add_argument("--rliable-repetitions", type=int, default=REPETITIONS)
    chosen = parser.parse_args(arguments)
    other = (chosen.rliable_python, chosen.rliable_repetitions) if chosen.rliable_python else None
    found = measured(chosen.rounds, rliable=other)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(chosen.out, json.dumps(found, indent=1) + "\n")
    print(f"ours {found['best']:.2f} s (limit {LIMIT_SECONDS:.0f} s); rliable: {found['rliable']}")


if __name__ == "__main__":
    main()
