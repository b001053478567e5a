"""Methods that are wrong in every way that we thought of: the run ends with the method's name, the step, and why."""

from __future__ import annotations

import random
from pathlib import Path

from faults.outcomes import REFUSED, SILENT, Counts, command

FAULTS = {
    "none": "return None",
    "a tuple": "return (good.objective, good.unclipped)",
    "a number": "return 1.0",
    "a scalar": "return replace(good, objective=good.objective.sum())",
    "one too few": "return replace(good, objective=good.objective[:-1])",
    "one a token": "return replace(good, objective=batch.log_probs * 1.0)",
    "a column": "return replace(good, objective=good.objective[:, None])",
    "integers": "return replace(good, objective=good.objective.detach().long())",
    "detached": "return replace(good, objective=good.objective.detach())",
    "nan": "return replace(good, objective=good.objective * float('nan'))",
    "inf": "return replace(good, objective=good.objective * float('inf'))",
    "huge": "return replace(good, objective=good.objective * 1e38)",
    "a numpy array": "return replace(good, objective=good.objective.detach().numpy())",
    "a list": "return replace(good, objective=good.objective.tolist())",
    "flags of floats": "return replace(good, clipped=good.clipped.float())",
    "flags of one": "return replace(good, clipped=good.clipped[:1])",
    "no flags": "return replace(good, clipped=None)",
    "weights of one": "return replace(good, log_weight=good.log_weight[:1])",
    "no divisor": "return replace(good, divisor='tokens')",
    "a key": "return {}['missing']",
    "an index": "return good.objective[99999]",
    "an assertion": "assert False",
    "a value": "raise ValueError('wrong [/red] \\x1b[31m\\n second line')",
    "memory": "raise MemoryError",
    "two arguments": "raise Two(1, 2)",
    "not to be pickled": "raise Unpicklable(lambda: 0)",
    "recursion": "return surrogate(batch, hyper, state)",
    "sys.exit": "import sys; sys.exit(3)",
    "sys.exit of nothing": "import sys; sys.exit()",
    "os._exit": "import os; os._exit(7)",
    "abort": "import os; os.abort()",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "stop iteration": "raise StopIteration",
    "ctrl-c": "raise KeyboardInterrupt",
    "in place": "batch.log_probs.add_(1); return good",
    "no gradient mode": "torch.set_grad_enabled(False); return replace(good, objective=good.objective.detach())",
}
DEADLY = ("os._exit", "abort", "killed")
"""They end the process, a check's as well: only a comparison, which has processes for its cells, can name them."""
WHEN = {"at once": "", "at the second update": "if calls[0] > 2: "}
TEMPLATE = """
import dataclasses, torch
from dataclasses import replace
from baselines.grpo import GRPO

class Two(Exception):
    def __init__(self, a, b):
        super().__init__(f"{{a}} {{b}}")

class Unpicklable(Exception):
    pass

calls = [0]

def fault(batch, hyper, state, good):
    {body}

def surrogate(batch, hyper, state):
    calls[0] += 1
    good = GRPO.surrogate(batch, hyper, state)
    {when}return fault(batch, hyper, state, good)
    return good

BROKEN = dataclasses.replace(GRPO, name="broken", surrogate=surrogate)
"""
SHORT = ["--steps", "1", "--workers", "1", "--set", "evaluation.limit=1"]


def campaign(size: int, seed: int, folder: Path) -> Counts:
    """So many broken methods: alternately checked, and trained beside a sound one."""
    counts, rng = Counts("broken methods"), random.Random(f"methods {seed}")
    cases = [(fault, when) for when in WHEN for fault in FAULTS]
    rng.shuffle(cases)
    for number in range(size):
        fault, when = cases[number % len(cases)]
        here = folder / f"method-{number}"
        here.mkdir()
        (here / "mine.py").write_text(TEMPLATE.format(body=FAULTS[fault], when=WHEN[when]))
        trained = ["compare", "smoke", "--methods", "mine:BROKEN,grpo", *SHORT, "--out", "out"]
        checked = number % 2 == 1 and fault not in DEADLY
        ended = command(["method", "check", "mine:BROKEN"] if checked else trained, here)
        word = ended.word
        if ended.code == 0:
            word = SILENT  # the check passed it, or a report was made of it
        elif word == REFUSED and not checked:
            named = "mine:BROKEN seed 0" in ended.said
            others = (here / "out" / "cells" / "grpo-seed0" / "result.json").exists()
            word = word if named and others else SILENT
        counts.add(word, f"{fault} {when}, {'checked' if checked else 'trained'}: {ended.said[-400:]}")
    return counts
