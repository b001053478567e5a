"""The benchmarks against TRL: both sides work in turn on the same rows, and agree on what they computed. No times."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from benchmarks import cycles, duel, training_step
from benchmarks.material import FEW_SHOT, MIXES, Material, as_json, deal, material
from benchmarks.our_side import loaded_model
from benchmarks.planned import PlannedSampler, planned_lengths
from suite.policy import sampling
from suite.policy.sampling import SampleRequest, SamplingSettings, TransformersSampler, end_token_ids
from suite.types import UserError

ROOT = Path(__file__).resolve().parents[2]
TOY = """
import json, sys
from pathlib import Path
from benchmarks.duel import Bell
task, bell = json.loads(Path(sys.argv[1]).read_text()), Bell()
bell.say(loaded_gib=0.1)
for turn in range(task["rounds"] + 1):
    bell.wait()
    if turn == task.get("dies"):
        sys.exit("out of luck")
    with open(task["log"], "a") as log:
        log.write(__file__.rsplit("/")[-1][:1])
    print("noise of a library")
    bell.done(turn=turn)
"""


def toys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two sides that do nothing but write their letter."""
    for name in ("a_side", "b_side"):
        (folder / f"{name}.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    return {"a": "a_side", "b": "b_side"}


def test_sides_work_in_turn_after_a_round_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    said = duel.duel(toys(tmp_path, monkeypatch), {"threads": 1, "log": str(log)}, tmp_path, 3)
    assert log.read_text() == "ab" * 4
    for one in said.values():
        assert one["unseen"]["turn"] == 0
        assert [round["turn"] for round in one["rounds"]] == [1, 2, 3]
        assert all(0 < s < math.inf for s in duel.seconds(one))
        assert 0.001 < one["peak_gib"] < 4


def test_a_side_of_another_checkout_runs_that_one_s_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, old = tmp_path / "log", tmp_path / "old"
    sides = toys(tmp_path, monkeypatch)
    old.mkdir()
    (old / "b_side.py").write_text(TOY.replace("__file__.rsplit", "'older'.rsplit"))
    duel.duel(sides, {"threads": 1, "log": str(log)}, tmp_path, 1, {"b": old})
    assert log.read_text() == "ao" * 2


def test_before_wants_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--before.*no checkout of this repository"):
        training_step.run(before=tmp_path)


def test_a_side_that_dies_is_named_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"a: the process ended early.*out of luck"):
        duel.duel(toys(tmp_path, monkeypatch), {"threads": 1, "log": str(tmp_path / "log"), "dies": 1}, tmp_path, 3)


