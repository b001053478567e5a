"""`fspo export-verl`: every setting is named, the script is a script, and what verl cannot do is refused or said."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from suite import cli
from suite.recipe_book import RECIPES
from suite.recipes import METHODS, recipe
from suite.types import Credit, UserError
from suite.verl_command import lines_of, script, settings_named
from suite.verl_losses import NATIVE, advantage_lines, loss_lines

RULES = {
    "rloo": {"rloo", "reinforce", "fspo", "fspo_per_token", "no_clip"},
    "centred": {"dr_grpo", "dppo_tv", "dppo_kl"},
}


def keys(name: str, **changes: object) -> dict[str, object]:
    """verl's keys and values for the demo with one method and a changed training."""
    config = recipe("demo")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))
    return {line.key: line.value for line in lines_of(config, METHODS[name], 96, "MODEL", 2) if line.key}


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_is_mapped_or_listed(name: str) -> None:
    config = recipe(name)
    for method in config.methods:
        lines = lines_of(config, METHODS[method], 512, "MODEL", 8)
        named = {line.setting for line in lines}
        missing = settings_named(config) - named - {"methods", "options"}
        assert not missing
        assert f"methods: {method}" in named
        assert all(line.note for line in lines if line.key is None), "no counterpart, and no word why"
        used = [line.key for line in lines if line.key]
        assert len(used) == len(set(used))
        text = script(config, METHODS[method], lines)
        assert all(f"#   {line.setting} = " in text for line in lines if line.key is None)


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_is_verls_own_or_ours(name: str) -> None:
    found = {line.key: line.value for line in loss_lines(METHODS[name], (), 96)}
    ours = found.get("actor_rollout_ref.model.external_lib") == "fspo.plugins.verl"
    assert ours == (name not in NATIVE)
    assert found["actor_rollout_ref.actor.policy_loss.loss_mode"] == (name if ours or name != "ppo" else "vanilla")
    assert found["actor_rollout_ref.actor.loss_scale_factor"] == 96


def test_changed_settings_travel_under_a_name_that_fails_without_them() -> None:
    changed = ["fspo.c_low=0.05", "fspo.c_high=0.04"]
    found = {line.key: line.value for line in loss_lines(METHODS["fspo"], changed, 96)}
    assert found["actor_rollout_ref.actor.policy_loss.loss_mode"] == "fspo_as_set"
    assert found["+ray_kwargs.ray_init.runtime_env.env_vars.FSPO_SETTINGS"] == "fspo.c_low=0.05 fspo.c_high=0.04"


@pytest.mark.parametrize("name", METHODS)
def test_the_advantage_rule_is_the_methods(name: str) -> None:
    found = {line.key: line.value for line in advantage_lines(METHODS[name], recipe("demo").train)}
    if name == "ppo":
        wanted = "gae"
        assert found["critic.optim.lr"] == 5e-4
    else:
        wanted = "rloo" if name in RULES["rloo"] else "grpo"
        assert (found.get("algorithm.norm_adv_by_std_in_grpo") is False) == (name in RULES["centred"])
    assert found["algorithm.adv_estimator"] == wanted


def test_an_advantage_rule_that_verl_lacks_is_said() -> None:
    odd = dataclasses.replace(METHODS["fspo"], credit=lambda seen, hyper: Credit(seen.rewards[:, None] ** 2 - 0.3))
    (line,) = advantage_lines(odd, recipe("demo").train)
    assert (line.key, line.note) == (None, "no advantage rule of verl gives this method's numbers")


def test_training_settings() -> None:
    found = keys("grpo", kl_coefficient=0.01, schedule="cosine", warmup_updates=20, lora_rank=8, overlong_buffer=16)
    actor = "actor_rollout_ref.actor"
    assert found[f"{actor}.ppo_mini_batch_size"] == 2, "16 problems in 8 mini-batches, counted in problems"
    assert found[f"{actor}.optim.lr_warmup_steps"] == 3, "20 updates, 8 a rollout step"
    assert found[f"{actor}.optim.lr_scheduler_type"] == "cosine"
    assert (found[f"{actor}.use_kl_loss"], found[f"{actor}.kl_loss_coef"]) == (True, 0.01)
    assert (found["actor_rollout_ref.model.lora_rank"], found["actor_rollout_ref.model.lora_alpha"]) == (8, 32)
    assert found["+reward.reward_kwargs.overlong_buffer_cfg.len"] == 16
    assert found["data.max_response_length"] == 96
    assert f"{actor}.optim.lr_scheduler_type" not in keys("grpo", schedule="linear")


def test_what_verl_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match="take a divisor of problems_per_step = 16"):
        keys("grpo", mini_batches=32)
    method = dataclasses.replace(METHODS["fspo"], hyper=dataclasses.replace(METHODS["fspo"].hyper, drift="ema"))
    with pytest.raises(UserError, match="see micro-batches only"):
        loss_lines(method, ["fspo.drift=ema"], 96)


def test_the_script_runs_verl_once_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, bin_folder = tmp_path / "scripts", tmp_path / "bin"
    command = ["fspo", "export-verl", "demo", "--methods", "fspo", "--seeds", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--set", "fspo.c_low=0.05", "fspo.c_high=0.04"])
    cli.main()
    bin_folder.mkdir()
    fake = bin_folder / "python3"
    fake.write_text(f'#!/bin/sh\nfor word in "$@"; do echo "$word" >> {tmp_path}/said; done\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "DATA": "/some/data", "REWARD": "/some/reward.py"}
    subprocess.run(["bash", str(out / "fspo.sh")], env=environment, check=True)
    said = (tmp_path / "said").read_text().splitlines()
    assert said.count("verl.trainer.main_ppo") == 2
    assert {"data.seed=0", "data.seed=1", "data.train_files=/some/data/train.parquet"} <= set(said)
    assert "trainer.experiment_name=demo-fspo-seed1" in said
    assert '+ray_kwargs.ray_init.runtime_env.env_vars.FSPO_SETTINGS="fspo.c_low=0.05 fspo.c_high=0.04"' in said
    bare = subprocess.run(["bash", str(out / "fspo.sh")], env={"PATH": environment["PATH"]}, capture_output=True)
    assert bare.returncode != 0
    assert b"DATA: folder with train.parquet" in bare.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nowhere"], "unknown recipe 'nowhere'"),
        (["demo", "--gpus", "0"], "--gpus 0: at least 1"),
        (["demo", "--seeds", "0"], "--seeds 0: at least 1"),
        (["demo", "--methods", "fspo,grpo,mine:METHOD"], "knows the suite's own methods only"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "export-verl", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err
