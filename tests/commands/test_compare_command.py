"""The main job, end to end in real processes: killed with signal 9 it goes on, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from faults.outcomes import command
from suite.evaluation.sample_store import read_frame, read_manifest, samples_folder
from suite.experiments.progress import State, Status, status_of
from suite.policy.hub_upload import check_pushable
from suite.policy.loading import load_model, model_digest, tokenizer_digest
from suite.policy.model_folders import check_sums
from suite.records.packed import read_result
from suite.records.result import digest, mean_accuracy
from suite.records.rollout_set import RolloutSet
from suite.records.run_log import read_log
from suite.types import Verdict

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("compare")]
CELLS = ("grpo-seed0", "fspo-seed0")


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "suite.commands.main", "compare", "smoke", "--out", str(out), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def steps_done(out: Path) -> int:
    return sum(len(read_log(out / "cells" / cell)) for cell in CELLS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    finish(start(out))
    return out


@dataclass(frozen=True)
class Seen:
    """A comparison that was killed with signal 9 when a cell had trained a step, and again when one had kept samples.

    Its status while it ran, after the first kill and at its end; what `fspo status` printed while it ran; the files of
    samples that the second kill left, with the times at which they were written.
    """

    out: Path
    statuses: list[Status]
    printed: str
    kept: dict[Path, int]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Started three times: with trackers, and twice without."""
    out = tmp_path_factory.mktemp("killed")
    process = start(out)
    while steps_done(out) == 0:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    while_it_ran, printed = status_of(out), command(["status", str(out)], out.parent).said
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while any(job.runs for job in status_of(out)[0].jobs):  # workers notice that their parent is gone
        time.sleep(0.1)
    assert not (out / "report.md").exists()
    after_the_kill = status_of(out)
    process = start(out, "--set", "train.trackers=none")
    while not (parts := [*(out / "cells").rglob("part-*.parquet")]):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in parts}
    finish(start(out, "--set", "train.trackers=none"))
    return Seen(out, [*while_it_ran, *after_the_kill, *status_of(out)], printed, kept)


@pytest.fixture(scope="module")
def killed(seen: Seen) -> Path:
    return seen.out


