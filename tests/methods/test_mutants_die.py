"""Every bug that the facts of a method name is planted into the real code, and its check must notice.

So are those of tests/mutants/*.toml that name a method. The unchanged code passes the very same check. `fspo method
regress` must notice them too, and `check` those that its properties are about.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache

import pytest

import baselines
import mutants
from methods.checks import oracle_of, stated
from methods.facts import Mutant
from methods.planted_methods import ROOT, first_failure, planted_source, rebuilt, verdict
from strategies import METHODS
from suite import arithmetic
from suite.replay import pinned_numbers
from suite.replay.pinned_numbers import GOLDEN

OF_METHODS = [(name, mutant) for name in METHODS for mutant in stated(name, "MUTANTS")]
OF_ARITHMETIC = [(mutant.method, mutant) for mutant in mutants.load() if mutant.method]


@cache
def healthy_failure(name: str, file: str, check: str) -> str | None:
    """What the check says of the method when the same file is loaded unchanged in the same way."""
    return first_failure(rebuilt(name, file, (ROOT / file).read_text(encoding="utf-8")), check)


@pytest.mark.parametrize(
    ("name", "mutant"),
    [pytest.param(name, mutant, id=f"{name}-{mutant.name}") for name, mutant in [*OF_METHODS, *OF_ARITHMETIC]],
)
def test_a_mutant_dies_of_its_bug_alone(name: str, mutant: Mutant) -> None:
    assert healthy_failure(name, mutant.file, mutant.check) is None
    found = verdict(name, mutant)
    assert found.word == "killed", f"{name} {found.word}: {mutant.name} {found.why}"


MOVES_NOTHING = {
    ("ppo", "gamma and lambda exchanged"): "both are 1",
    ("grpo", "ddof written down instead of read"): "it is the default",
    ("reinforce", "advantages keep their gradient"): "the gradient is taken for log-probs alone",
    ("no_clip", "advantages keep their gradient"): "the gradient is taken for log-probs alone",
    ("dapo", "dual clip left behind when the range is scaled"): "nothing is scaled",
    ("sapo", "0 times infinity far from ratio one"): "no ratio of the golden rollouts overflows",
    ("dppo_kl", "NaN for a certain token"): "no golden token has probability 1",
    ("icepop", "0 times infinity at a dropped token"): "no ratio of the golden rollouts overflows",
    ("fspo", "a width of 0 from a step that moved nothing"): "every golden response has moved",
    ("fspo", "no drift where nothing is accepted"): "some golden responses are accepted",
}
"""The bugs that leave all pinned numbers alone, and why; every other one must move a number of some method."""


def test_regress_notices_every_bug_that_the_golden_rollouts_can_show() -> None:
    pinned, missed = pinned_numbers.read_pinned(GOLDEN), set()
    for name, mutant in OF_METHODS:
        if name in pinned:
            with planted_source(mutant.file, mutant.planted((ROOT / mutant.file).read_text(encoding="utf-8"))):
                methods = {**importlib.import_module("baselines").METHODS, **importlib.import_module("fspo").METHODS}
            of_one = pinned_numbers.numbers_today({name: methods[name]}, GOLDEN)
            if not pinned_numbers.differences({name: pinned[name]}, of_one):
                today = pinned_numbers.numbers_today(methods, GOLDEN)
                missed |= set() if pinned_numbers.differences(pinned, today) else {(name, mutant.name)}
    assert missed == MOVES_NOTHING.keys()


@pytest.mark.parametrize(
    ("bug", "check", "words"),
    [
        ("weights of the running drift exchanged", "running estimates", "with drift_decay at nearly 1"),
        ("weights of the running sigma exchanged", "running estimates", "with sigma_decay at nearly 1"),
        ("target rate on each side", "running estimates", "with target_clip_rate=0.1 20.0% of normal log ratios"),
        ("dual ceiling growing with L", "growth of the band with length", "the dual ceiling of the log ratio is at"),
    ],
)
def test_check_notices_bugs_behind_settings_that_are_off(bug: str, check: str, words: str) -> None:
    mutant = next(mutant for mutant in oracle_of("fspo").MUTANTS if mutant.name == bug)
    planted = rebuilt("fspo", mutant.file, mutant.planted((ROOT / mutant.file).read_text(encoding="utf-8")))
    assert words in (first_failure(planted, check) or "")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_two_bugs_of_its_own(name: str) -> None:
    bugs = [mutant.name for mutant in oracle_of(name).MUTANTS]
    assert len(set(bugs)) == len(bugs) >= 2


@pytest.mark.parametrize(
    ("old", "new", "word", "why"),
    [
        ("sequence_log_ratio(batch)", "2 * sequence_log_ratio(batch)", "killed", "log_weight[0] is"),
        ("sequence_log_ratio(batch)", "1 * sequence_log_ratio(batch)", "survives", ""),
        ("sequence_log_ratio(batch)", "sequence_log_ratios(batch)", "broken", "NameError"),
        ("import annotations", "import annotation", "broken", "SyntaxError"),
        ("from baselines.hyper import RatioBand", "from baselines.hyper import Band", "broken", "ImportError"),
        ("no such text", "", "broken", "holds the old text 0 times"),
        ("log_ratio", "ratio", "broken", "times, not once"),
    ],
)
def test_what_is_killed_is_told_from_what_survives_and_from_typos(old: str, new: str, word: str, why: str) -> None:
    found = verdict("rloo", Mutant("a bug", "baselines/rloo.py", old, new))
    assert found.word == word
    assert why in found.why


def test_a_bug_that_only_a_property_notices_is_put_to_that_property() -> None:
    bug = next(mutant for mutant in oracle_of("reinforce").MUTANTS if mutant.check)
    assert verdict("reinforce", bug).word == "killed"
    blind = Mutant(bug.name, bug.file, bug.old, bug.new)
    assert verdict("reinforce", blind).word == "survives"


def test_nothing_of_a_mutant_is_left_behind() -> None:
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("baselines", "suite")}
    finders = list(sys.meta_path)
    bug = Mutant("a bug", "suite/arithmetic.py", "return -log_ratio", "return log_ratio")
    assert verdict("gspo", bug).word == "survives"
    assert {name: sys.modules[name] for name in before} == before
    assert sys.meta_path == finders
    assert sys.modules["suite.arithmetic"] is arithmetic
    assert sys.modules["baselines.gspo"].GSPO is baselines.METHODS["gspo"]
