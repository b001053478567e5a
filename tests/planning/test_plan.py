"""Plans: hours as by hand, designs as the equation says, what limits a claim, and the command's words."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from suite.commands import main
from suite.config import PROTOCOL, VllmConfig
from suite.experiments.recipes import recipe
from suite.experiments.settings import with_options
from suite.planning import plan_text
from suite.planning.cost_model import (
    Lengths,
    cell_lines,
    decoding_seconds,
    forward_operations,
    hours,
    load_of,
    vllm_room,
)
from suite.planning.devices import DECODING_SHARE, TRAINING_SHARE, device_named
from suite.planning.memory_model import LIBRARIES, sampling, updating
from suite.planning.model_shapes import model_shape
from suite.records.comparison_folder import CONFIG_FILE
from suite.statistics.power import (
    Rates,
    chosen_pairs,
    designs,
    detectable,
    enough,
    pairs_of,
    power_sentence,
    rates_of,
    times_problems,
)
from suite.statistics.variance import Components, SetComponents, minimum_detectable
from suite.types import EvalResult, RunResult, UserError, Verdict

LENGTHS = Lengths(prompt=200, longest_prompt=400, response=500, limit=1000, source="")
SHAPE = model_shape("Qwen/Qwen3-1.7B")
H100 = device_named("h100-80gb")


# --- tokens and hours -----------------------------------------------------------------------------


def test_a_forward_pass_is_two_operations_a_parameter_and_attention() -> None:
    assert forward_operations(SHAPE, 10, 0) == 20 * 1_720_574_976
    assert forward_operations(SHAPE, 10, 50) - forward_operations(SHAPE, 10, 0) == 10 * 2 * 28 * 2048 * 50


def test_updates_take_three_forward_passes_an_epoch_and_a_critic_as_many_again() -> None:
    config = recipe("demo")
    config = replace(config, train=replace(config.train, epochs=2, precision="bfloat16"))
    lines = {line.phase: line for line in cell_lines(config, SHAPE, H100, LENGTHS, 400, critic=False)}
    tokens = 12 * 16 * 8 * 700
    assert lines["score"].tokens == tokens
    assert lines["sample"].tokens == 12 * 16 * 8 * 500
    assert lines["evaluate"].tokens == 400 * 4 * 500
    speed = TRAINING_SHARE * 989.4e12
    assert lines["score"].seconds == pytest.approx(forward_operations(SHAPE, tokens, 700) / speed)
    assert lines["update"].seconds == pytest.approx(6 * lines["score"].seconds)
    critic = {line.phase: line for line in cell_lines(config, SHAPE, H100, LENGTHS, 400, critic=True)}
    assert critic["update"].seconds == pytest.approx(2 * lines["update"].seconds)
    assert hours(list(lines.values())) == pytest.approx(sum(line.seconds for line in lines.values()) / 3600)


def test_decoding_a_row_reads_all_weights_a_token() -> None:
    """One response, an engine without launches: bytes of weights and cache over half the bandwidth, 500 tokens."""
    found = decoding_seconds(SHAPE, H100, "bfloat16", 1, 1, LENGTHS, fast=True)
    read = 2 * (SHAPE.parameters + 450 * 2 * 28 * 1024)
    assert found == pytest.approx(500 * read / (DECODING_SHARE * 3350e9))
    launches = decoding_seconds(SHAPE, H100, "bfloat16", 1, 1, LENGTHS, fast=False)
    assert launches == pytest.approx(1000 * 28 * H100.launch_seconds)


def test_processes_divide_a_cells_work() -> None:
    config = recipe("demo")
    config = replace(config, train=replace(config.train, sampler="vllm"))
    one, four = (cell_lines(config, SHAPE, H100, LENGTHS, 400, False, processes) for processes in (1, 4))
    assert [line.tokens for line in four] == [line.tokens for line in one]
    by_phase = {line.phase: (line.seconds, more.seconds) for line, more in zip(four, one, strict=True)}
    for phase in ("score", "update"):
        assert by_phase[phase][0] == pytest.approx(by_phase[phase][1] / 4)
    for few, many in by_phase.values():
        assert many / 4 <= few * (1 + 1e-12), "weights are read as often by each of four"
        assert few <= many


def test_vllm_takes_its_share_of_a_gpu_while_it_draws_and_sleeps_while_the_policy_is_updated() -> None:
    config = recipe("qwen3-8b-dapo")
    load = load_of(config, SHAPE, H100, LENGTHS, critic=False)
    drawing = {term.name: term.gib for term in sampling(SHAPE, load)}
    assert drawing["vLLM"] == pytest.approx(0.45 * 78)
    assert not {"sampler's copy", "key-value cache"} & drawing.keys()
    training = {term.name: term.gib for term in updating(SHAPE, load)}
    assert "vLLM" not in training
    assert training["vLLM, asleep"] == LIBRARIES[True], "the context of its process stays"
    on_cpu = load_of(config, SHAPE, device_named("cpu"), LENGTHS, critic=False)
    assert {"vLLM"} <= {term.name for term in updating(SHAPE, on_cpu)}


def test_vllms_settings_are_those_of_the_run() -> None:
    config = with_options(recipe("qwen3-8b-dapo"), ("train.vllm.sleep=false", "train.vllm.gpu_memory_utilization=0.25"))
    load = load_of(config, SHAPE, H100, LENGTHS, critic=False)
    for terms in (sampling(SHAPE, load), updating(SHAPE, load)):
        assert next(term.gib for term in terms if term.name == "vLLM") == pytest.approx(0.25 * 78)
    # 2 bytes each of N weights, and of keys and values of 1,400 tokens in 28 layers of 8 heads of 128.
    least = 2 * (SHAPE.parameters + 1400 * 28 * 2 * 8 * 128) / 2**30
    assert vllm_room(config, SHAPE, LENGTHS) == pytest.approx(least)
    wide = replace(config, train=replace(config.train, vllm=VllmConfig(tensor_parallel_size=4)))
    assert vllm_room(wide, SHAPE, LENGTHS) == pytest.approx(least / 4)


# --- designs --------------------------------------------------------------------------------------

QUIET_SEEDS = Components(3, 4, 0.0, {"a": SetComponents(100, 0.09, 0.0, 0.0, 0.0)})
NOISY_SEEDS = Components(3, 4, 0.01, {"a": SetComponents(100, 0.0, 0.0, 0.0, 0.0)})
RATES = Rates(train=3600, sample=360)


def test_hours_are_those_of_all_cells() -> None:
    assert RATES.hours(models=2, seeds=3, samples=5) == 2 * 3 * (1 + 0.5)


def test_seeds_alone_give_the_standard_error_of_their_mean() -> None:
    assert detectable({("a", "b"): NOISY_SEEDS}, 4, 1) == pytest.approx(100 * minimum_detectable(0.1 / 2, 3))


def test_the_median_is_taken_over_pairs() -> None:
    pairs = {("a", "b"): NOISY_SEEDS, ("a", "c"): replace(NOISY_SEEDS, seed=0.04), ("b", "c"): QUIET_SEEDS}
    singles = sorted(detectable({name: parts}, 4, 1) for name, parts in pairs.items())
    assert detectable(pairs, 4, 1) == pytest.approx(singles[1])


def test_the_cheapest_design_that_is_enough_comes_first_with_the_fewest_seeds() -> None:
    pairs = {("a", "b"): replace(NOISY_SEEDS, sets={"a": SetComponents(100, 0.0, 0.0, 0.5, 0.0)})}
    found = designs(pairs, RATES, 2)
    assert len(found) == 29 * 6
    able = enough(found, 12.0)
    assert [d.hours for d in able] == sorted(d.hours for d in able)
    assert able[0].hours == min(d.hours for d in found if d.detectable <= 12.0)
    for design in able:
        assert detectable(pairs, design.seeds, design.samples) <= 12.0
        assert detectable(pairs, design.seeds - 1, design.samples) > 12.0
    assert f"{able[0].seeds} seeds a model and {able[0].samples} samples" in power_sentence(
        "x", pairs, found, 12.0, "hours"
    )


def test_a_plan_says_that_problems_limit_it_and_how_many_would_do() -> None:
    pairs = {("a", "b"): QUIET_SEEDS}
    found = designs(pairs, RATES, 2)
    words = power_sentence("a and b", pairs, found, 1.0, "hours")
    assert "No design up to" in words
    assert "The 100 problems limit it (100% of its variance): more seeds do not help" in words
    factor = times_problems(pairs, 30, 32, 1.0)
    assert factor is not None
    assert f"{factor} times as many would do" in words
    assert detectable(pairs, 30, 32, {"a": 100 * factor}) <= 1.0
    assert detectable(pairs, 30, 32, {"a": 50 * factor}) > 1.0


def test_a_plan_says_that_seeds_limit_it() -> None:
    pairs = {("a", "b"): replace(NOISY_SEEDS, seed=1.0)}
    assert "The seeds limit it" in power_sentence("a and b", pairs, designs(pairs, RATES, 2), 1.0, "hours")


# --- from runs ------------------------------------------------------------------------------------


def evaluated(correct: np.ndarray) -> EvalResult:
    """A set of [problems, samples]."""
    verdicts = tuple(tuple(Verdict.CORRECT if x else Verdict.WRONG for x in row) for row in correct)
    names = tuple(f"p{i}" for i in range(len(correct)))
    return EvalResult("set", "1", "digest", names, verdicts, tuple((1,) * len(row) for row in verdicts), 0.0)


def run(method: str, seed: int, correct: np.ndarray) -> RunResult:
    costs = {"seconds/sample": 60.0, "seconds/score": 10.0, "seconds/update": 30.0, "seconds/evaluate": 8.0}
    return RunResult(PROTOCOL, method, seed, {}, (evaluated(correct),), {}, {}, costs, {"accelerator": "none"})


@pytest.fixture(scope="module")
def world() -> tuple[RunResult, list[RunResult]]:
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.1, 0.9, 60)[:, None]
    draws = {(m, s): rng.random((60, 4)) < chance for m in ("base", "one", "two") for s in range(3)}
    runs = [run(m, s, draws[m, s]) for m in ("one", "two") for s in range(3)]
    return run("base", 0, draws["base", 0]), runs


def test_pairs_and_rates_come_from_the_runs(world: tuple[RunResult, list[RunResult]]) -> None:
    base, runs = world
    pairs = pairs_of(base, runs)
    assert list(pairs) == [("one", "base"), ("two", "base"), ("one", "two")]
    assert rates_of(runs) == Rates(train=100.0, sample=2.0)
    # Two independent models: nothing is shared between seeds, and a sample's difference has both variances.
    found = pairs["one", "two"].sets["set"]
    spread = [np.mean([[v == Verdict.CORRECT for v in row] for row in r.evals[0].verdicts], axis=1) for r in runs]
    within = np.mean([4 / 3 * np.mean(p * (1 - p)) for p in spread])
    assert found.sample + found.shared_sample == pytest.approx(2 * within, rel=0.15)
    # The base model is drawn once for all seeds: half of the noise is shared.
    assert pairs["one", "base"].sets["set"].shared_sample > 3 * abs(found.shared_sample)


def test_a_pair_is_found_in_either_order_and_others_are_refused(world: tuple[RunResult, list[RunResult]]) -> None:
    pairs = pairs_of(*world)
    assert list(chosen_pairs(pairs, "two,one")[1]) == [("one", "two")]
    assert list(chosen_pairs(pairs, "base, one")[1]) == [("one", "base")]
    assert list(chosen_pairs(pairs, None)[1]) == [("one", "two")]
    with pytest.raises(UserError, match="two of one, base, two"):
        chosen_pairs(pairs, "one,three")


def test_a_single_seed_and_missing_seconds_are_refused(world: tuple[RunResult, list[RunResult]]) -> None:
    base, runs = world
    with pytest.raises(UserError, match="two seeds at least"):
        pairs_of(base, [r for r in runs if r.seed == 0])
    with pytest.raises(UserError, match="no seconds"):
        rates_of([replace(runs[0], costs={})])


# --- the command ----------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["fspo", "plan", *words])
    main.main()
    return capsys.readouterr().out


def test_a_recipe_is_planned_with_its_formulas(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("demo", "--model", "Qwen/Qwen3-8B", "--device", "h100-80gb", "--count", "8")
    text = printed(capsys, monkeypatch, *words)
    for part in (
        "8,190,735,360 parameters",
        "8 N",
        "key-value cache",
        "does not fit into 78 GiB",
        "on each of 8 devices",
        "21 cells (7 methods x 3 seeds)",
        "Nothing here fits 8 x h100-80gb",
        "assumed",
    ):
        assert part in text, part
    assert " hours: " not in text, "what cannot be started takes no time"
    assert "Start it with" not in text
    assert "tokens (2 N + 2 l q T)" in printed(capsys, monkeypatch, "demo")


def test_a_claim_is_planned_from_runs(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    world: tuple[RunResult, list[RunResult]],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(plan_text, "stored_config", lambda out: recipe("smoke"))
    monkeypatch.setattr(plan_text, "load_whole_seeds", lambda config, out: (*world, (0, 1, 2)))
    text = printed(capsys, monkeypatch, "--from", str(tmp_path), "--detect", "40")
    assert "hours of this machine" in text
    assert "estimated from 3 seeds" in text
    assert "To find a true difference of 40 points" in text
    assert "primary outcome, the mean over all sets" in text


def test_a_claim_about_one_set_is_planned_from_that_set(world: tuple[RunResult, list[RunResult]]) -> None:
    """A second set on which all models always agree halves the spread of the mean, and of the first set nothing."""

    def with_another(one: RunResult) -> RunResult:
        (first,) = one.evals
        right = tuple(tuple(Verdict.CORRECT for _ in row) for row in first.verdicts)
        return replace(one, evals=(first, replace(first, task="easy", verdicts=right)))

    base, runs = with_another(world[0]), [with_another(one) for one in world[1]]
    alone = detectable(pairs_of(*world), 5, 4)
    assert detectable(pairs_of(base, runs, "set"), 5, 4) == pytest.approx(alone)
    assert detectable(pairs_of(base, runs), 5, 4) == pytest.approx(alone / 2, rel=1e-6)


def test_an_unfinished_comparison_is_planned_from_its_whole_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(Path(__file__).resolve().parents[2] / "results" / "demo", folder)
    content = json.loads((folder / CONFIG_FILE).read_text())
    content["config"]["seeds"].append(13)
    (folder / CONFIG_FILE).write_text(json.dumps(content))
    text = " ".join(printed(capsys, monkeypatch, "--from", str(folder), "--detect", "20").split())
    assert "Not finished: from 3 of its 4 seeds, those that every method has." in text
    content["config"]["seeds"] = [13]
    (folder / CONFIG_FILE).write_text(json.dumps(content))
    monkeypatch.setattr(sys, "argv", ["fspo", "plan", "--from", str(folder)])
    with pytest.raises(SystemExit):
        main.main()
    assert "no seed is finished with every method" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "takes a recipe, or --from"),
        (("demo", "--from", "x"), "takes a recipe, or --from"),
        (("demo", "--device", "tpu"), "unknown device 'tpu'"),
        (("demo", "--count", "0"), "--count 0"),
        (("dmeo",), "did you mean demo?"),
        (("demo", "--model", "no/such"), "its sizes are not known here"),
        (("--from", "no-such-folder"), "no comparison to read"),
        (("--from", "x", "--detect", "0"), "from 0.01 to 100"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "plan", *words])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip()
    assert complaint in line
    assert "\n" not in line
