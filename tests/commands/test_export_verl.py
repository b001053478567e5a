"""`fspo export`: every setting is named, the script is a script, and what verl cannot do is refused or said."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from methods.advantages import centred_credit, leave_one_out_credit, standardised_credit
from methods.checks import oracle_of
from suite.commands import main
from suite.experiments.names import EMBEDDED_MODEL, METHODS
from suite.experiments.recipe_book import RECIPES
from suite.experiments.recipes import recipe
from suite.experiments.verl_command import BARE, Prompts, lines_of
from suite.experiments.verl_losses import NATIVE, VerlLine, advantage_lines, loss_lines
from suite.experiments.verl_script import script, word
from suite.types import UserError

RULES = {
    leave_one_out_credit: {"algorithm.adv_estimator": "rloo"},
    centred_credit: {"algorithm.adv_estimator": "grpo", "algorithm.norm_adv_by_std_in_grpo": False},
    standardised_credit: {"algorithm.adv_estimator": "grpo"},
}
"""The oracle's rule for the advantages of a method -> what is to be set in verl; a method may have one of its own."""
DERIVED = {"train.vllm.dtype", "train.vllm.side_by_side"}
"""Settings that follow from others of a training run, which are exported."""

WITHOUT_STATE = [name for name, method in METHODS.items() if not method.reads_state(method.hyper)]
"""Methods that verl's losses, which see micro-batches, can be."""
EXPORTED = [name for name in WITHOUT_STATE if name != "maxrl"]
"""Those of them for whose advantages verl has a rule."""


def keys(name: str, prompts: Prompts | None = None, **changes: object) -> dict[str, object]:
    """verl's keys and values for the demo with one method and a changed training."""
    config = recipe("demo")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))
    return {line.key: line.value for line in lines_of(config, METHODS[name], 96, "MODEL", 2, prompts) if line.key}


def settings_named(config: Any, prefix: str = "") -> set[str]:
    """Every path of a setting that a script must name: those of the comparison and of the sections in it."""
    found = set()
    for field in dataclasses.fields(config):
        inner = getattr(config, field.name)
        found |= (
            settings_named(inner, f"{prefix}{field.name}.")
            if dataclasses.is_dataclass(inner)
            else {prefix + field.name}
        )
    return found


