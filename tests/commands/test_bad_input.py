"""Bad input on the command line: one line that says what, where and what to do, exit code 2, nothing written over."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from suite.commands import main
from suite.config import PROTOCOL, plain_data
from suite.experiments.recipes import recipe
from suite.experiments.settings import method_with, with_options
from suite.records.packed import read_result
from suite.types import UserError


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The one line that `fspo WORDS` complains with."""
    monkeypatch.setattr(sys, "argv", ["fspo", *words])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("fspo: error: ")
    assert "\n" not in line
    return line.removeprefix("fspo: error: ")


CASES = {
    "unknown recipe": (["compare", "dmeo"], ["unknown recipe 'dmeo'", "did you mean demo?", "smoke"]),
    "unknown method": (["compare", "smoke", "--methods", "grpo,fsop"], ["unknown method 'fsop'", "did you mean fspo?"]),
    "unknown task": (["evaluate", "--tasks", "ad"], ["unknown task 'ad'", "gsm8k"]),
    "unknown way": (["evaluate", "--through", "lmeval"], ["--through 'lmeval'", "lm-eval"]),
    "unknown model": (["evaluate", "--model", "no/such/folder"], ["no/such/folder"]),
    "unknown hyper-parameter": (
        ["compare", "smoke", "--set", "fspo.width=1"],
        ["setting of fspo 'width'", "c_low"],
    ),
    "hyper-parameter out of range": (
        ["compare", "smoke", "--set", "fspo.c_low=-1"],
        ["FSPOHyper.c_low = -1.0", "positive"],
    ),
    "training out of range": (
        ["compare", "smoke", "--set", "train.learning_rate=7"],
        ["learning_rate = 7.0"],
    ),
    "no such choice": (["compare", "smoke", "--set", "train.schedule=liner"], ["'liner'", "did you mean linear?"]),
    "no such setting": (["compare", "smoke", "--set", "train.lr=1"], ["setting of train 'lr'", "learning_rate"]),
    "ratio out of range": (["compare", "smoke", "--set", "grpo.clip_low=2"], ["GRPOHyper.clip_low", "between 0 and 1"]),
    "not a number": (["compare", "smoke", "--set", "grpo.clip_low=wide"], ["'wide' is not a number"]),
    "half an option": (["compare", "smoke", "--set", "fspo=1"], ["method.field=value"]),
    "no seeds": (["compare", "smoke", "--seeds", "0"], ["--seeds 0"]),
    "no steps": (["compare", "smoke", "--steps", "0"], ["TrainConfig.steps = 0", "at least 1"]),
    "method twice": (["compare", "smoke", "--methods", "grpo,grpo"], ["methods", "distinct"]),
    "no data": (["evaluate", "--tasks", "gsm8k", "--data-dir", "/no/such"], ["/no/such"]),
    "nothing to report": (["report", "/no/such/folder"], ["/no/such/folder", "--out folder of fspo compare"]),
    "unknown download": (["model", "fetch", "smollm3"], ["smollm3", "smollm2"]),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line_and_exit_code_2(
    case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words, expected = CASES[case]
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, monkeypatch, *words)
    for text in expected:
        assert text in line
    assert list(tmp_path.iterdir()) == []


def test_a_broken_data_row_is_named_before_anything_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data/svamp").mkdir(parents=True)
    good = {"id": "svamp/1", "problem": "1 and 1?", "answer": "2", "source": "svamp"}
    (tmp_path / "data/svamp/test.jsonl").write_text(json.dumps(good) + '\n{"id": "svamp/2", "prob\n')
    out = tmp_path / "out"
    words = ["compare", "smollm2-svamp", "--data-dir", str(tmp_path / "data"), "--out", str(out)]
    line = refused(capsys, monkeypatch, *words)
    assert "test.jsonl" in line
    assert "2" in line
    assert not out.exists()


def folder_of(tmp_path: Path, **changes: object) -> Path:
    """A folder that looks like a comparison, with parts of its record changed."""
    content = {"protocol": PROTOCOL, "config": plain_data(recipe("smoke")), **changes}
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    return tmp_path


def test_another_protocol_is_refused_and_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = folder_of(tmp_path, protocol=PROTOCOL + 1)
    before = (out / "comparison.json").read_text()
    line = refused(capsys, monkeypatch, "compare", "smoke", "--out", str(out))
    assert f"results of protocol {PROTOCOL + 1}, this version writes protocol {PROTOCOL}" in line
    assert [p.name for p in out.iterdir()] == ["comparison.json"]
    assert (out / "comparison.json").read_text() == before


def test_another_configuration_is_refused_by_the_name_of_the_difference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = folder_of(tmp_path)
    line = refused(capsys, monkeypatch, "compare", "smoke", "--steps", "9", "--out", str(out))
    assert "train.steps = 3, not 9" in line


def test_a_folder_with_other_things_is_not_written_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert "not empty" in refused(capsys, monkeypatch, "compare", "smoke", "--out", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_broken_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"protocol": 1')
    with pytest.raises(UserError, match=r"result\.json: not a result of this suite"):
        read_result(tmp_path)


def test_settings_of_training_and_evaluation_reach_the_config() -> None:
    options = ["train.learning_rate=3e-5", "evaluation.samples=8", "fspo.c_low=0.05", "train.max_new_tokens=none"]
    config = with_options(recipe("demo"), options)
    assert (config.train.learning_rate, config.evaluation.samples, config.train.max_new_tokens) == (3e-5, 8, None)
    assert config.options == ("fspo.c_low=0.05",)


def test_options_reach_the_method_and_no_other() -> None:
    options = ["fspo.drift=ema", "fspo.c_dual=0.2", "grpo.clip_high=0.28", "fspo.drift=-1e-4", "ppo.whiten=false"]
    fspo = method_with("fspo", options).hyper
    assert (fspo.drift, fspo.c_dual, fspo.c_low) == (-1e-4, 0.2, 0.03)
    assert method_with("grpo", options).hyper.clip_high == 0.28
    assert method_with("ppo", options).hyper.whiten is False
    assert method_with("ppo", ["ppo.critic_warmup_epochs=2"]).hyper.critic_warmup_epochs == 2
    assert method_with("rloo", options) == method_with("rloo", [])