def test_a_side_that_was_killed_between_rounds_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does where memory runs out: no last words, and a word to it meets a closed pipe."""
    (name, module), _ = toys(tmp_path, monkeypatch).items()
    (tmp_path / "task.json").write_text(json.dumps({"rounds": 1, "log": str(tmp_path / "log")}))
    side = duel.Side(name, module, tmp_path / "task.json", 1)
    side.hear()
    side.process.kill()
    side.process.wait()
    with pytest.raises(UserError, match=r"a: the process ended early .exit code -9, no message"):
        side.ask(duel.GO)


def test_ratios() -> None:
    assert duel.ratio([4.0, 6.0, 20.0], [2.0, 3.0, 1.0]) == {"of_medians": 3.0, "of_minima": 4.0}


@pytest.mark.parametrize("mix", MIXES)
def test_a_mix_has_its_lengths_and_every_group_a_signal(mix: str) -> None:
    rows = material(mix, range(5, 20), 8, 8, 12, 40)
    assert rows == material(mix, range(5, 20), 8, 8, 12, 40)
    assert Material(**json.loads(json.dumps(as_json(rows)))).digest == rows.digest
    lengths = [len(response) for response in rows.responses]
    assert len(lengths) == 64
    assert mean(lengths) == pytest.approx(40, rel=0.05)
    shape = max(lengths) / min(lengths), max(lengths) / mean(lengths)
    if mix == "equal":
        assert shape == (1, 1)
        assert {len(prompt) for prompt in rows.prompts} == {12}
    elif mix == "spread" or mix in FEW_SHOT:
        assert shape[0] == pytest.approx(5, rel=0.05)
    else:
        assert shape[1] > 4
    for start in range(0, 64, 8):
        assert 0 < sum(rows.rewards[start : start + 8]) < 8
        assert len({tuple(prompt) for prompt in rows.prompts[start : start + 8]}) == 1
    assert {token for response in rows.responses for token in response} <= set(range(5, 20))


@pytest.mark.parametrize("mix", FEW_SHOT)
def test_few_shot_prompts_agree_in_their_start_alone(mix: str) -> None:
    common, own = FEW_SHOT[mix]
    prompts = {tuple(prompt) for prompt in material(mix, range(5, 500), 32, 2, 12, 20).prompts}
    assert len({prompt[:common] for prompt in prompts}) == 1
    assert len({prompt[common : common + 8] for prompt in prompts}) == len(prompts) == 32
    assert mean(len(prompt) - common for prompt in prompts) == pytest.approx(own, rel=0.1)


def test_both_sides_deal_the_rows_in_one_order() -> None:
    from suite.config import TrainConfig
    from suite.training.step_batches import mini_batches

    rollouts = material("tail", range(5, 20), 4, 4, 6, 12).rollouts()
    config = TrainConfig(("odd",), problems_per_step=4, samples_per_problem=4, mini_batches=4)
    for step in (0, 3):
        order = deal(16, 4, 0, step)
        minis = mini_batches(rollouts, config, 0, step, "cpu")
        ours = [sorted(row for micro in mini for row in micro.rows) for mini in minis]
        assert ours == [sorted(order[i : i + 4]) for i in range(0, 16, 4)]


def test_what_is_asked_of_a_mix() -> None:
    assert training_step.required(0.0, "equal") == 1.0
    assert training_step.required(0.5, "spread") == pytest.approx(1.8)
    assert training_step.required(0.1, "tail") == 2.0
    assert training_step.required(0.9, "tail") == pytest.approx(9.0)
    assert training_step.required(0.1, "fewshot") == 5.0


def test_parity_is_the_worst_update() -> None:
    ours = [{"loss": [0.1, 0.2], "grad_norm": [1.0, 2.0]}]
    theirs = [{"loss": [0.1, 0.25], "grad_norm": [1.1, 2.0]}]
    found = training_step.parity(ours, theirs)
    assert found == {"loss": pytest.approx(0.05), "grad_norm": pytest.approx(0.1 / 1.1)}


def whole(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    assert content["quick"] is True
    assert content["threads"] == 1
    assert {"commit", "torch", "trl", "accelerate"} <= content["environment"].keys()
    assert len(content["load_average"]["before"]) == 3
    return content


@pytest.mark.slow
@pytest.mark.external
def test_a_step_of_both_sides_agrees_on_loss_and_gradient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
    training_step.run(tmp_path / "p1.json", quick=True, threads=1)
    content = whole(tmp_path / "p1.json")
    (found,) = content["measurements"]
    assert found["parity"]["loss"] < 2e-6
    assert found["parity"]["grad_norm"] < 1e-4
    assert max(map(abs, found["loss"]["ours"])) > 1e-3, "a loss of 0 would agree with anything"
    assert min(found["grad_norm"]["ours"]) > 0
    assert 0.2 < found["padding_share_of_trl"] < 0.9
    for name in ("ours", "trl"):
        assert len(found["seconds"][name]) == len(found["cpu_seconds"][name]) == content["rounds"] == 2
        assert found["peak_gib"][name] > found["loaded_gib"][name] > 0
    shown = capsys.readouterr().out
    assert f"{found['speed_ratio']['of_medians']:.2f}" in shown


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.external
def test_behind_few_shot_prompts_the_suite_plays_against_itself_without_trees(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
    training_step.run(tmp_path / "p1.json", mix=("fewshot",), quick=True, threads=1, before=ROOT)
    content = whole(tmp_path / "p1.json")
    (found,) = content["measurements"]
    assert found["parity"]["loss"] < 1e-5
    assert found["tree_parity"]["loss"] < 1e-5
    assert found["tree_parity"]["grad_norm"] < 1e-4
    computed = found["tokens_computed"]
    assert computed["ours"] < 0.5 * computed["untreed"] == 0.5 * found["material"]["tokens"]
    rows = {row["what"]: row for row in content["ratios"]}
    assert rows["tokens/s, ours / TRL"]["goal"] == 5.0
    assert rows["tokens/s, with trees / without"]["goal"] == 4.0
    assert found["before_parity"] == {"loss": 0.0, "grad_norm": 0.0}, "the same commit"
    assert found["before_commit"] == content["environment"]["commit"]
    assert rows[f"tokens/s, ours / ours at {found['before_commit'][:7]}"]["goal"] == 4.0


@pytest.mark.slow
@pytest.mark.external
def test_cycles_of_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
    cycles.run(tmp_path / "p2.json", quick=True, threads=1)
    content = whole(tmp_path / "p2.json")
    found = content["measurement"]
    for name in ("ours", "trl"):
        assert len(found["seconds"][name]) == 2
        assert 8 <= found["response_tokens"][name] <= 8 * 16
        assert 0 <= found["reward"][name] <= 1
    assert found["ratio"]["of_minima"] == min(found["seconds"]["trl"]) / min(found["seconds"]["ours"])
    assert sum(found["phases"].values()) <= max(found["seconds"]["ours"]) * 1.01
    assert "cycles an hour" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.external
def test_with_a_mix_both_sides_write_as_many_tokens(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
    cycles.run(tmp_path / "p2.json", mix="tail", quick=True, threads=1)
    content = whole(tmp_path / "p2.json")
    planned = planned_lengths(content["setup"])
    assert planned is not None
    assert content["setup"]["max_new_tokens"] == max(planned) > 2 * mean(planned)
    assert content["measurement"]["response_tokens"] == {"ours": sum(planned), "trl": sum(planned)}
    (row,) = content["ratios"]
    assert row["name"] == "cycle, embedded, transformers, tail"
    assert row["goal"] == 2.0


def test_planned_lengths_keep_noise_and_log_probs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the first end token of either, a planned response is the one that the sampler draws by itself."""
    loaded = loaded_model({"model": "embedded", "dtype": "float32"})
    inner = TransformersSampler(loaded.model, loaded.tokenizer)
    prompt = tuple(loaded.tokenizer("gcd(12,18)").input_ids)
    requests = [SampleRequest(str(i), 0, 1000 + i, prompt) for i in range(6)]
    settings = SamplingSettings(24)
    free = inner.sample(requests, settings)
    monkeypatch.setattr(sampling, "_Batch", sampling._Batch)  # taken back when this test ends
    lengths = [1, 24, 7, 3, 12, 2]
    planned = PlannedSampler(inner, lengths).sample(requests, settings)
    assert [len(r.response_ids) for r in planned] == lengths
    ends = set(end_token_ids(loaded.model, loaded.tokenizer))
    for mine, other in zip(planned, free, strict=True):
        assert not ends & set(mine.response_ids)
        common = min(len(mine.response_ids), len(other.response_ids) - 1)
        assert mine.response_ids[:common] == other.response_ids[:common]


@pytest.mark.parametrize("run", [training_step.run, cycles.run])
def test_bad_input_is_refused_before_anything_starts(run: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model 'other'"):
        run(tmp_path / "out.json", model="other")
    with pytest.raises(UserError, match="--rounds 2: at least 3"):
        run(tmp_path / "out.json", rounds=2)
    assert not (tmp_path / "out.json").exists()


def test_an_unknown_mix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--mix 'long'"):
        training_step.run(tmp_path / "out.json", mix=("equal", "long"))
    with pytest.raises(UserError, match="--mix 'long'"):
        cycles.run(tmp_path / "out.json", mix="long")
