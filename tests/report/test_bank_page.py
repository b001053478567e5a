"""The lab page: every method on one bank, self-contained, the same bytes twice, and a verdict that can say no."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from rich.console import Console

from strategies import METHODS
from suite.commands import bank as bank_command
from suite.commands.bank import replayed
from suite.findings.bank_model import LabModel
from suite.findings.bank_questions import QUESTIONS, Lab
from suite.findings.rules import DATED, NOT_SUPPORTED, UNEVEN, clip_word, fixed_ranges, flattening_verdict
from suite.records.bank import Bank, PendingFile
from suite.records.other_runs import facts_of
from suite.records.update_log import UpdateLog
from suite.replay.one_method import clip_rate
from suite.report.bank_text import (
    _clipping,
    _other_trainers,
    _overlaps,
    _provenance,
    _questions,
    claim_sentence,
    warnings_of,
)
from suite.report.first_look import lab_figures
from suite.report.write import write_lab
from suite.types import UserError

FACTS = {"driver": {"method": "no_clip", "card": "c"}, "digests": {"model": "m"}, "environment": {}}


def made_bank(
    folder: Path, heavy_short: bool, lengths: np.ndarray | None = None, informative: int = 60, far: float = 0.0
) -> Bank:
    """Three updates of 120 responses of each of two seeds, whose S has variance L sigma^2; `heavy_short` widens the
    short ones fivefold. Of each update's 60 problems the first `informative` have a gradient. `far`: how far every
    token has moved the way that its advantage wants, in nats."""
    rng = np.random.default_rng(3)
    lengths = np.tile(rng.integers(2, 200, 240) if lengths is None else lengths, 4)
    scale = np.where(heavy_short & (lengths < 20), 0.1, 0.02)
    noise = rng.normal(size=int(lengths.sum())) * np.repeat(scale, lengths)
    update = np.repeat([0, 1, 2, 3], 240)
    advantage = np.where(np.tile(np.arange(240) // 4, 4) < informative, np.tile([-0.5, 0.5], 480), 0.0)
    noise += far * np.repeat(np.sign(advantage), lengths)
    noise[np.repeat(update, lengths) == 0] = 0
    old = np.full(len(noise), -1.0)
    log = UpdateLog(
        problem_ids=np.array([f"p{i // 4}" for i in range(960)]),
        seed=np.tile(np.arange(240) // 4 % 2, 4),
        step=0,
        update=update,
        reward=np.tile([0, 1], 480),
        advantage=advantage,
        truncated=np.zeros(960, bool),
        lengths=lengths,
        log_probs=old + noise,
        old_log_probs=old,
    )
    folder.mkdir(exist_ok=True)
    path = folder / "log"
    log.save(path)
    empty = Bank.open_or_new(folder / "bank")
    return empty.append("none-seed0", FACTS, [PendingFile("updates", path.read_bytes(), 0, 0, 960, "p")])


@pytest.mark.slow
def test_a_page_of_its_own(tmp_path: Path) -> None:
    """All methods in text and tables; no picture from outside; two makings are equal byte for byte."""
    bank = made_bank(tmp_path, heavy_short=False)
    pages = [write_lab(Lab(bank), tmp_path / name) for name in ("a", "b")]
    files = [{p.name: p.read_bytes() for p in page.parent.iterdir()} for page in pages]
    assert files[0] == files[1]
    page = files[0]["lab.html"].decode()
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 2
    assert page.count("<figure") == 3
    assert not re.findall(r'(src|href)="(?!data:|#)', page)
    text = files[0]["lab.md"].decode()
    assert all(f"| {name} |" in text for name in METHODS)
    assert all(f"### {question}" in text for question in QUESTIONS)
    assert {"clip_by_length.svg", "growth.svg", "weights.csv", "overlap_by_length.csv", "predicted.csv"} <= files[
        0
    ].keys()
    assert "## The null update" not in text
    settings = pd.read_csv(tmp_path / "a" / "fspo_settings.csv")
    shares = settings[settings["range"] == "the width c"]["mean_outside_band"].tolist()
    assert shares == sorted(shares, reverse=True)


def test_a_page_says_whose_run_it_is_and_what_its_records_cannot_tell(tmp_path: Path) -> None:
    own = made_bank(tmp_path, heavy_short=False)
    lines = {}
    for every in (1, 10):
        facts = facts_of(("lib", "1.2", "Trainer"), "their_loss", {"epsilon": 0.25}, ["the weather"], every=every)
        bank = Bank(own.folder, {"lib-run": facts}, own.entries)
        lines[every] = "\n".join([*_other_trainers(Lab(bank)), *_provenance(Lab(bank))])
        assert "lib-run: run of lib 1.2 Trainer with the loss their_loss" in lines[every]
        assert "Not known: the weather." in lines[every]
        assert "start model unknown, epsilon=0.25" in lines[every]
    assert "every rollout" in lines[1]
    assert "one rollout in 10" in lines[10]
    assert list(_other_trainers(Lab(own))) == [""]
    with pytest.raises(UserError, match=r"lib-run is a run of lib 1\.2 Trainer.* leave the model out with --no-model"):
        LabModel(bank, {}, 1, print)


@pytest.mark.slow
@pytest.mark.parametrize("heavy_short", [False, True])
def test_the_verdict_follows_the_numbers(heavy_short: bool, tmp_path: Path) -> None:
    """The sentence is the rules' word for what the tables say. Short ones five times as wide: FSPO clips them more."""
    lab = Lab(made_bank(tmp_path, heavy_short))
    rows = {row["method"]: row for row in lab.arena.fairness.to_dict("records") if row["range"] == "matched"}
    fixed = [clip_word(rows[name]) for name in fixed_ranges(METHODS) if name in rows]
    verdict = flattening_verdict(clip_word(rows["fspo"]), fixed)
    assert f"flattens clip rates over length: {verdict} on this bank, by the rule of {DATED}" in claim_sentence(lab)
    word, points = clip_word(rows["fspo"]), 100 * rows["fspo"]["clipped_slope"]
    assert f"fspo {word} (slope {points:+.1f} points" in claim_sentence(lab)
    if heavy_short:
        assert word == UNEVEN
        assert verdict == NOT_SUPPORTED


