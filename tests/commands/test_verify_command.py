"""`fspo verify`: a comparison agrees with itself, packed; a planted change is named, and the exit code is 1."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from faults.outcomes import command
from suite.experiments.recipes import recipe
from suite.experiments.remake import Chosen, chosen_cells, digest_under, recorded_threads, require_files_here
from suite.records.result import read_file, write_result
from suite.records.rollout_set import RolloutSet
from suite.types import RunResult, UserError, Verdict

pytestmark = pytest.mark.xdist_group("verify")
ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--methods", "grpo", "--steps", "2", "--set", "evaluation.limit=6")


def call(*words: str, root: Path = ROOT) -> tuple[int, str]:
    """Exit code and output of a command of the suite that lies in that folder."""
    if root == ROOT:
        ended = command(words, root, patience=300)
        return -1 if ended.code is None else ended.code, ended.said
    done = subprocess.run(
        [sys.executable, "-m", "suite.commands.main", *words], cwd=root, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "small"
    code, said = call("compare", "smoke", *SMALL, "--out", str(out))
    assert code == 0, said
    return out


@pytest.mark.slow
def test_a_comparison_agrees_with_itself_also_packed(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "packed")
    assert call("report", str(folder), "--pack")[0] == 0
    code, said = call("verify", str(folder), "--cells", "base,grpo-seed0", "--out", str(tmp_path / "again"))
    assert code == 0, said
    assert said.count(": the same bytes") == 2
    assert "2 of 2 agree byte for byte" in said
    assert (tmp_path / "again/cells/grpo-seed0/result.json").exists()


@pytest.mark.slow
def test_an_edited_verdict_is_found_even_under_a_digest_of_its_own(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "edited")
    path = folder / "base/result.json"
    text = path.read_text()
    path.write_text(text.replace('"correct"', '"wrong"', 1))
    code, said = call("verify", str(folder), "--cells", "base")
    assert code == 1, said
    assert "base: NOT the same" in said
    assert "altered after it was written" in said
    path.write_text(text)
    stored = read_file(path)
    first, *rest = stored.evals
    other = Verdict.WRONG if first.verdicts[0][0] == Verdict.CORRECT else Verdict.CORRECT
    forged = replace(first, verdicts=((other, *first.verdicts[0][1:]), *first.verdicts[1:]))
    write_result(replace(stored, evals=(forged, *rest)), path.parent)
    code, said = call("verify", str(folder), "--cells", "base")
    assert code == 1, said
    assert "1 verdicts and 0 lengths of 12 responses differ" in said
    assert "no fact on record is otherwise here" in said


@pytest.mark.slow
def test_a_tree_with_one_constant_changed_is_compared_and_says_which(whole: Path, tmp_path: Path) -> None:
    for name in ("suite", "baselines", "fspo", "tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / PLANTED[0]
    text = source.read_text()
    assert text.count(PLANTED[1]) == 1
    source.write_text(text.replace(PLANTED[1], PLANTED[2]))
    code, said = call("verify", str(whole), root=tmp_path)
    assert code == 1, said
    assert "0 of 1 agree byte for byte" in said
    for line in ("setting hyper.clip_low: 0.2 -> 0.0002", "curves part at step 1 of 2", "final model: ", "-> none"):
        assert line in said, line
    for reason in ("commit: ", "card of the method: ", "source of the method: "):
        assert f"reason?   {reason}" in said
    assert "not explained by other kernels" in said


PLANTED = ("baselines/grpo.py", "clip_low: float = knob(0.2,", "clip_low: float = knob(0.0002,")
"""The file of GRPO's hyper-parameters, its lower width, and another one."""


def test_a_folder_is_not_verified_by_itself() -> None:
    demo = "results/demo"
    code, said = call("verify", demo, "--cells", "base", "--out", f"{demo}/../demo")
    assert code == 2
    assert "it is the folder that is verified" in said


def test_cells_are_drawn_with_a_seed_or_named() -> None:
    demo = recipe("demo")
    cells = len(demo.methods) * len(demo.seeds)
    assert chosen_cells(demo, "3", 7) == chosen_cells(demo, "3", 7) != chosen_cells(demo, "3", 8)
    assert len({*chosen_cells(demo, "999", 0).cells}) == cells
    assert chosen_cells(demo, "fspo-seed11, base", 0) == Chosen((("fspo", 11),), base=True)
    assert chosen_cells(demo, "fspo-seed11,gspo-seed11", 0).seeds == (11,)
    with pytest.raises(UserError, match="unknown cell 'fspo-seed9'; did you mean fspo-seed"):
        chosen_cells(demo, "fspo-seed9", 0)
    with pytest.raises(UserError, match="--cells 0: at least 1"):
        chosen_cells(demo, "0", 0)


def test_relative_paths_are_looked_for_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke = recipe("smoke")
    train = replace(smoke.train, model="mymodel", tasks=("train.jsonl@plain",), data_dir=Path("data"))
    mine = replace(smoke, train=train, evaluation=replace(smoke.evaluation, tasks=("gcd", "mine.jsonl")))
    for folder in ("mymodel", "data"):
        (tmp_path / folder).mkdir()
    for file in ("mymodel/config.json", "train.jsonl", "mine.jsonl"):
        (tmp_path / file).write_text("{}")
    monkeypatch.chdir(tmp_path)
    require_files_here(mine, Path("out"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"made with mymodel, train\.jsonl, mine\.jsonl, data, and nothing is there"):
        require_files_here(mine, Path("out"))
    require_files_here(replace(smoke, train=replace(smoke.train, model="owner/name")), Path("out"))


def test_the_commit_in_the_header_of_rollouts_is_no_difference() -> None:
    there = RolloutSet({"versions": {"commit": "a", "torch": "1"}, "step": 0}, ())
    here = RolloutSet({"versions": {"commit": "b", "torch": "2"}, "step": 0}, ())
    assert digest_under(here, {"commit": "a", "torch": "1", "system": "x"}) == there.digest
    assert digest_under(here, {"commit": "a"}) != there.digest


def test_as_many_threads_as_the_stored_cells_had() -> None:
    runs = [RunResult(1, "fspo", 0, {}, (), {}, {}, {}, environment) for environment in ({"threads": "3"}, {})]
    assert recorded_threads(runs, 2) == 3
    assert recorded_threads(runs[1:], 2) == 2
