"""FSPO inside TRL's trainer: it trains, and its loss and gradients on TRL's own batches are the suite's."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from methods import Row, step_loss
from methods import fspo as oracle
from suite.experiments.names import METHODS
from suite.policy.scoring import micro_batches, score
from suite.types import UserError

pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
from trl_world import Seen, our_step, plugin, rewards, rollouts_of, same_gradient, watched, with_weights
from trl_world import settings as settings_of

pytestmark = [pytest.mark.external, pytest.mark.xdist_group("trl_plugin")]

WIDTHS = {"fspo_c_low": 2e-3, "fspo_c_high": 3e-3}


def settings(folder: Path, **changes: Any) -> Any:
    """FSPO in a band that the updates leave."""
    return settings_of(folder, "FSPOConfig", **{**WIDTHS, **changes})


def trainer_of(args: Any) -> tuple[Any, list[Seen]]:
    """An FSPOTrainer, and a list that fills with what its loss saw."""
    return watched(args, plugin().FSPOTrainer)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Seen]]:
    trainer, seen = trainer_of(settings(tmp_path_factory.mktemp("trl"), max_steps=4))
    trainer.train()
    return trainer, seen


def oracle_loss(seen: Seen, hyper: Any) -> float:
    """The equation as loops over floats, on the log-probs of the weights that TRL's loss was taken at."""
    model, batch = with_weights(seen.weights), seen.batch
    rows = []
    for (micro,), i in ((micro_batches(rollouts_of(batch), [i], 1, "cpu"), i) for i in range(len(batch["prompt_ids"]))):
        with torch.no_grad():
            new = score(model, micro)[0].double().tolist()
        old = batch["old_per_token_logps"][i, : len(new)].double().tolist()
        rows.append(Row(new, old, [float(batch["advantages"][i])], [True] * len(new)))
    return step_loss(oracle.response, oracle.DIVISOR, rows, hyper, seen.state)


@pytest.mark.slow
def test_it_trains_and_logs_what_it_clips(trained: tuple[Any, list[Seen]]):
    trainer, seen = trained
    assert trainer.state.global_step == len(seen) == 4
    logged = [entry for entry in trainer.state.log_history if "fspo/clipped" in entry]
    assert [entry["loss"] for entry in logged] == pytest.approx([one.loss for one in seen], abs=1e-4)
    assert logged[0]["fspo/outside_band"] == 0, "the first update of a rollout has ratio 1"
    assert 0 < logged[-1]["fspo/clipped"] <= logged[-1]["fspo/outside_band"] <= 1
    moved = [one.weights["model.embed_tokens.weight"] for one in seen]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(moved))


@pytest.mark.slow
def test_loss_and_gradients_are_ours_on_trls_own_batches(trained: tuple[Any, list[Seen]]):
    trainer, seen = trained
    for one in seen:
        report, gradient, _ = our_step(one.weights, [one.batch], trainer.method, one.state)
        assert one.loss == pytest.approx(-report.objective, abs=2e-6)
        same_gradient(one.gradient, gradient)


@pytest.mark.slow
def test_the_loss_is_the_equations(trained: tuple[Any, list[Seen]]):
    trainer, seen = trained
    for one in seen:
        assert one.loss == pytest.approx(oracle_loss(one, trainer.args.card.hyper), abs=2e-6)
    wider = dataclasses.replace(trainer.args.card.hyper, c_low=1.0, c_high=1.0)
    assert seen[-1].loss != pytest.approx(oracle_loss(seen[-1], wider), abs=1e-4), "no band at all would pass as well"


@pytest.mark.slow
def test_running_estimates_see_whole_optimizer_steps_and_travel_with_checkpoints(tmp_path: Path):
    args = settings(
        tmp_path,
        gradient_accumulation_steps=2,
        steps_per_generation=2,
        fspo_drift="ema",
        save_strategy="steps",
        save_steps=2,
        max_steps=2,
    )
    trainer, seen = trainer_of(args)
    trainer.train()
    first, second = (one.state_after for one in seen[:2])
    assert (first, second) == ({}, {"drift": 0.0, "sigma": 0.0}), "known at the end of the step only"
    rows = []
    for one in seen[2:]:
        model = with_weights(one.weights)
        for i, rollout in enumerate(rollouts_of(one.batch)):
            (micro,) = micro_batches([rollout], [0], 1, "cpu")
            with torch.no_grad():
                new = score(model, micro)[0].double().tolist()
            old = one.batch["old_per_token_logps"][i, : len(new)].double().tolist()
            rows.append(Row(new, old, [1.0], [True] * len(new)))
    wanted = oracle.observe(rows, args.card.hyper, seen[2].state)
    assert trainer.method_state == pytest.approx(wanted, rel=1e-3)
    assert json.loads((tmp_path / "checkpoint-2" / "fspo_state.json").read_text()) == trainer.method_state
    again, _ = trainer_of(args)
    again.create_optimizer_and_scheduler(2)
    again._load_optimizer_and_scheduler(str(tmp_path / "checkpoint-2"))
    assert again.method_state == trainer.method_state


@pytest.mark.slow
def test_a_drift_of_the_same_step_is_read_before_its_gradient(tmp_path: Path):
    trainer, seen = trainer_of(settings(tmp_path, fspo_drift="batch", steps_per_generation=1, max_steps=2))
    trainer.train()
    one = seen[-1]
    report, gradient, after = our_step(one.weights, [one.batch], trainer.method, one.state)
    assert one.state_after == pytest.approx(dict(after), rel=1e-3)
    assert after["drift"] != 0
    assert one.loss == pytest.approx(-report.objective, abs=2e-6)
    same_gradient(one.gradient, gradient)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"epsilon": 0.1}, "epsilon = 0.1: fspo has no such setting"),
        ({"fspo_drift": "batch", "gradient_accumulation_steps": 2}, "gradient_accumulation_steps = 2: .* set it to 1"),
        ({"fspo_drift": "much"}, "zero, batch, ema or a number"),
        ({"fspo_c_low": -1.0}, "c_low"),
    ],
)
def test_a_setting_that_would_be_lost_is_refused(tmp_path: Path, changes: dict[str, Any], complaint: str):
    with pytest.raises(UserError, match=complaint):
        settings(tmp_path, **changes)


def test_hyper_parameters_arrive(tmp_path: Path):
    args = settings(tmp_path, fspo_drift="-0.002", fspo_c_dual=0.5, fspo_target_clip_rate=0.1)
    wanted = {"c_low": 2e-3, "c_high": 3e-3, "drift": -0.002, "c_dual": 0.5, "target_clip_rate": 0.1}
    assert args.card.hyper == dataclasses.replace(METHODS["fspo"].hyper, **wanted)
    assert args.card == settings_of(tmp_path, method="fspo", hyper=wanted).card
    default, ours = plugin().FSPOConfig(str(tmp_path), use_cpu=True, bf16=False).card.hyper, METHODS["fspo"].hyper
    assert default == ours, "the defaults of the arguments are the method's"


def test_another_config_is_refused(tmp_path: Path):
    theirs = plugin().trl.GRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    with pytest.raises(UserError, match="args is GRPOConfig, it takes a FSPOConfig"):
        plugin().FSPOTrainer("nothing", rewards, theirs)
