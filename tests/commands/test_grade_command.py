"""`fspo grade`: refusals before any work, the lines it writes, and the numbers of the agreement between rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import grading as bench
from suite.commands import grade, main
from suite.commands.grade import agreement_matrix, disagreements, verdict_counts
from suite.types import Verdict
from tasks import symbolic
from tasks.grading import PANEL, REWARD

C, W, N, U = Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.UNDECIDED

ROWS = [
    {"id": "a", "gold": "18", "response": "#### 18", "more": 1},
    {"id": "[bold]b", "gold": r"\frac{1}{2}", "response": r"\boxed{\sqrt{1/4}}"},
    {"id": "c\u001b[2J\ud800", "gold": "18", "response": r"\boxed{19}"},
    {"id": "a", "gold": "18", "response": ""},
]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", *words])
    main.main()


def written(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_response_gets_a_line_with_every_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = written(tmp_path / "responses.jsonl", ROWS), tmp_path / "new" / "verdicts.jsonl"
    run(monkeypatch, "grade", str(file), "--out", str(out))
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert found == [
        {"id": ROWS[i]["id"], "verdict": verdicts[list(PANEL).index(REWARD)]} | dict(zip(PANEL, verdicts, strict=True))
        for i, verdicts in enumerate([(N, C, C, C), (C, C, W, C), (W, W, W, W), (N, N, N, N)])
    ]
    shown = capsys.readouterr().out
    assert "2 disagreements" in shown
    assert "line 1, a: gold 18; strict no_answer, loose correct" in shown
    assert "line 2, [bold]b" in shown
    assert "3/4" in shown
    assert all(rule.meaning in shown for rule in PANEL.values())
    assert list(out.parent.iterdir()) == [out]


def test_rows_may_say_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["correct", "correct", "not_correct", "any"]
    rows = [{**row, "expected": word} for row, word in zip(ROWS, words, strict=True)]
    run(monkeypatch, "grade", str(written(tmp_path / "good.jsonl", [*rows, ROWS[3]])))
    assert "the reward's verdict is as expected on 5 of 5" in capsys.readouterr().out
    rows[2]["expected"] = "correct"
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "grade", str(written(tmp_path / "bad.jsonl", rows)))
    shown = capsys.readouterr().out
    assert stopped.value.code == 1
    assert "not as expected: line 3" in shown
    assert ": wrong, expected correct" in shown
    assert "as expected on 3 of 4" in shown
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "grade", str(written(tmp_path / "odd.jsonl", [{**ROWS[0], "expected": "right"}])))
    assert "line 1: expected 'right': write correct, wrong" in capsys.readouterr().err


def test_what_a_stranger_wrote_cannot_steer_the_terminal() -> None:
    assert grade._shown("c\x1b[2J\ud800\n") == r"c\x1b[2J\ud800\n"
    assert len(grade._shown("7" * 1000)) == grade.LONGEST_SHOWN


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", ["line 2", "not JSON", "mend or delete"]),
        (b"", ["line 2", "empty line"]),
        (b"[1]", ["line 2", "list", "'response'"]),
        (b'{"id": "x", "gold": "1"}', ["line 2", "'response' is missing"]),
        (b'{"id": "x", "gold": "1", "response": 1}', ["line 2", "'response' is an int"]),
        (b'{"id": "x", "gold": " ", "response": ""}', ["line 2", "'gold' is empty"]),
        (b'{"id": true, "gold": "1", "response": ""}', ["line 2", "'id' is a bool"]),
        (b"\xff", ["line 2", "UTF-8"]),
    ],
)
def test_a_malformed_line_is_refused_before_anything_is_graded(
    line: bytes,
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    symbolic.own_pool().close()
    file, out = tmp_path / "responses.jsonl", tmp_path / "verdicts.jsonl"
    file.write_bytes(json.dumps({"id": "x", "gold": "x+x", "response": r"\boxed{2x}"}).encode() + b"\n" + line + b"\n")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "grade", str(file), "--out", str(out))
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert all(text in error for text in [str(file), *expected])
    assert not out.exists()
    assert symbolic.own_pool().pids == []


def test_an_output_that_would_lose_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "responses.jsonl", ROWS)
    before = file.read_bytes()
    for out in (file, tmp_path, file / "verdicts.jsonl"):
        with pytest.raises(SystemExit):
            run(monkeypatch, "grade", str(file), "--out", str(out))
        assert f"--out {out}" in capsys.readouterr().err
    assert file.read_bytes() == before
    with pytest.raises(SystemExit):
        run(monkeypatch, "grade", str(tmp_path / "nothing.jsonl"))
    assert "no such file" in capsys.readouterr().err


def test_agreement_counts_responses_that_both_decided() -> None:
    panel = {"one": [C, W, U, N, C], "two": [C, C, C, W, U]}
    assert verdict_counts(panel).to_dict("records") == [
        {"grader": "one", "correct": 2, "wrong": 1, "no answer": 1, "undecided": 1},
        {"grader": "two", "correct": 3, "wrong": 1, "no answer": 0, "undecided": 1},
    ]
    assert agreement_matrix(panel).to_dict("records") == [
        {"grader": "one", "one": "4/4", "two": "2/3"},
        {"grader": "two", "one": "2/3", "two": "4/4"},
    ]
    assert disagreements(panel) == [1]


def test_the_benchmark_writes_what_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in bench.SETS:
        rows = [{"id": f"{name}/{i}", "problem": "?", "answer": f"x+{i}", "source": name} for i in range(10)]
        (tmp_path / name).mkdir()
        written(tmp_path / name / "test.jsonl", list(rows))
    out = tmp_path / "grading.json"
    monkeypatch.setattr(sys, "argv", ["grading", "--data-dir", str(tmp_path), "--out", str(out), "--quick"])
    bench.main()
    found = json.loads(out.read_text())
    assert found["answers"] == bench.QUICK_ANSWERS
    assert {"workers", "start_seconds", "retried", "versions", "machine", "command"} <= set(found)
    for kind in ("own", "neighbour"):
        part = found["results"][kind]
        for unit in ("seconds", "cpu_seconds"):
            assert {side: len(raw) for side, raw in part[unit].items()} == dict.fromkeys(bench.SIDES, 1)
        ratio = part["seconds"]["plain"][0] / part["seconds"]["pool"][0]
        assert part["pool_over_plain"] == pytest.approx(ratio, rel=1e-12)
    assert found["results"]["own"]["not_correct"] == {side: {} for side in bench.SIDES}
    assert found["results"]["own"]["verdicts"]["grader"]["correct"] == bench.QUICK_ANSWERS


def test_ordinary_answers_take_every_row_of_the_small_sets(tmp_path: Path) -> None:
    for size, name in enumerate(bench.SETS, start=1):
        rows = [{"id": f"{name}/{i}", "problem": "?", "answer": "1", "source": name} for i in range(size)]
        (tmp_path / name).mkdir()
        written(tmp_path / name / "test.jsonl", list(rows))
    chosen = [name.partition("/")[0] for name, _ in bench.ordinary_answers(tmp_path, 26)]
    assert [chosen.count(name) for name in bench.SETS] == [1, 2, 3, 4, 4, 4, 4, 4]
