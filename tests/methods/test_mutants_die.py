"""Every bug that the facts of a method name is planted into the real code, and its check must notice.

So are those of tests/mutants/*.toml that name a method. The unchanged code passes the very same check.
"""

from __future__ import annotations

import sys
from functools import cache

import pytest

import baselines
import mutants
from methods.checks import oracle_of, stated
from methods.facts import Mutant
from methods.planted_methods import ROOT, first_failure, rebuilt, verdict
from strategies import METHODS
from suite import arithmetic

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