def exported(*words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command in this process."""
    monkeypatch.setattr(sys, "argv", ["fspo", "export", *words])
    main.main()


def arguments(text: str) -> list[str]:
    """What a script hands to verl's trainer."""
    command = text.partition("verl.trainer.main_ppo")[2].partition("\n  python3")[0]
    return shlex.split(command.replace("\\\n", " "))


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_is_mapped_or_listed(name: str) -> None:
    config = recipe(name)
    for method in config.methods:
        if METHODS[method].reads_state(METHODS[method].hyper):
            continue
        lines = lines_of(config, METHODS[method], 512, "MODEL", 8)
        named = {line.setting for line in lines}
        assert not settings_named(config) - named - DERIVED - {"methods", "options"}
        assert f"methods: {method}" in named
        assert all(line.note for line in lines if line.key is None), "no counterpart, and no word why"
        used = [line.key for line in lines if line.key]
        assert len(used) == len(set(used))
        text = script(config, METHODS[method], lines)
        assert all(f"#   {line.setting} = " in text for line in lines if line.key is None)
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def verls_config() -> dict[str, Any]:
    """verl's own config, from the wheel or the folder that $FSPO_VERL names, or from an installed verl; else skips."""
    inside = "verl/trainer/config/_generated_ppo_trainer.yaml"
    place = os.environ.get("FSPO_VERL")
    spec = None if place else find_spec("verl")
    if place and place.endswith(".whl"):
        return yaml.safe_load(zipfile.ZipFile(place).read(inside))
    if not place and spec and spec.submodule_search_locations:
        place = str(Path(spec.submodule_search_locations[0]).parent)
    if not place:
        pytest.skip("no verl at hand: set FSPO_VERL to the wheel of verl 0.9.1 (pip download --no-deps verl==0.9.1)")
    return yaml.safe_load((Path(place) / inside).read_text())


def misfits(words: list[str], known: dict[str, Any]) -> Iterator[str]:
    """Arguments that hydra refuses: keys that are not there, and `+key` where the key is there or cannot be put."""
    for argument in words:
        name, here = argument.partition("=")[0], known
        *outer, last = name.lstrip("+").split(".")
        for part in outer:
            here = here.get(part, {} if name.startswith("+") else None) if isinstance(here, dict) else None
        if not isinstance(here, dict) or (last in here) == name.startswith("+"):
            yield name


@pytest.mark.external
@pytest.mark.parametrize("name", RECIPES)
def test_every_key_is_verls_own(name: str) -> None:
    known, config = verls_config(), recipe(name)
    chat = dataclasses.replace(config, train=dataclasses.replace(config.train, chat=True, lora_rank=2))
    rich = dataclasses.replace(
        config, train=dataclasses.replace(config.train, overlong_buffer=8, kl_coefficient=0.1, max_new_tokens=64)
    )
    for one in (config, chat, rich):
        for method in EXPORTED:
            lines = lines_of(one, METHODS[method], 512, "MODEL", 8, Prompts(stop=("\n\n",)))
            words = arguments(script(one, METHODS[method], lines))
            assert len(words) > 50
            assert not list(misfits(words, known))


def test_a_wrong_key_is_found() -> None:
    known = {"a": {"b": 1, "c": {}}}
    assert list(misfits(["a.b=2", "+a.c.d=1", "+a.d.e=1"], known)) == []
    wrong = ["a.d=1", "+a.b=1", "a.b.c=1", "+a.b.c=1", "d.e=1", "d=1"]
    assert list(misfits(wrong, known)) == [argument.partition("=")[0] for argument in wrong]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, "k=null"),
        (True, "k=True"),
        (1e-6, "k=1e-06"),
        (("console", "tensorboard"), "k=[console,tensorboard]"),
        ("${a.b}", "k=${a.b}"),
        ("org/Model-1.7B", "k=org/Model-1.7B"),
        ("a folder/it's", r"k='a folder/it\'s'"),
        ("x=1 y=2", "k='x=1 y=2'"),
        ("", "k=''"),
        ("$SEED", "k=7"),
        ("run-$METHOD-seed$SEED", "k=run-fspo-seed7"),
        ("$DATA/train.parquet", "k='/some data/train.parquet'"),
    ],
)
def test_a_value_reaches_hydra_through_the_shell(value: object, wanted: str) -> None:
    names = {"SEED": "7", "METHOD": "fspo", "DATA": "/some data", "PATH": os.environ["PATH"]}
    said = subprocess.run(
        ["bash", "-c", f"printf %s {word(VerlLine('a', 'k', value))}"],
        env=names,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == wanted


@pytest.mark.parametrize("name", WITHOUT_STATE)
def test_a_loss_is_verls_own_or_ours(name: str) -> None:
    found = {line.key: line.value for line in loss_lines(METHODS[name], (), 96)}
    ours = found.get("actor_rollout_ref.model.external_lib") == "fspo.plugins.verl"
    assert ours == (name not in NATIVE)
    assert found["actor_rollout_ref.actor.policy_loss.loss_mode"] == (name if ours or name != "ppo" else "vanilla")
    assert found["actor_rollout_ref.actor.loss_scale_factor"] == 96


def test_changed_settings_travel_under_a_name_that_fails_without_them() -> None:
    changed = ["fspo_zero_drift.c_low=0.05", "fspo_zero_drift.c_high=0.04"]
    found = {line.key: line.value for line in loss_lines(METHODS["fspo_zero_drift"], changed, 96)}
    assert found["actor_rollout_ref.actor.policy_loss.loss_mode"] == "fspo_zero_drift_as_set"
    assert (
        found["+ray_kwargs.ray_init.runtime_env.env_vars.FSPO_SETTINGS"]
        == "fspo_zero_drift.c_low=0.05 fspo_zero_drift.c_high=0.04"
    )


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"maxrl"}))
def test_the_advantage_rule_is_the_methods(name: str) -> None:
    found = {line.key: line.value for line in advantage_lines(METHODS[name], recipe("demo").train)}
    if "values" in METHODS[name].needs:
        assert found["algorithm.adv_estimator"] == "gae"
        assert found["critic.optim.lr"] == pytest.approx(1.5e-3)
    else:
        assert found == RULES[oracle_of(name).credit]


def test_an_advantage_rule_that_verl_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"^maxrl: no advantage rule of verl gives its numbers"):
        advantage_lines(METHODS["maxrl"], recipe("demo").train)


def test_training_settings() -> None:
    found = keys("grpo", kl_coefficient=0.01, schedule="cosine", warmup_updates=20, lora_rank=8, overlong_buffer=16)
    actor = "actor_rollout_ref.actor"
    assert found[f"{actor}.ppo_mini_batch_size"] == 1, "16 problems in 16 mini-batches, counted in problems"
    assert found[f"{actor}.optim.lr_warmup_steps"] == 2, "20 updates, 16 a rollout step"
    assert found[f"{actor}.optim.lr_scheduler_type"] == "cosine"
    assert (found[f"{actor}.use_kl_loss"], found[f"{actor}.kl_loss_coef"]) == (True, 0.01)
    assert (found["actor_rollout_ref.model.lora_rank"], found["actor_rollout_ref.model.lora_alpha"]) == (8, 32)
    assert found["+reward.reward_kwargs.overlong_buffer_cfg.len"] == 16
    assert found["+reward.reward_kwargs.overlong_buffer_cfg.log"] is False, "verl's reward manager reads it"
    assert found["data.max_response_length"] == 96
    assert f"{actor}.optim.lr_scheduler_type" not in keys("grpo", schedule="linear")


