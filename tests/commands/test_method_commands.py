"""`fspo method list`, `card`, `check`, `new` and `regress`, matched ranges, and methods that come from outside."""

from __future__ import annotations

import dataclasses
import importlib
import json
import linecache
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies import BANDED, METHODS
from suite.commands import main
from suite.commands.compare import code_of
from suite.experiments import names, recipes, settings
from suite.experiments.one_credit import with_credit
from suite.methods import from_outside
from suite.methods.cards import card, card_digest
from suite.methods.conformance import CHECKS
from suite.methods.new_method import write_skeleton
from suite.methods.trial_batches import with_hyper
from suite.records.comparison_folder import claim_folder
from suite.records.update_log import UpdateLog
from suite.replay import pinned_numbers
from suite.replay.matched_ranges import matched_ranges
from suite.replay.one_method import clip_rate
from suite.types import FACTS, UserError

STRANGER = '''
import dataclasses
from fspo import FSPO
from suite.arithmetic import pessimistic_clip, sequence_log_ratio, sequence_surrogate

def linear(batch, hyper, state):
    """J_i = min(e^S A, e^clip(S, -c_low L, c_high L) A): the band grows with L."""
    s, length = sequence_log_ratio(batch), batch.lengths[:, None]
    return sequence_surrogate(s, pessimistic_clip(s, -hyper.c_low * length, hyper.c_high * length, batch.advantages))

def maskless(batch, hyper, state):
    """J_i = min(e^S A, ...), with S summed over padding too."""
    s, root = (batch.log_probs - batch.old_log_probs).sum(1, keepdim=True), batch.lengths[:, None].sqrt()
    return sequence_surrogate(s, pessimistic_clip(s, -hyper.c_low * root, hyper.c_high * root, batch.advantages))

LINEAR = dataclasses.replace(FSPO, name="linear", surrogate=linear)
MASKLESS = dataclasses.replace(FSPO, name="maskless", surrogate=maskless)
NO_METHOD = 3
'''


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """(exit code, output) of `fspo WORDS`."""
    monkeypatch.setattr(sys, "argv", ["fspo", *words])
    try:
        main.main()
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    return code, capsys.readouterr().out


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, with two broken methods in a module, as the current folder."""
    (tmp_path / "stranger_methods.py").write_text(STRANGER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("stranger_methods", None)
    return tmp_path


# --- methods and cards --------------------------------------------------------------------------------


def test_every_method_has_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each in a pipe; at 80 columns what it is folds below itself."""
    monkeypatch.delenv("COLUMNS", raising=False)
    code, text = run(monkeypatch, capsys, "method", "list")
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()] == list(METHODS)
    assert len(METHODS) >= 19
    monkeypatch.setenv("COLUMNS", "80")
    code, text = run(monkeypatch, capsys, "method", "list")
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_card_says_everything(name: str) -> None:
    text = card(METHODS[name])
    assert all(f"**{fact}**" in text for fact in FACTS)
    assert all(f"**{trainer}**" in text for trainer in ("TRL", "verl", "OpenRLHF"))
    assert card_digest(METHODS[name]) in text
    assert "J_i = " in text


def test_a_card_digest_follows_numbers_and_facts_and_nothing_else() -> None:
    method = METHODS["grpo"]
    assert card_digest(with_hyper(method, clip_low=0.21)) != card_digest(method)
    assert card_digest(dataclasses.replace(method, facts={**method.facts, "kl": "k3"})) != card_digest(method)
    assert card_digest(dataclasses.replace(method, elsewhere={})) == card_digest(method)


def test_card_digests_differ() -> None:
    assert len({card_digest(method) for method in METHODS.values()}) == len(METHODS)