def test_the_status_of_a_comparison_while_it_runs_after_a_kill_and_at_its_end(seen: Seen, whole: Path) -> None:
    out, (running, stopped, ended), printed = seen.out, seen.statuses, seen.printed
    by_name = [{job.name: job for job in status.jobs} for status in (running, stopped, ended)]
    ran = {name for name, job in by_name[0].items() if job.runs}
    assert ran
    assert ran <= {"grpo seed 0", "fspo seed 0"}
    assert [by_name[0][name].state for name in ("base", "rollouts seed 0")] == [State.DONE, State.DONE]
    assert {by_name[1][name].state for name in ran} == {State.STOPPED}
    assert ended.done
    assert (running.seconds_left or 0) > 0
    for cell in CELLS:
        rows, name = read_log(whole / "cells" / cell), cell.replace("-seed", " seed ")
        for jobs in by_name:
            job = jobs[name]
            assert job.reward == (rows[job.steps - 1]["reward/mean"] if job.steps else None), (
                "the same bits in every run"
            )
        assert by_name[2][name].steps == by_name[2][name].total == len(rows)
        assert by_name[2][name].accuracy == mean_accuracy(read_result(out / "cells" / cell).evals)
    assert re.search(r"^(grpo|fspo) seed 0 +(running|evaluating)", printed, re.MULTILINE), printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_killed_comparison_ends_like_an_uninterrupted_one_bit_for_bit(whole: Path, killed: Path) -> None:
    for folder in ("base", *(f"cells/{cell}" for cell in CELLS)):
        assert digest(read_result(killed / folder)) == digest(read_result(whole / folder)), folder
    for name in ("accuracy.csv", "clip_by_length.csv", "fairness.csv", "claims.csv", "stability.csv", "accuracy.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    mine, other = (sections((folder / "report.md").read_text()) for folder in (killed, whole))
    assert {name for name in mine if mine[name] != other[name]} <= {"What it cost"}


def sections(text: str) -> dict[str, str]:
    """The parts of a report by their headings."""
    return dict(part.partition("\n")[::2] for part in text.split("\n## "))


def test_all_methods_start_from_one_recorded_set(whole: Path) -> None:
    (path,) = (whole / "rollouts" / "seed0").glob("*.safetensors")
    recorded = RolloutSet.read(path)
    assert recorded.header["step"] == 0
    digests = {read_result(whole / "cells" / cell).digests["first_rollouts"] for cell in CELLS}
    assert digests == {recorded.digest} == {path.stem}
    rewards = [read_result(whole / "cells" / cell).curves["reward/mean"][0] for cell in CELLS]
    assert rewards[0] == rewards[1] == pytest.approx(sum(r.reward for r in recorded.rollouts) / len(recorded.rollouts))


def test_the_report_has_tables_figures_and_what_they_rest_on(whole: Path) -> None:
    for name in ("accuracy", "differences", "reward", "clip_by_length", "acceptance", "growth"):
        assert (whole / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (whole / f"{name}.svg").read_bytes().startswith(b"<?xml")
    text = (whole / "report.md").read_text()
    for part in ("| base |", "updates per rollout: 4", "shared first step (seed 0: ", "few seeds", "fspo", "grpo"):
        assert part in text
    assert list(sections(text))[1:4] == [
        "Differences of the declared pairs, in points, set by set",
        "What the paper claims, and what these runs say",
        "Accuracy",
    ]
    assert text.index("![accuracy]") < text.index("![differences]") < text.index("\n## ")
    for path in re.findall(r"\]\(([\w/.-]+)\)", text):
        assert (whole / path).is_file(), path
    page = (whole / "report.html").read_text()
    anchors = set(re.findall(r'<a href="#([^"]+)"', page))
    assert anchors == {"runs-of-base", "runs-of-grpo", "runs-of-fspo", "figure-clip_by_length"}
    assert anchors <= set(re.findall(r'<(?:h3|figure) id="([^"]+)"', page))
    assert '<a href="cells/fspo-seed0/result.json">' in page
    assert not re.findall(r'(?:src|href)="(?!data:|#|base/|cells/)', page)
    assert (whole / "tables.tex").read_text().count(r"\begin{tabular}") == 3


def test_a_report_is_made_again_from_stored_results_byte_for_byte(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "smoke"
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("*.csv", "*.md", "*.html", "*.tex", "*.png", "*.svg"))
    shutil.rmtree(out / "cells/fspo-seed0/model")
    call("report", str(out))
    made = {p.name for p in whole.iterdir() if p.suffix in (".csv", ".md", ".html", ".tex", ".png", ".svg")}
    assert made == {p.name for p in out.iterdir() if p.suffix in (".csv", ".md", ".html", ".tex", ".png", ".svg")}
    for name in made:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    said = call("report", str(out), "--claims")
    assert re.findall(r"^(\d)\. ", said, re.MULTILINE) == list("12345")


def test_before_and_after_of_the_same_runs_differ_in_nothing(whole: Path, killed: Path, tmp_path: Path) -> None:
    said = call("report", "--compare", str(killed), str(whole), "--out", str(tmp_path))
    table = pd.read_csv(tmp_path / "changes.csv")
    assert (table["difference"] == 0).all()
    assert set(table["same_runs"]) == {"1 of 1"}
    assert "1 of 1" in said
    assert json.loads((tmp_path / "made.json").read_text())["command"].startswith("fspo report --compare")
    with pytest.raises(AssertionError, match="give one folder of a comparison, or --compare BEFORE AFTER"):
        call("report")


def test_a_sweep_adds_rates_to_the_report(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    call("compare", str(out), "--rates", "3e-4", "--seeds", "1")
    assert (out / "sweep/lr-0.0003/cells/fspo-seed0/result.json").exists()
    assert sorted(set(pd.read_csv(out / "stability.csv")["learning_rate"])) == [5e-5, 3e-4]
    assert (out / "learning_rates.png").exists()
    assert "at learning rates 5e-05, 0.0003" in (out / "report.md").read_text()
    assert pd.read_csv(out / "accuracy.csv").equals(pd.read_csv(whole / "accuracy.csv"))
    with pytest.raises(AssertionError, match=r"--rates '5e-5': 5e-05 is there already"):
        call("compare", str(out), "--rates", "5e-5")


def test_a_comparison_grows_by_seeds_and_methods_and_what_was_there_stays(whole: Path, tmp_path: Path) -> None:
    """Packed, then grown, then packed again; a new cell made again in a folder of the whole grid has the same bytes."""
    out = shutil.copytree(whole, tmp_path / "out")
    before = {name: read_result(out / name) for name in ("base", *(f"cells/{cell}" for cell in CELLS))}
    call("report", str(out), "--pack")
    larger = ("compare", "smoke", "--methods", "grpo,fspo,rloo", "--seeds", "2", "--out", str(out))
    assert "and adds methods rloo and seeds 1" in " ".join(call(*larger, "--dry-run").split())
    said = call(*larger)
    assert f"added to the comparison in {out}: methods rloo and seeds 1" in " ".join(said.split())
    assert {name: read_result(out / name) for name in before} == before
    new = [f"cells/{cell}" for cell in ("grpo-seed1", "fspo-seed1", "rloo-seed0", "rloo-seed1")]
    assert [name for name in new if (out / name / "result.json").exists()] == new
    first = {read_result(out / name).digests["first_rollouts"] for name in ("cells/fspo-seed0", "cells/rloo-seed0")}
    assert len(first) == 1
    text = (out / "report.md").read_text()
    assert "3 methods x 2 seeds" in text
    assert re.search(
        r"Added after the comparison was begun: methods rloo and seeds 1 \(`fspo compare smoke .*`, commit", text
    )
    call("report", str(out), "--pack")
    assert not [*out.rglob("result.json")]
    assert {name: read_result(out / name) for name in before} == before
    assert "1 of 1 agree byte for byte" in call("verify", str(out), "--cells", "rloo-seed1")
    assert "Added after" not in (whole / "report.md").read_text()


def call(*words: str) -> str:
    """What a command prints; an assertion fails with it where the command does."""
    ended = command(words, Path.cwd(), patience=300)
    assert ended.code == 0, ended.said
    return ended.said


def test_the_null_update_is_small_in_float32_and_a_column_only_where_it_is_not_0(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    assert "| null update |" not in sections(text)["Accuracy"]
    assert "It puts no response outside the band of any method." in sections(text)["The null update"]
    table = pd.read_csv(whole / "null_update.csv").set_index("change")
    assert table.loc["again", "token_max"] == 0
    assert table["token_max"].max() < 1e-4
    clips = pd.read_csv(whole / "null_update_clips.csv")
    assert set(clips["method"]) == {"grpo", "fspo"}
    assert clips["outside_band"].max() == 0


def test_the_share_of_cut_gradients_is_logged_and_reported(whole: Path) -> None:
    table = pd.read_csv(whole / "gradient_cuts.csv").set_index("method")
    for cell in CELLS:
        rows = read_log(whole / "cells" / cell)
        shares = [row["grad_norm/cut"] for row in rows]
        assert table.loc[cell.removesuffix("-seed0"), "cut"] == pytest.approx(sum(shares) / len(shares))
        for row in rows:
            assert (row["grad_norm/cut"] > 0) == (row["grad_norm/max"] > 1)
            assert row["grad_norm/cut"] * 4 == int(row["grad_norm/cut"] * 4)  # of four updates


def test_clipping_by_length_is_logged_while_training(whole: Path) -> None:
    for cell in CELLS:
        for row in read_log(whole / "cells" / cell):
            counts = [x for name, x in row.items() if name.startswith("by_length/") and name.endswith("/responses")]
            assert sum(counts) == 8 * 8 * 3 / 4  # three of four updates


def test_the_model_of_a_cell_is_one_that_transformers_loads_with_its_card(whole: Path) -> None:
    folder, result = whole / "cells" / "fspo-seed0" / "model", read_result(whole / "cells" / "fspo-seed0")
    check_pushable(folder)
    check_sums(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model_digest(model) == result.digests["final_model"]
    assert tokenizer_digest(tokenizer) == result.digests["tokenizer"]
    ours = load_model(str(folder), dtype=torch.float32, device="cpu")
    ids = tokenizer("08,28;", return_tensors="pt").input_ids
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, ours.model(ids).logits, rtol=0, atol=1e-4)
    config = json.loads((folder / "config.json").read_text())  # what vLLM looks for: a known class, and no code
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert "auto_map" not in config
    assert not [
        path.name for path in folder.iterdir() if path.suffix not in (".json", ".safetensors", ".sha256", ".md")
    ]
    text = (folder / "README.md").read_text()
    for said in (f"`{digest(result)}`", *(f"`{value}`" for value in result.digests.values()), f"--out {whole}"):
        assert said in text, said
    rows = dict(re.findall(r"^\| `(\w+)` \| \d* \| ([\d.]+) \[", text, re.MULTILINE))
    for one in result.evals:
        hits = [verdict == Verdict.CORRECT for row in one.verdicts for verdict in row]
        assert float(rows[one.task]) == pytest.approx(100 * sum(hits) / len(hits), abs=0.051)


def test_every_sample_of_every_evaluation_is_kept(whole: Path, killed: Path) -> None:
    for folder in ("base", *(f"cells/{cell}" for cell in CELLS)):
        result, place = read_result(whole / folder), samples_folder(whole / folder)
        frame = read_frame(place)
        kept = [list(part["verdict"]) for _, part in frame.groupby("task", sort=False)]
        assert kept == [[v.value for row in e.verdicts for v in row] for e in result.evals]
        model = result.digests["model" if folder == "base" else "final_model"]
        assert read_manifest(place)["asked"]["model"] == model
        other = samples_folder(killed / folder)
        files = sorted(p.relative_to(place) for p in place.rglob("*") if p.is_file())
        assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
        assert read_manifest(other)["asked"] == read_manifest(place)["asked"]  # the rest may name another commit
        for path in files:
            assert path.name == "manifest.json" or (place / path).read_bytes() == (other / path).read_bytes(), path


def test_a_cell_killed_while_it_evaluates_goes_on_with_its_samples(seen: Seen) -> None:
    assert seen.kept
    assert {path: path.stat().st_mtime_ns for path in seen.kept} == seen.kept


def test_the_canary_answers_alike_in_every_process_and_is_heard_when_not(whole: Path, tmp_path: Path) -> None:
    for folder in ("base", *(f"cells/{cell}" for cell in CELLS)):
        assert read_result(whole / folder).environment["canary"] == "same"
    assert "comparable" not in sections((whole / "report.md").read_text())["Accuracy"]
    out = shutil.copytree(whole, tmp_path / "out")
    canary = json.loads((out / "base/canary.json").read_text())
    canary["answers"][0]["tokens"] = [*canary["answers"][0]["tokens"], 1]
    (out / "base/canary.json").write_text(json.dumps(canary))
    (out / "cells/fspo-seed0/result.json").unlink()
    output = finish(start(out))
    line = "not comparable: fspo seed 0: the start model answers 1 of 16 problems of the canary otherwise"
    text = (out / "report.md").read_text()
    assert line in text
    assert "no: seeds 0" in text
    assert line.partition(" of the canary")[0] in output  # the screen cuts it to its width


def test_a_second_run_does_nothing_again_and_ends_with_one_screen_that_names_its_page(whole: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("result.json")}
    output = finish(start(whole))
    assert "4 of 4 jobs are done already" in output
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("result.json")} == before
    lines = output.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("smoke: ") and "seeds on embedded" in line)
    assert len(lines) - first <= 40
    assert lines[-1] == f"page: {whole / 'report.html'}"
    assert "<h2" in (whole / "report.html").read_text()


def test_an_altered_result_is_refused(whole: Path, tmp_path: Path) -> None:
    content = json.loads((whole / "cells/fspo-seed0/result.json").read_text())
    content["evals"][0]["verdicts"][0][0] = "correct" if content["evals"][0]["verdicts"][0][0] == "wrong" else "wrong"
    (tmp_path / "result.json").write_text(json.dumps(content))
    from suite.types import UserError

    with pytest.raises(UserError, match="altered after it was written"):
        read_result(tmp_path)
