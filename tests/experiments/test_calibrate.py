"""`fspo bank calibrate` and `--ranges`: against the normal tail, from a bank to a trained cell, and every bad file."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest

from small_world import ODD, small_config, tiny
from strategies import METHODS
from suite.commands import main
from suite.config import CompareConfig, EvalConfig
from suite.experiments import cells, contexts, evaluation_overlap, local_jobs, names, recipes, record_bank, start
from suite.experiments.calibrate import calibrate, records_in
from suite.experiments.recipes import Changes, resolved
from suite.experiments.settings import method_in, method_with, with_options, with_ranges
from suite.methods.cards import card_digest, setting
from suite.policy.loading import LoadedModel, model_digest
from suite.policy.sampling import TransformersSampler
from suite.records.bank import MANIFEST, Bank, PendingFile
from suite.records.comparison_folder import claim_folder, stored_config
from suite.records.files import digest_of
from suite.records.packed import read_result
from suite.records.ranges import NO_RANGES, SCHEMA, UNSEALED, Ranges
from suite.records.update_log import UpdateLog
from suite.replay.growth import Band, constant_band, linear_band, sqrt_band
from suite.replay.one_method import clip_rate
from suite.replay.simulation import Simulation, expected_share
from suite.types import UserError

TARGET = 0.15
THREE = "fspo,rloo,gspo"
SIMULATION = Simulation(0.02, 0.0, ((16, 2000), (128, 1500), (512, 500)), problems=40, updates=2, start=True)
FACTS = {"driver": {"method": "no_clip", "card": "c"}, "digests": {"model": "m"}, "environment": {}}


def fspo_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run `fspo WORDS` in this process."""
    monkeypatch.setattr(sys, "argv", ["fspo", *map(str, words)])
    main.main()


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """The one line that `fspo WORDS` complains with."""
    with pytest.raises(SystemExit) as stopped:
        fspo_command(monkeypatch, *words)
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("fspo: error: ")
    assert "\n" not in line
    return line


