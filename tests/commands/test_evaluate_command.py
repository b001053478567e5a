"""`fspo evaluate`, killed with signal 9 in real processes, ends as if nothing had been; `fspo samples` shows it all."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from suite.commands import main
from suite.evaluation.sample_store import read_frame, samples_folder
from suite.records.packed import read_result
from suite.records.result import digest
from suite.report.terminal import printable
from suite.types import Problem
from tasks import TASKS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("evaluate")]
WORDS = ("evaluate", "--samples", "3", "--limit", "40", "--batch-size", "16")


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "suite.commands.main", *WORDS]
    environment = {**os.environ, "PYTHONPATH": str(Path(main.__file__).resolve().parents[2])}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob("part-*.parquet"))


def content(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "result.json")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, finish(start(folder))


def table(output: str) -> list[str]:
    """The lines of the printed table."""
    return [line for line in output.splitlines() if " x 3 " in line]


def test_killed_twice_it_ends_with_the_same_table_and_the_same_files(whole: tuple[Path, str], tmp_path: Path) -> None:
    for more in (2, 9):
        process = start(tmp_path)
        while len(parts(tmp_path)) < more:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = {p: p.stat().st_mtime_ns for p in parts(tmp_path)}
    assert not list(tmp_path.rglob("result.json"))
    output = finish(start(tmp_path))
    assert len(table(output)) == 5
    assert table(output) == table(whole[1])
    assert "samples are there already" in output
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert content(tmp_path) == content(whole[0])
    results = [read_result(next(folder.rglob("result.json")).parent) for folder in (tmp_path, whole[0])]
    assert digest(results[0]) == digest(results[1])


def test_the_same_command_again_draws_nothing(whole: tuple[Path, str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole[0].rglob("*") if p.is_file() and p.name != ".lock"}
    output = finish(start(whole[0]))
    assert output.count("120 of 120 samples are there already") == 4
    assert table(output) == table(whole[1])
    assert {p: p.stat().st_mtime_ns for p in whole[0].rglob("*") if p.is_file() and p.name != ".lock"} == before


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["fspo", *words])
    main.main()
    return capsys.readouterr().out


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, capsys, *words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def out_of(whole: tuple[Path, str]) -> Path:
    return next(whole[0].rglob("result.json")).parent


def test_another_question_to_the_same_folder_is_refused(
    whole: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(whole[0])
    error = refused(monkeypatch, capsys, *WORDS, "--seed", "1", "--out", str(out_of(whole)))
    assert "seed = 0, not 1; choose another --out" in error
    assert content(whole[0]) == before


def test_a_result_without_samples_is_not_taken_for_ones_own(
    whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(out_of(whole) / "result.json", tmp_path)
    assert "holds a result already" in refused(monkeypatch, capsys, *WORDS, "--out", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_set_with_kinds_of_problems_is_shown_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def by_size(problem: Problem) -> str:
        return "long" if len(problem.solution or "") > 20 else "short"

    monkeypatch.setitem(TASKS, "gcd", dataclasses.replace(TASKS["gcd"], kind=by_size))
    words = ("evaluate", "--tasks", "equation,gcd", "--samples", "3", "--limits", "equation=2,gcd=12")
    shown = run(monkeypatch, capsys, *words, "--out", str(tmp_path))
    counts = {line.split(" x 3")[0].split()[0]: line.split(" x 3")[0].split()[-1] for line in table(shown)}
    problems = TASKS["gcd"].load("eval", None)[:12]
    long = sum(by_size(problem) == "long" for problem in problems)
    assert "by kind of problem" in shown
    assert (counts["equation"], counts["gcd,"]) == ("2", str(12 - long))
    kinds = [line for line in table(shown) if "gcd, " in line]
    assert [line.split(" x 3")[0].split()[1:] for line in kinds] == [["long", str(long)], ["short", str(12 - long)]]
    kept = (tmp_path / "table.md").read_text()
    assert kept.count("| set |") == 2
    assert "gcd, long" in kept


def test_metrics_from_the_store_are_those_of_the_table(
    whole: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = out_of(whole)
    shown = run(monkeypatch, capsys, "samples", str(out), "--metrics", "--k", "1,3", "--task", "gcd")
    lines = [line.split() for line in shown.splitlines() if " x 3 " in line]
    accuracy = pd.read_csv(out / "accuracy.csv").set_index("task").loc["gcd"]
    assert [line[4] for line in lines] == ["1", "3"]
    assert {line[5] for line in lines} == {f"{100 * accuracy['accuracy']:.1f}"}
    assert lines[1][6] == f"{100 * accuracy['pass_at_samples']:.1f}"
    words = ("samples", str(out), "--metrics", "--task", "gcd", "--k")
    assert "--k 4: gcd has 3 samples" in refused(monkeypatch, capsys, *words, "4")
    assert "--k 'x'" in refused(monkeypatch, capsys, "samples", str(out), "--metrics", "--k", "x")


def test_wrong_samples_are_shown_to_a_person(
    whole: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = out_of(whole)
    frame = read_frame(samples_folder(out))
    wrong = frame[(frame["verdict"] == "wrong") & (frame["task"] == "equation")].to_dict("records")
    shown = run(monkeypatch, capsys, "samples", str(out), "--task", "equation", "--wrong", "--limit", "1000")
    assert f"{len(wrong)} of {len(wrong)} samples shown" in shown
    for row in wrong:
        assert f"{row['problem']}  sample {row['sample']}" in shown
        assert printable(row["response"], keep="\n\t") in shown
    assert "verdict correct" not in shown
    one = run(monkeypatch, capsys, "samples", str(out), "--problem", wrong[0]["problem"], "--limit", "1")
    assert "1 of 3 samples shown, --limit for more" in one
    assert "--task 'gdc': no samples of it" in refused(monkeypatch, capsys, "samples", str(out), "--task", "gdc")
    assert "no samples here" in refused(monkeypatch, capsys, "samples", str(whole[0]))


def test_what_a_model_wrote_is_neither_markup_nor_a_command() -> None:
    assert printable("[bold]x\x1b[2J\n\u202e", keep="\n") == "[bold]x\\x1b[2J\n\\u202e"