def test_what_verl_needs_to_start() -> None:
    found, model, rollout = keys("grpo"), "actor_rollout_ref.model", "actor_rollout_ref.rollout"
    assert found["trainer.logger"] == ("console", "tensorboard"), "verl's default is wandb"
    assert found["trainer.max_actor_ckpt_to_keep"] == 1
    assert found[f"{model}.custom_chat_template"] == BARE
    assert f"{model}.custom_chat_template" not in keys("grpo", chat=True)
    assert (found[f"+{model}.override_config.attn_implementation"], found[f"{model}.use_remove_padding"]) == (
        "sdpa",
        False,
    )
    assert f"{model}.use_remove_padding" not in keys("grpo", precision="bfloat16")
    assert f"{rollout}.agent.default_agent_loop" not in found, "the demo's tasks have no stop texts"
    several = keys("grpo", Prompts(300, stop=("\n",)), tokens_per_micro_batch=200)
    assert several["data.max_prompt_length"] == 300
    assert several["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] == 396, "the longest prompt and response"
    assert several[f"{rollout}.agent.default_agent_loop"] == "fspo"
    assert keys("ppo")["trainer.max_critic_ckpt_to_keep"] == 1


@pytest.mark.parametrize("name", EXPORTED)
def test_the_trainers_numbers_are_the_recipes(name: str) -> None:
    """By hand from the recipe: 64 problems in 8 mini-batches of 8 samples each, one epoch, rate 1e-6, temperature 1."""
    lines = lines_of(recipe("qwen3-1.7b-dapo"), METHODS[name], 4096, "MODEL", 8)
    found, actor = {line.key: line.value for line in lines if line.key}, "actor_rollout_ref.actor"
    assert (found["data.train_batch_size"], found[f"{actor}.ppo_mini_batch_size"], found[f"{actor}.ppo_epochs"]) == (
        64,
        8,
        1,
    )
    assert (found[f"{actor}.optim.lr"], found[f"{actor}.optim.clip_grad"], found[f"{actor}.use_kl_loss"]) == (
        1e-6,
        1.0,
        False,
    )
    rollout, hyper = "actor_rollout_ref.rollout", METHODS[name].hyper
    assert (found[f"{rollout}.n"], found[f"{rollout}.temperature"], found[f"{rollout}.val_kwargs.n"]) == (8, 1.0, 8)
    assert (found[f"{rollout}.top_p"], found[f"{rollout}.top_k"]) == (1.0, -1)
    if name in ("ppo", "gspo"):
        assert found[f"{actor}.clip_ratio_low"] == hyper.clip_low
        assert found[f"{actor}.clip_ratio_high"] == hyper.clip_high
    wanted = {
        "gspo": "seq-mean-token-mean",
        "sapo": "seq-mean-token-mean",
        "dppo_tv": "seq-mean-token-sum-norm",
        "dppo_kl": "seq-mean-token-sum-norm",
    }
    assert found[f"{actor}.loss_agg_mode"] == wanted.get(name, "token-mean")


def test_what_verl_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match="take a divisor of problems_per_step = 16"):
        keys("grpo", mini_batches=32)
    with pytest.raises(UserError, match="--gpus 3: verl deals the 64 responses of a mini-batch evenly"):
        lines_of(recipe("qwen3-1.7b-dapo"), METHODS["grpo"], 96, "MODEL", 3)
    method = dataclasses.replace(
        METHODS["fspo_zero_drift"], hyper=dataclasses.replace(METHODS["fspo_zero_drift"].hyper, drift="ema")
    )
    with pytest.raises(UserError, match="see micro-batches only"):
        loss_lines(method, ["fspo.drift=ema"], 96)


FAKE = """#!/bin/sh
for word in "$@"; do echo "$word" >> {said}; done
case "$*" in *model_merger*) for last in "$@"; do :; done; mkdir -p "$last"; cp {model}/* "$last";; esac
"""