def bank_of(log: UpdateLog, folder: Path) -> Path:
    """A bank that holds one update log."""
    log.save(folder / "log")
    file = PendingFile("updates", (folder / "log").read_bytes(), 0, 0, len(log), "policy")
    return Bank.open_or_new(folder / "bank").append("none-seed0", FACTS, [file]).folder


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = UpdateLog(**SIMULATION.columns(np.random.default_rng(2509)))
    return bank_of(log, tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def ranges(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The range file of three methods and one without a range, made on the simulated bank."""
    path = tmp_path_factory.mktemp("made") / "ranges.json"
    with pytest.MonkeyPatch.context() as patch:
        fspo_command(patch, "bank", "calibrate", bank, "--target", TARGET, "--methods", f"{THREE},sapo", "--out", path)
    return path


# --- what is found ----------------------------------------------------------------------------------------


def band_of(name: str, hyper: Any, lengths: np.ndarray) -> Band:
    """The edges on S that these hyper-parameters mean, from the definitions of the three rules."""
    if name == "fspo":
        return sqrt_band(lengths, hyper.c_low, hyper.c_high)
    rule = constant_band if name == "rloo" else linear_band
    return rule(lengths, eps_low=hyper.clip_low, eps_high=hyper.clip_high)


@pytest.mark.parametrize("name", THREE.split(","))
def test_the_share_is_the_normal_tail_at_the_found_range(name: str, ranges: Path) -> None:
    """Half the responses outside are clipped: half have A > 0 and are cut above, half A < 0 and below."""
    hyper = method_with(name, with_ranges(Ranges.read(ranges), [name], [])).hyper
    lengths, responses = np.array(SIMULATION.lengths).T
    outside = expected_share(SIMULATION, band_of(name, hyper, lengths), lengths)
    share = float(np.average(outside, weights=responses)) / 2
    error = math.sqrt(TARGET * (1 - TARGET) / (2 * responses.sum()))
    assert abs(share - TARGET) < 3 * error + 1e-3


def test_fspos_width_is_a_quantile_of_the_normal_law(ranges: Path) -> None:
    """c = sigma Phi^-1(1 - p), its standard error sigma sqrt(p (1 - p) / n) / phi(z)."""
    normal = NormalDist()
    z = normal.inv_cdf(1 - TARGET)
    error = math.sqrt(TARGET * (1 - TARGET) / 8000) / normal.pdf(z)
    found = Ranges.read(ranges).methods["fspo"].settings
    assert found.keys() == {"c_low", "c_high"}
    assert found["c_low"] == found["c_high"] == pytest.approx(0.02 * z, abs=0.02 * 3.5 * error)


def sealed(content: dict[str, Any]) -> str:
    """A range file with a digest that is right, whatever else was changed in it."""
    content = {name: value for name, value in content.items() if name != "digest"}
    return json.dumps(content | {"digest": digest_of(content)})


def test_an_edited_file_is_refused_and_an_old_one_without_a_digest_is_read(ranges: Path, tmp_path: Path) -> None:
    content = json.loads(ranges.read_text())
    content["methods"]["fspo"]["rate"] += 0.01
    (tmp_path / "ranges.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="altered after it was written"):
        Ranges.read(tmp_path / "ranges.json")
    old = {**json.loads(ranges.read_text()), "schema": UNSEALED}
    (tmp_path / "ranges.json").write_text(json.dumps(old))
    assert Ranges.read(tmp_path / "ranges.json").methods == Ranges.read(ranges).methods


def test_the_file_says_what_it_was_measured_on(bank: Path, ranges: Path) -> None:
    content = json.loads(ranges.read_text())
    assert content["schema"] == SCHEMA == "fspo-ranges-2"
    assert content["target"] == TARGET
    assert content["tolerance"] == 1e-3
    assert content["responses"] == 2 * 4000
    digest = hashlib.sha256((bank / MANIFEST).read_bytes()).hexdigest()
    assert content["source"] == {"kind": "bank", "folder": "bank", "manifest_sha256": digest}
    assert content["command"].startswith(f"fspo bank calibrate {bank} --target 0.15")
    assert content["versions"]["torch"]
    assert set(content["methods"]) == set(THREE.split(","))
    assert content["unmatched"] == {"sapo": "sapo has no clip range to scale"}


@pytest.mark.parametrize("name", THREE.split(","))
def test_the_measured_share_is_the_one_that_the_file_gives(name: str, bank: Path, ranges: Path) -> None:
    """On the same bank, with the file and nothing else: the very rate, card and scaled widths, to the last bit."""
    one = Ranges.read(ranges).methods[name]
    method = method_with(name, with_ranges(Ranges.read(ranges), [name], []))
    assert clip_rate(method, Bank.open(bank).updates(), {}) == one.rate
    assert abs(one.rate - TARGET) <= 1e-3
    assert card_digest(method) == one.card
    assert method.hyper == METHODS[name].scaled(one.factor).hyper


def test_replay_clips_the_target_with_the_file(
    bank: Path, ranges: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fspo_command(monkeypatch, "bank", "replay", bank, "--methods", THREE, "--ranges", ranges, "--out", tmp_path)
    rows = pd.read_csv(tmp_path / "fairness.csv").query("range == 'default'").set_index("method")
    assert rows["mean_clipped"].to_dict() == pytest.approx(dict.fromkeys(THREE.split(","), TARGET), abs=1e-3)


def test_the_same_input_gives_the_same_bytes(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bank / "ranges.json"
    words = ("bank", "calibrate", bank, "--methods", "fspo,gspo")
    texts = []
    for _ in range(2):
        fspo_command(monkeypatch, *words)
        texts.append(path.read_bytes())
        path.unlink()
    assert texts[0] == texts[1]
    content = json.loads(texts[0])
    assert content["target"] == clip_rate(METHODS["fspo"], Bank.open(bank).updates(), {})
    assert content["methods"]["fspo"]["settings"] == {}


def test_the_default_target_is_fspos_even_where_fspo_takes_no_part(bank: Path) -> None:
    options = ["fspo.c_low=0.02", "fspo.c_high=0.02"]
    made = calibrate(bank, ["rloo"], None, NO_RANGES, options, [])
    assert made.target == clip_rate(method_with("fspo", options), Bank.open(bank).updates(), {})
    assert list(made.methods) == ["rloo"]


def test_settings_that_the_search_starts_from_are_in_the_file(bank: Path, ranges: Path) -> None:
    """All that differs from the defaults: the file alone makes the method that was measured."""
    made = calibrate(bank, ["fspo"], TARGET, NO_RANGES, ["fspo.c_low=0.06", "fspo.drift_decay=0.5"], [])
    settings = made.methods["fspo"].settings
    assert settings.keys() == {"c_low", "c_high", "drift_decay"}
    assert settings["c_low"] == pytest.approx(2 * settings["c_high"], rel=1e-12)
    again = calibrate(bank, ["fspo"], TARGET, Ranges.read(ranges), [], [])
    assert again.methods["fspo"].factor == 1.0
    assert again.methods["fspo"].settings == Ranges.read(ranges).methods["fspo"].settings


def test_a_share_that_jumps_over_the_target_is_no_match(tmp_path: Path) -> None:
    """S is .02 sqrt(L) for all: FSPO clips every positive one or none, RLOO the long ones first: .3 / 2 of all."""
    lengths = np.where(np.arange(400) % 10 < 7, 4, 100)
    advantage = np.where(np.arange(400) // 10 % 2 == 0, 0.5, -0.5)
    old = np.full(int(lengths.sum()), -1.0)
    log = UpdateLog(
        problem_ids=np.full(400, "p"),
        seed=0,
        step=0,
        update=1,
        reward=advantage + 0.5,
        advantage=advantage,
        truncated=np.zeros(400, bool),
        lengths=lengths,
        log_probs=old + np.repeat(0.02 / np.sqrt(lengths), lengths),
        old_log_probs=old,
    )
    folder = bank_of(log, tmp_path)
    made = calibrate(folder, ["fspo", "rloo"], TARGET, NO_RANGES, [], [])
    assert made.tolerance == 1 / 400
    assert made.methods["rloo"].rate == pytest.approx(TARGET, abs=1e-12)
    assert made.unmatched == {"fspo": "its clipped share jumps over 0.15: 0 is the nearest that it takes"}
    still = bank_of(dataclasses.replace(log, advantage=np.zeros(400)), tmp_path / "still")
    with pytest.raises(UserError, match="no recorded response has a gradient; record more steps"):
        calibrate(still, ["fspo"], TARGET, NO_RANGES, [], [])


# --- what is refused when a file is made ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--target", "0"], ["--target 0", "between 0 and 1"]),
        (["--target", "1"], ["--target 1", "between 0 and 1"]),
        (["--target", "nan"], ["--target nan", "between 0 and 1"]),
        (["--set", "fspo.c_low=9", "fspo.c_high=9"], ["fspo clips a share of 0", "choose another --target"]),
        (["--methods", "fspo,gsop"], ["unknown method 'gsop'", "did you mean gspo?"]),
        (["--methods", "sapo,no_clip", "--target", ".1"], ["no method can be matched", "sapo has no clip range"]),
        (["--methods", "fspo", "--set", "fspo.width=1"], ["setting of fspo 'width'"]),
        (["--methods", "fspo", "--ranges", "/no/such.json"], ["/no/such.json: no range file to read"]),
    ],
)
def test_an_impossible_calibration_is_one_line(
    words: list[str],
    expected: list[str],
    bank: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = refused(capsys, monkeypatch, "bank", "calibrate", bank, "--out", tmp_path / "r.json", *words)
    assert all(text in line for text in expected), line
    assert list(tmp_path.iterdir()) == []


def test_only_a_range_file_is_written_over(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("x")
    words = ("bank", "calibrate", bank, "--methods", "fspo", "--target", TARGET, "--out")
    for path in (thesis, tmp_path):
        assert "exists and is no range file; choose another --out" in refused(capsys, monkeypatch, *words, path)
    assert "cannot be written" in refused(capsys, monkeypatch, *words, thesis / "ranges.json")
    assert thesis.read_text() == "x"
    path = tmp_path / "new" / "r.json"
    for target in (TARGET, 0.1):
        fspo_command(monkeypatch, *words, path, "--target", target)
        assert json.loads(path.read_text())["target"] == target


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no bank and no comparison; give the --out folder"):
        calibrate(tmp_path, ["fspo"], TARGET, NO_RANGES, [], [])
    config = dataclasses.replace(recipes.recipe("smoke"), seeds=(0,))
    unfinished = tmp_path / "unfinished"
    claim_folder(config, unfinished, [], {})
    with pytest.raises(UserError, match="unfinished: not finished"):
        calibrate(unfinished, ["fspo"], TARGET, NO_RANGES, [], [])


# --- --ranges ---------------------------------------------------------------------------------------------


def options_of(ranges: Path, methods: str, *options: str) -> tuple[str, ...]:
    return resolved("smoke", Changes(ranges=ranges, set=options), methods.split(",")).options


def test_ranges_are_settings_before_the_users_own(ranges: Path) -> None:
    found = Ranges.read(ranges).methods
    low, high = found["gspo"].settings["clip_low"], found["gspo"].settings["clip_high"]
    c_high = found["fspo"].settings["c_high"]
    assert options_of(ranges, "gspo") == (f"gspo.clip_low={low!r}", f"gspo.clip_high={high!r}")
    assert options_of(ranges, "fspo", "fspo.c_low=0.5") == (f"fspo.c_high={c_high!r}", "fspo.c_low=0.5")
    assert options_of(ranges, "grpo,sapo", "train.steps=2") == ()
    assert options_of(ranges, "grpo", "gspo.clip_low=0.1") == ("gspo.clip_low=0.1",)


def test_a_line_for_every_method_without_a_range(ranges: Path) -> None:
    assert NO_RANGES.notes(["fspo"]) == []
    assert Ranges.read(ranges).notes(["fspo", "sapo", "grpo"]) == [
        f"{ranges}: no range for sapo (sapo has no clip range to scale); it keeps its own",
        f"{ranges}: no range for grpo; it keeps its own",
    ]


def test_settings_of_one_method_are_checked_together() -> None:
    """A band twenty times as wide lies above DAPO's dual clip of 10, and below the dual clip scaled with it."""
    wide = METHODS["dapo"].scaled(20.0).hyper
    options = [setting("dapo", name, getattr(wide, name)) for name in ("clip_low", "clip_high", "dual_clip")]
    config = with_options(recipes.recipe("smoke"), options)
    assert method_with("dapo", config.options).hyper == wide
    with pytest.raises(UserError, match="dual_clip"):
        with_options(recipes.recipe("smoke"), options[:2])


def entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change parts of the entry of gspo."""
    return lambda content: content["methods"]["gspo"].update(changes)


def set_to(field: str, value: Any, method: str = "gspo") -> Callable[[dict[str, Any]], None]:
    """Change one setting."""
    return lambda content: content["methods"][method]["settings"].update({field: value})


def renamed(content: dict[str, Any]) -> None:
    content["methods"]["gsop"] = content["methods"].pop("gspo")


BAD_FILES: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "another schema": (lambda c: c.update(schema="fspo-ranges-3"), ["schema 'fspo-ranges-3'", SCHEMA]),
    "no schema": (lambda c: c.pop("schema"), ["schema None", SCHEMA]),
    "no methods": (lambda c: c.pop("methods"), ["methods is missing", "an object"]),
    "methods as a list": (lambda c: c.update(methods=["fspo"]), ["methods is ['fspo']", "an object"]),
    "reasons as numbers": (lambda c: c.update(unmatched={"sapo": 3}), ["unmatched.sapo is 3", "a reason"]),
    "an entry that is a number": (lambda c: c["methods"].update(gspo=2.0), ["methods.gspo is 2.0", "an object"]),
    "a factor in quotes": (entry(factor="2"), ["methods.gspo.factor is '2'", "a number"]),
    "a rate that is true": (entry(rate=True), ["methods.gspo.rate is True", "a number"]),
    "no card": (entry(card=None), ["methods.gspo.card is missing"]),
    "settings as a list": (entry(settings=[0.1]), ["methods.gspo.settings is [0.1]", "an object of settings"]),
    "unknown method": (renamed, ["methods.gsop", "unknown method 'gsop'", "did you mean gspo?"]),
    "unknown field": (set_to("width", 0.1), ["methods.gspo", "unknown setting of gspo 'width'", "clip_low"]),
    "a word for a number": (set_to("clip_low", "wide"), ["methods.gspo", "clip_low = 'wide'", "is not a number"]),
    "a number in quotes": (set_to("clip_low", "0.1"), ["methods.gspo", "clip_low = '0.1'", "must be written as 0.1"]),
    "true for a number": (set_to("clip_low", True), ["methods.gspo", "clip_low = True", "is not a number"]),
    "a list for a number": (set_to("clip_low", [0.1]), ["methods.gspo", "clip_low = [0.1]", "is not a number"]),
    "null for a number": (set_to("clip_low", None), ["methods.gspo", "clip_low = None", "is not a number"]),
    "a bool for a word": (set_to("drift", True, "fspo"), ["methods.fspo", "drift = True", 'must be written as "True"']),
    "out of range": (set_to("clip_low", 2.0), ["methods.gspo", "GSPOHyper.clip_low = 2.0", "between 0 and 1"]),
    "an edited value": (set_to("clip_low", 0.1), ["methods.gspo", "its settings make card", "--set"]),
    "another card": (entry(card="0123456789ab"), ["methods.gspo", "not 0123456789ab", "changed since"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_that_names_file_and_field(
    case: str, ranges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, expected = BAD_FILES[case]
    content = copy.deepcopy(json.loads(ranges.read_text()))
    change(content)
    path = tmp_path / "bad.json"
    path.write_text(sealed(content))
    line = refused(capsys, monkeypatch, "compare", "smoke", "--ranges", path, "--out", tmp_path / "out")
    assert all(text in line for text in [str(path), "fspo bank calibrate", *expected]), line
    assert [p.name for p in tmp_path.iterdir()] == ["bad.json"]


UNREADABLE = {
    "no JSON": b'{"schema": ',
    "no text": b"\xff\xfe\x00",
    "empty": b"",
    "a list": b"[]",
    "no number": b'{"schema": "fspo-ranges-1", "target": NaN}',
    "without an end": b"[" * 200_000,
}


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize(
    "words",
    [
        ["compare", "smoke"],
        ["train", "smoke", "--method", "fspo"],
        ["bank", "record", "smoke"],
        ["bank", "replay", "B"],
    ],
)
def test_what_is_no_range_file_is_refused_by_every_command(
    case: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(UNREADABLE[case])
    for wrong in (path, tmp_path, tmp_path / "absent.json"):
        line = refused(capsys, monkeypatch, *words, "--ranges", wrong, "--out", tmp_path / "out")
        assert line.startswith(f"fspo: error: {wrong}: ")
        assert "write it with fspo bank calibrate" in line
    assert [p.name for p in tmp_path.iterdir()] == ["bad.json"]


def test_a_range_file_imports_nothing(ranges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may come from anybody: a module that it names is loaded only where the user named it, too."""
    (tmp_path / "loud_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    content = json.loads(ranges.read_text())
    content["methods"]["loud_module:X"] = content["methods"]["fspo"]
    path = tmp_path / "ranges.json"
    path.write_text(sealed(content))
    assert len(with_ranges(Ranges.read(path), ["fspo"], [])) == 2
    with pytest.raises(UserError, match="SystemExit: imported"):
        with_ranges(Ranges.read(path), ["fspo", "loud_module:X"], [])


# --- from records to a trained cell -----------------------------------------------------------------------


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A recipe `small` on the tiny model and the odd task, all jobs in this process; the folder is the current one."""

    def load(config: Any) -> tuple[LoadedModel, TransformersSampler]:
        model, tokenizer = tiny()
        sampler = TransformersSampler(model, tokenizer)
        return LoadedModel(model, tokenizer, "tiny", model_digest(model), "tokens"), sampler

    def serially(stages: Any, layout: Any, console: Any) -> None:
        for job in (job for stage in stages for job in stage if not job.done()):
            job.run()

    def small() -> CompareConfig:
        evaluation = EvalConfig(("odd",), samples=1, limit=8)
        return CompareConfig("small", ("rloo", "fspo"), (0,), small_config(steps=3), evaluation, bootstrap=100)

    monkeypatch.setitem(recipes.RECIPES, "small", small)
    for module in (cells, contexts, names, recipes, evaluation_overlap, start):
        monkeypatch.setattr(module, "tasks_named", lambda names: [ODD])
    for module in (cells, record_bank):
        monkeypatch.setattr(module, "load", load)
    for module in (local_jobs, record_bank):
        monkeypatch.setattr(module, "run_jobs", serially)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_from_a_comparison_to_one_at_equal_clip_rates(small_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ("compare", "small", "--out", "first", "--set", "rloo.clip_low=0.01", "rloo.clip_high=0.02")
    fspo_command(monkeypatch, *first)
    fspo_command(monkeypatch, "bank", "calibrate", "first", "--target", "0.2", "--methods", "rloo,fspo,sapo")
    path = small_world / "first" / "ranges.json"
    content = json.loads(path.read_text())
    log = records_in(small_world / "first").log
    assert len(log) == 2 * 3 * 16
    assert content["source"].keys() == {"kind", "folder", "update_logs", "update_logs_sha256"}
    assert content["source"]["update_logs"] == 2 * 3
    for name in ("rloo", "fspo"):
        assert abs(content["methods"][name]["rate"] - 0.2) <= content["tolerance"]
    trained = method_with("rloo", stored_config(small_world / "first").options)
    assert trained.hyper.clip_high == 0.02
    assert (
        method_with("rloo", with_ranges(Ranges.read(path), ["rloo"], [])).hyper
        == trained.scaled(content["methods"]["rloo"]["factor"]).hyper
    )

    fspo_command(monkeypatch, "compare", "small", "--out", "second", "--ranges", path)
    stored = json.loads((small_world / "second" / "comparison.json").read_text())
    assert stored["ranges"] == {"file": "ranges.json", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    wanted = {f"{m}.{f}={x!r}" for m in ("fspo", "rloo") for f, x in content["methods"][m]["settings"].items()}
    assert set(stored["config"]["options"]) == wanted
    assert len(wanted) == 4
    for name in ("rloo", "fspo"):
        result = read_result(small_world / "second" / "cells" / f"{name}-seed0")
        assert result.digests["card"] == card_digest(method_in(stored_config(small_world / "second"), name))
        assert card_digest(method_with(name, stored["config"]["options"])) == content["methods"][name]["card"]
        assert content["methods"][name]["settings"].items() <= result.config["hyper"].items()

    path.unlink()
    fspo_command(monkeypatch, "report", "second")
    assert "ranges" not in json.loads((small_world / "first" / "comparison.json").read_text())


@pytest.mark.slow
def test_train_and_record_with_a_range_file(
    small_world: Path, ranges: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"file": ranges.name, "sha256": hashlib.sha256(ranges.read_bytes()).hexdigest()}
    one = Ranges.read(ranges).methods["fspo"]
    words = ("train", "small", "--method", "fspo", "--out", "cell", "--set", "fspo.drift_decay=0.5")
    fspo_command(monkeypatch, *words, "--ranges", ranges)
    hyper = read_result(small_world / "cell" / "cells" / "fspo-seed0").config["hyper"]
    assert {**one.settings, "drift_decay": 0.5}.items() <= hyper.items()
    assert json.loads((small_world / "cell" / "comparison.json").read_text())["ranges"] == facts
    words = ("bank", "record", "small", "--out", "bank", "--seeds", 1, "--ranges", ranges)
    fspo_command(monkeypatch, *words, "--method", "fspo")
    capsys.readouterr()
    fspo_command(monkeypatch, *words)
    assert f"{ranges}: no range for no_clip; it keeps its own" in capsys.readouterr().out
    recordings = Bank.open(small_world / "bank").recordings
    assert [recordings[name]["ranges"] for name in ("fspo-seed0", "none-seed0")] == [facts, facts]
    assert recordings["fspo-seed0"]["driver"]["card"] == one.card
    assert recordings["none-seed0"]["driver"]["card"] == card_digest(METHODS["no_clip"])