@pytest.mark.slow
def test_responses_of_one_length_have_no_slope(tmp_path: Path) -> None:
    bank = made_bank(tmp_path, heavy_short=False, lengths=np.full(240, 20))
    said = "\n".join(_questions(Lab(bank)))
    assert said.count("- no slope: the responses are too much alike in length") == len(QUESTIONS)


def test_where_everything_is_clipped_the_page_says_so_and_asks_for_another_target(tmp_path: Path) -> None:
    """No warning, no nan in a sentence or figure, no table of ones; with a target the ranges are matched to it."""
    bank = made_bank(tmp_path, heavy_short=False, far=2.0)
    lab = Lab(bank)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (warned,) = warnings_of(lab)
        said = "\n".join([claim_sentence(lab), *_clipping(lab), *_questions(lab), *_overlaps(lab)])
        drawn = [str(text.get_text()) for figure in lab_figures(lab).values() for text in figure.findobj(Text)]
    assert warned.startswith("FSPO clips 100.0 % of the responses with a gradient here")
    assert "--target" in warned
    assert "No method has a matched range" in said
    assert "no slope found: the responses are too much alike" not in said
    assert "- no setting clips 1% to 99% of the responses" in said
    assert not re.search(r"\bnan\b", said + "\n".join(drawn))
    chosen = Lab(bank, target=0.3)
    assert warnings_of(chosen) == []
    assert clip_rate(chosen.arena.matched["fspo"], chosen.arena.log, {}) == pytest.approx(0.3, abs=0.01)
    assert clip_rate(chosen.arena.matched["gspo"], chosen.arena.log, {}) == pytest.approx(0.3, abs=0.01)


def test_a_target_that_is_no_share_is_refused() -> None:
    with pytest.raises(UserError, match="--target 1: must be between 0 and 1"):
        bank_command.lab(Path("no bank"), target=1.0)


def test_too_few_problems_are_said_once_and_decide_nothing(tmp_path: Path) -> None:
    """One problem an update, three in all, has a gradient: numbers without intervals, and every word is undecided."""
    bank = made_bank(tmp_path, heavy_short=True, informative=1)
    lines = replayed(bank.folder, ["rloo", "gspo", "ctpo", "fspo"], tmp_path / "out", (), Console(quiet=True))
    assert lines[0].startswith("Too few problems with a gradient (3): no intervals")
    assert sum("Too few" in line for line in lines) == 1
    fairness = pd.read_csv(tmp_path / "out" / "fairness.csv")
    assert fairness["clipped_slope"].notna().all()
    assert fairness[["clipped_slope_low", "lre_max_high", "lre_noise", "p_even"]].isna().all(axis=None)
    assert fairness["mean_outside_band_low"].notna().all(), "all problems have responses"
    for line in lines[1:-1]:
        assert re.search(r"range: undecided, no (interval: [+-]\d|slope found: (no|every) response)", line), line
    enough = made_bank(tmp_path / "more", heavy_short=True)
    lines = replayed(enough.folder, ["fspo"], tmp_path / "more" / "out", (), Console(quiet=True))
    assert re.match(r"fspo, default range: uneven.* points per doubling \[-", lines[0])


def test_equal_settings_are_one_row_and_missed_targets_are_said() -> None:
    """On the settings of the committed run of TRL, which has one seed and hardly any drift."""
    settings = pd.read_csv(Path(__file__).parents[2] / "results" / "trl-run" / "fspo_settings.csv")
    said = "\n".join(_questions(cast("Lab", SimpleNamespace(variants=settings))))
    for names in (["mu kl", "mu zero"], ["off", "c_dual .06", "c_dual .12"]):
        rows = settings[settings["method"].isin(names)]
        assert rows.drop(columns=["method", "range"]).nunique().max() == 1, "one row of numbers"
        assert f"| {' = '.join(names)} |" in said
        assert f"| {names[-1]} |" not in said
    assert said.count("- all settings give the same numbers") == 1, "of the dual clip"
    missed = [
        row["method"]
        for row in settings[settings["range"] == "the width by a target clip rate"].to_dict("records")
        if not row["mean_outside_band_low"] <= float(row["method"].split()[1]) <= row["mean_outside_band_high"]
    ]
    (line,) = re.findall("- not reached: .*", said)
    assert re.findall(r"target [\d.]+", line) == missed
    assert 0 < len(missed) < 4
    assert "uneven (one seed: exploratory)" in said
    assert not re.search(r"uneven(?! \(one seed)(?! by)", said)


def test_a_target_clip_rate_starts_from_no_estimate() -> None:
    """The settings that the lab compares are FSPO's, and differ from one another."""
    for settings in QUESTIONS.values():
        made = [dataclasses.replace(METHODS["fspo"].hyper, **change) for change in settings.values()]
        assert len(set(made)) == len(made)