@pytest.mark.slow
def test_the_script_runs_verl_once_a_seed_and_what_it_merged_can_be_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a python3 that writes down its words, and the start model in place of a trained one."""
    out, programs, runs = tmp_path / "a folder", tmp_path / "bin", tmp_path / "runs"
    words = ["smoke", "--methods", "fspo_zero_drift", "--seeds", "2", "--gpus", "2", "--out", str(out)]
    exported(
        *words,
        "--set",
        "fspo_zero_drift.c_low=0.05",
        "fspo_zero_drift.c_high=0.04",
        "evaluation.limit=2",
        monkeypatch=monkeypatch,
    )
    programs.mkdir()
    (programs / "python3").write_text(FAKE.format(said=tmp_path / "said", model=EMBEDDED_MODEL))
    (programs / "python3").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "RUNS": str(runs)}
    done = subprocess.run(
        ["bash", str(out / "fspo_zero_drift.sh")],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    said = (tmp_path / "said").read_text().splitlines()
    assert said[0] == str(out / "compute_score.py"), "the grader is looked for before verl starts"
    assert (said.count("verl.trainer.main_ppo"), said.count("verl.model_merger")) == (2, 2)
    assert {"data.seed=0", "data.seed=1", f"data.train_files='{out}/train.parquet'"} <= set(said)
    assert "trainer.experiment_name=smoke-fspo_zero_drift-seed1" in said
    given = "fspo_zero_drift.c_low=0.05 fspo_zero_drift.c_high=0.04"
    assert f"+ray_kwargs.ray_init.runtime_env.env_vars.FSPO_SETTINGS='{given}'" in said
    assert said[said.index("--local_dir") + 1] == f"{runs}/fspo_zero_drift-seed0/global_step_3/actor"
    evaluations = [line for line in done.stdout.splitlines() if line.startswith("fspo evaluate ")]
    assert len(evaluations) == 2
    monkeypatch.setattr(sys, "argv", [*shlex.split(evaluations[1]), "--out", str(tmp_path / "evaluation")])
    main.main()
    assert (tmp_path / "evaluation" / "result.json").is_file()
    (out / "train.parquet").unlink()
    bare = subprocess.run(["bash", str(out / "fspo_zero_drift.sh")], env=environment, capture_output=True, text=True)
    assert bare.returncode == 2
    assert "train.parquet is missing: fspo export smoke --data-dir FOLDER" in bare.stderr


def test_an_adapter_is_folded_into_the_merged_model() -> None:
    config = recipe("demo")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, lora_rank=2))
    text = script(config, METHODS["fspo_zero_drift"], lines_of(config, METHODS["fspo_zero_drift"], 96, "MODEL", 2))
    assert '--target_dir "$RUNS/$METHOD-seed$SEED/base"' in text
    assert "lora_adapter" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_without_a_folder_the_scripts_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exported("qwen3-1.7b-dapo", "--methods", "fspo_zero_drift,grpo", monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert text.count("#!/usr/bin/env bash") == 2
    assert "data.max_prompt_length=2048" in text
    assert "assumed, no data being at hand" in text


def test_an_export_is_written_once_and_over_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "out", ("smoke", "--gpus", "2", "--out", str(tmp_path / "out"))

    def refused(*more: str) -> str:
        before = {path: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(SystemExit) as stopped:
            exported(*words, "--methods", "grpo,fspo_zero_drift", *more, monkeypatch=monkeypatch)
        assert stopped.value.code == 2
        assert {path: path.read_bytes() for path in out.iterdir()} == before, "nothing is written before the refusal"
        return capsys.readouterr().err

    exported(*words, "--methods", "fspo_zero_drift", monkeypatch=monkeypatch)
    first = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert set(first) == {"export.json", "compute_score.py", "train.parquet", "eval.parquet", "fspo_zero_drift.sh"}
    (out / "compute_score.py").unlink()
    exported(*words, "--methods", "grpo,fspo_zero_drift", monkeypatch=monkeypatch)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert set(after) == {*first, "grpo.sh"}
    assert all(after[name] == first[name] for name in first if name != "compute_score.py")
    assert after["compute_score.py"][0] == first["compute_score.py"][0]
    assert "export.json: has other content" in refused("--steps", "4")
    (out / "fspo_zero_drift.sh").write_text("mine")
    assert "fspo_zero_drift.sh: has other content" in refused()
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert "not empty and no export" in refused()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nowhere"], "unknown recipe 'nowhere'"),
        (["demo", "--gpus", "0"], "--gpus 0: at least 1"),
        (["demo", "--data-dir", "here"], "--data-dir: needs --out"),
        (["smollm2-svamp", "--data-dir", "nowhere", "--out", "x", "--gpus", "2"], "nowhere/svamp/test.jsonl: no such"),
        (["demo", "--seeds", "0"], "--seeds 0: at least 1"),
        (["demo", "--methods", "fspo_zero_drift,grpo,mine:METHOD"], "knows the suite's own methods only"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text("from baselines import METHODS\n\nMETHOD = METHODS['rloo']\n")
    monkeypatch.setattr(sys, "argv", ["fspo", "export", *words])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err