# --- check ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "check", "reason"),
    [
        ("LINEAR", "growth of the band with length", "the card says the band grows as sqrt(L), but the upper edge"),
        ("MASKLESS", "garbage in the padding", "is the mask applied?"),
    ],
)
def test_a_broken_stranger_is_rejected(
    name: str, check: str, reason: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    code, text = run(monkeypatch, capsys, "method", "check", f"stranger_methods:{name}")
    assert code == 1
    assert f"FAIL  {check}" in text
    assert reason in text
    assert "response 0: log ratios" in text


def test_a_sound_method_passes_with_a_line_for_every_check(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    code, text = run(monkeypatch, capsys, "method", "check", "rloo")
    assert code == 0
    lines = text.splitlines()
    assert [line[6:].partition(": it has ")[0] for line in lines[:-1]] == list(CHECKS)
    without = [line for line in lines if line.startswith("n/a   ")]
    assert "n/a   value loss: it has no critic" in without
    passed = sum(line.startswith("pass  ") for line in lines[:-1])
    assert passed + len(without) == len(CHECKS)
    assert lines[-1] == f"pass  rloo: {passed} of {len(CHECKS)} checks passed, {len(without)} do not apply"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (
            "no_such_module:X",
            "No module named .* run this in the folder of no_such_module.py, or put that folder into PYTHONPATH",
        ),
        ("stranger_methods:ABSENT", "ABSENT"),
        ("stranger_methods:NO_METHOD", "is an int, not a suite.types.Method"),
        ("stranger_methods:", "package.module:NAME"),
    ],
)
def test_what_is_no_method_is_refused(reference: str, words: str, elsewhere: Path) -> None:
    with pytest.raises(UserError, match=words):
        names.find_method(reference)


def test_entry_points_are_methods(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(elsewhere))
    points = [EntryPoint("stranger", "stranger_methods:LINEAR", from_outside.GROUP)]
    monkeypatch.setattr(from_outside, "entry_points", lambda group: points if group == from_outside.GROUP else [])
    from_outside.plugin_methods.cache_clear()
    assert names.find_method("stranger").name == "linear"
    points[0] = EntryPoint("grpo", "stranger_methods:LINEAR", from_outside.GROUP)
    from_outside.plugin_methods.cache_clear()
    with pytest.raises(UserError, match="grpo: that name is taken"):
        names.known_methods()
    from_outside.plugin_methods.cache_clear()


def test_options_reach_a_method_of_ones_own(elsewhere: Path) -> None:
    method = settings.method_with("stranger_methods:LINEAR", ["stranger_methods:LINEAR.c_low=0.5", "fspo.c_low=0.1"])
    assert method.hyper.c_low == 0.5


# --- new-method -----------------------------------------------------------------------------------------


