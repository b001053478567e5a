"""GSPO, arXiv 2507.18071, with a band ten times as wide: the equation of `methods.gspo`, other numbers in `hyper`."""

from __future__ import annotations

from methods import gspo
from methods.facts import RATIO_MISTAKES, RATIO_VARIANTS, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_mean
from peers.pairings import PER_RESPONSE, TRL_GSPO, clip_ratios, epsilons, trl, verl

DIVISOR = gspo.DIVISOR
credit = gspo.credit
response = gspo.response

# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 3e-3, "clip_high": 4e-3, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [*RATIO_MISTAKES, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = RATIO_VARIANTS
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl("gspo_wide", {**TRL_GSPO, **epsilons(3e-3, 4e-3)}),
    verl("gspo_wide", "gspo", {**PER_RESPONSE, **clip_ratios(3e-3, 4e-3)}),
]
MUTANTS = [
    Mutant(
        "widths taken in log space",
        "baselines/gspo.py",
        "pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages)",
        "pessimistic_clip(log_ratio, -hyper.clip_low, hyper.clip_high, batch.advantages)",
    ),
    Mutant("the range of gspo", "baselines/gspo.py", "clip_low: float = knob(3e-3,", "clip_low: float = knob(3e-4,"),
]