def test_a_skeleton_conforms_from_the_start(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run(monkeypatch, capsys, "method", "new", "soft_clip")[0] == 0
    code, text = run(monkeypatch, capsys, "method", "check", "soft_clip:SOFT_CLIP")
    assert code == 0, text
    assert {path.name for path in elsewhere.iterdir()} >= {"soft_clip.py", "oracle_soft_clip.py", "soft_clip.md"}
    with pytest.raises(UserError, match="exists already"):
        write_skeleton("soft_clip", elsewhere)
    with pytest.raises(UserError, match="lower-case"):
        write_skeleton("Soft-Clip", elsewhere)


@pytest.mark.slow
def test_a_method_of_ones_own_is_compared(elsewhere: Path) -> None:
    """In one file, from the command line: trained in worker processes, listed beside the others with its card."""
    write_skeleton("soft_clip", elsewhere)
    command = [
        sys.executable,
        "-m",
        "suite.commands.main",
        "compare",
        "smoke",
        "--steps",
        "1",
        "--out",
        "runs",
        "--methods",
        "fspo,soft_clip:SOFT_CLIP",
    ]
    root = Path(main.__file__).resolve().parents[2]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "soft_clip:SOFT_CLIP" in done.stdout
    accuracies = (elsewhere / "runs" / "accuracy.csv").read_text().splitlines()
    assert accuracies[0].endswith(",card")
    sys.path.insert(0, str(elsewhere))
    importlib.invalidate_caches()
    sys.modules.pop("soft_clip", None)  # of another folder, from another test
    digest = card_digest(with_credit(names.find_method("soft_clip:SOFT_CLIP"), "standardised"))
    assert any(line.startswith("soft_clip:SOFT_CLIP,") and line.endswith(f",{digest}") for line in accuracies)
    assert "advantages: standardised for all alike, also soft_clip:SOFT_CLIP;" in done.stdout
    source = elsewhere / "soft_clip.py"
    source.write_text(source.read_text().replace("Divisor.RESPONSES, mean=True", "Divisor.TOKENS"))
    report = [*command[:3], "report", "runs", "--allow", "soft_clip:SOFT_CLIP"]
    done = subprocess.run(report, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "runs: soft_clip:SOFT_CLIP has changed since it was trained" in done.stderr


def test_a_folder_refuses_a_loss_that_was_edited(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same name, same card, another equation: results of two versions are never mixed."""
    config = dataclasses.replace(recipes.recipe("smoke"), methods=("fspo", "stranger_methods:LINEAR"))
    claim_folder(config, elsewhere / "runs", [], code_of(config))
    claim_folder(config, elsewhere / "runs", [], code_of(config))
    source = elsewhere / "stranger_methods.py"
    source.write_text(source.read_text().replace("-hyper.c_low * length", "-2 * hyper.c_low * length"))
    sys.modules.pop("stranger_methods")
    linecache.clearcache()
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=r"stranger_methods:LINEAR before its code changed; choose another --out"):
        claim_folder(config, elsewhere / "runs", [], code_of(config))


# --- matched ranges -------------------------------------------------------------------------------------


def test_matched_ranges_clip_the_same_share() -> None:
    log = UpdateLog.load(pinned_numbers.GOLDEN / pinned_numbers.ROLLOUTS)
    rng = np.random.default_rng(0)
    parts = [
        dataclasses.replace(log, log_probs=log.old_log_probs + scale * rng.normal(size=len(log.log_probs)))
        for scale in np.geomspace(0.002, 0.2, 12)
    ]
    many = UpdateLog.concat(parts)
    found, reasons = matched_ranges(METHODS, many, 0.2)
    assert set(reasons) == set(METHODS) - set(BANDED)
    assert all("no clip range" in reason for reason in reasons.values())
    for name, one in found.items():
        assert one.rate == clip_rate(one.method, many, {})
        assert abs(one.rate - 0.2) < 0.02, f"{name} clips {one.rate}"


# --- regress --------------------------------------------------------------------------------------------


def test_nothing_has_moved() -> None:
    """Red? Then a number moved: say why in CHANGELOG under [numbers], and pin with `fspo method regress --pin`."""
    today = pinned_numbers.numbers_today(METHODS, pinned_numbers.GOLDEN)
    moved = pinned_numbers.differences(pinned_numbers.read_pinned(pinned_numbers.GOLDEN), today)
    assert (moved, moved.more) == ([], {})


def test_a_number_that_is_new_has_not_moved_and_one_that_vanished_has() -> None:
    pinned = pinned_numbers.read_pinned(pinned_numbers.GOLDEN)
    before = {**pinned, "grpo": {key: value for key, value in pinned["grpo"].items() if key != "settings"}}
    new, vanished = pinned_numbers.differences(before, pinned), pinned_numbers.differences(pinned, before)
    assert (new, new.table()) == ([], ["grpo             5 numbers not pinned yet"])
    assert vanished.methods == ["grpo"]


def test_a_new_method_has_not_moved_and_one_that_vanished_has() -> None:
    pinned = pinned_numbers.read_pinned(pinned_numbers.GOLDEN)
    others = {name: numbers for name, numbers in pinned.items() if name != "rloo"}
    new, vanished = pinned_numbers.differences(others, pinned), pinned_numbers.differences(pinned, others)
    assert (new, new.table()) == ([], ["rloo             not pinned yet"])
    assert vanished.methods == ["rloo"]
    assert "pinned -> absent" in vanished.table()[1]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ppo", {"value_clip": 0.21}),
        ("grpo", {"clip_low": 0.21}),
        ("gspo", {"clip_high": 4.1e-4}),
        ("fspo", {"c_low": 0.031}),
        ("sapo", {"tau_neg": 1.06}),
        ("vespo", {"k_neg": 3.1}),
        ("dppo_tv", {"delta": 0.16}),
        ("ctpo", {"c_dual": 0.06}),
        ("luspo", {"std_eps": 1e-5}),
        ("fspo", {"sigma_decay": 0.8}),
    ],
)
def test_one_constant_moves_one_method(name: str, change: dict[str, float]) -> None:
    today = pinned_numbers.numbers_today({**METHODS, name: with_hyper(METHODS[name], **change)}, pinned_numbers.GOLDEN)
    moved = pinned_numbers.differences(pinned_numbers.read_pinned(pinned_numbers.GOLDEN), today)
    assert moved.methods == [name]
    assert any(next(iter(change)) in line for line in moved.table())


def test_golden_numbers_are_those_of_the_oracles_step() -> None:
    """The pinned clip fractions count responses for sequence weights and tokens for token weights."""
    pinned = pinned_numbers.read_pinned(pinned_numbers.GOLDEN)
    assert pinned["fspo"]["clipped_fraction"] * 32 == pytest.approx(round(pinned["fspo"]["clipped_fraction"] * 32))
    log = UpdateLog.load(pinned_numbers.GOLDEN / pinned_numbers.ROLLOUTS)
    tokens = int(log.lengths.sum())
    assert pinned["grpo"]["clipped_fraction"] * tokens == pytest.approx(
        round(pinned["grpo"]["clipped_fraction"] * tokens), abs=1e-3
    )
    assert len(log) == 32
    assert len(set(log.problem_ids.tolist())) == 8


def test_pinning_needs_a_changelog_entry(tmp_path: Path) -> None:
    folder, changelog = tmp_path / "golden", tmp_path / "CHANGELOG.md"
    shutil.copytree(pinned_numbers.GOLDEN, folder)
    pinned = pinned_numbers.read_pinned(folder)
    known = {name: METHODS[name] for name in pinned}
    today = pinned_numbers.numbers_today({**known, "rloo": METHODS["rloo"].scaled(2.0)}, folder)
    moved = pinned_numbers.differences(pinned, today)
    before = (folder / pinned_numbers.PINNED).read_bytes()
    changelog.write_text("# Changelog\n\n## 0.2\n\n- [numbers] grpo: wider\n\n## 0.1\n\n- [numbers] rloo: older\n")
    with pytest.raises(UserError, match=r"\[numbers\].*rloo"):
        pinned_numbers.pin_numbers(folder, today, moved, changelog)
    assert (folder / pinned_numbers.PINNED).read_bytes() == before
    new = pinned_numbers.differences({name: pinned[name] for name in pinned if name != "rloo"}, pinned)
    with pytest.raises(UserError, match=r"\[numbers\].*rloo"):
        pinned_numbers.pin_numbers(folder, today, new, changelog)
    changelog.write_text("# Changelog\n\n## 0.2\n\n- [numbers] rloo: twice as wide\n")
    pinned_numbers.pin_numbers(folder, today, moved, changelog)
    assert pinned_numbers.differences(pinned_numbers.read_pinned(folder), today) == []
    assert json.loads((folder / pinned_numbers.PINNED).read_text()).keys() == known.keys()


def test_no_pinned_numbers_is_a_mistake_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--golden"):
        pinned_numbers.read_pinned(tmp_path)
