"""Settings of TRL's trainer with a method of the suite: what arrives, what is refused by name, what the page says."""

from __future__ import annotations

import dataclasses
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pages import fences, text_of
from suite.experiments.names import METHODS
from suite.types import UserError

pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
from trl_world import plugin, rewards, settings, trainer_of

pytestmark = pytest.mark.external
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ["FSPO", "Suite"])
def test_a_trainer_without_a_config(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    @dataclasses.dataclass
    class OnACPU(getattr(plugin(), f"{kind}Config")):  # TRL's defaults want a GPU
        use_cpu: bool = True

    class Trainer(getattr(plugin(), f"{kind}Trainer")):
        _config = OnACPU

    monkeypatch.chdir(tmp_path)
    trainer = trainer_of(None, Trainer)
    assert trainer.method == METHODS["fspo"]
    assert Path(trainer.args.output_dir).name.endswith("-FSPO")
    assert trainer.args.scale_rewards == "method"


LOST = {
    "loss_type": "grpo",
    "importance_sampling_level": "sequence",
    "epsilon": 0.1,
    "epsilon_high": 0.28,
    "delta": 2.0,
    "sapo_temperature_neg": 2.0,
    "sapo_temperature_pos": 2.0,
    "vespo_k_pos": 1.0,
    "vespo_lambda_pos": 1.0,
    "vespo_k_neg": 1.0,
    "vespo_lambda_neg": 1.0,
    "top_entropy_quantile": 0.2,
    "entropy_coef": 0.01,
    "use_adaptive_entropy": True,
    "off_policy_mask_threshold": 0.5,
}


@pytest.mark.parametrize("name", LOST)
def test_a_setting_of_trls_losses_is_refused(name: str, tmp_path: Path):
    with pytest.raises(UserError, match=f"SuiteConfig.{name} = .*: gspo has no such setting; leave it out"):
        settings(tmp_path, method="gspo", **{name: LOST[name]})


def test_no_setting_of_trls_losses_is_forgotten():
    """Every setting whose meaning TRL gives to one of its losses, read off TRL's own help texts."""
    config = plugin().trl.GRPOConfig
    words = re.compile(r"loss|clip|entrop|off-policy|importance", re.IGNORECASE)
    own = [f for f in dataclasses.fields(config) if f.name in vars(config)["__annotations__"]]
    meant = {f.name for f in own if words.search(f.metadata.get("help", ""))}
    followed = {"beta", "router_aux_loss_coef", "use_bias_correction_kl", "mask_truncated_completions"}
    of_others = ("vllm_", "entropy_")  # TRL's own weight; what moves an entropy term that is refused
    assert {name for name in meant - LOST.keys() - followed if not name.startswith(of_others)} == set()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"method": "ppo"}, "unknown method 'ppo'; there are, without a critic: fspo, "),
        ({"method": "baselines.ppo:PPO"}, "SuiteConfig.method = 'baselines.ppo:PPO': it needs a critic"),
        ({"method": "baselines.gspo:GSPOHyper"}, "SuiteConfig: method .* is a type, not a suite.types.Method"),
        ({"method": "my_loss:"}, "SuiteConfig: method my_loss:: write it as package.module:NAME"),
        ({"method": "my_absent_loss:MINE"}, "does not load .* run this in the folder of my_absent_loss.py"),
        ({"method": "gspo", "hyper": {"clip": 0.2}}, "gspo has no setting 'clip'; it has: clip_low, "),
        ({"method": "gspo", "hyper": {"clip_low": "wide"}}, "gspo cannot take {'clip_low': 'wide'}"),
        ({"method": "gspo", "hyper": {"clip_low": 2.0}}, "clip_low = 2.0: must be between 0 and 1"),
        ({"hyper": "wide"}, "hyper = 'wide': a mapping"),
        ({"hyper": {"drift": "batch"}, "gradient_accumulation_steps": 2}, "gradient_accumulation_steps = 2: .* ema"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, 'advantages with scale_rewards="group"'),
        (
            {"method": "maxrl", "multi_objective_aggregation": "normalize_then_sum"},
            "from one reward a response; take sum_then_normalize$",
        ),
        ({"method": "dapo", "gradient_accumulation_steps": 4}, "steps_per_generation = 2: dapo .* multiple of .* .4."),
        ({"method": "maxrl", "scale_rewards": "group"}, "scale_rewards = 'group': maxrl is its own advantage rule"),
        ({"beta": 0.1, "gradient_accumulation_steps": 4}, "steps_per_generation = 2: beta divides"),
        ({"method": "dr_grpo", "max_completion_length": None}, "max_completion_length = None: dr_grpo divides by it"),
    ],
)
def test_what_a_method_cannot_follow_is_refused(changes: dict[str, Any], complaint: str, tmp_path: Path):
    with pytest.raises(UserError, match=complaint):
        settings(tmp_path, **changes)


def test_a_method_of_ones_own_is_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module beside the script: RLOO with half of its gradient, so each step's gradient is half of RLOO's, too."""
    (tmp_path / "my_halved_loss.py").write_text(
        "from dataclasses import replace\n\nfrom baselines import METHODS\n\n\n"
        "def half(batch, hyper, state):\n    found = METHODS['rloo'].surrogate(batch, hyper, state)\n"
        "    return replace(found, objective=found.objective / 2)\n\n\n"
        "MINE = replace(METHODS['rloo'], name='mine', surrogate=half)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    norms: dict[str, float] = {}
    for name in ("rloo", "my_halved_loss:MINE"):
        trainer = trainer_of(settings(tmp_path, method=name, hyper={"clip_low": 0.3}, max_steps=1))
        trainer.train()
        assert trainer.method.hyper.clip_low == 0.3
        norms[trainer.method.name] = trainer.state.log_history[0]["grad_norm"]
    assert norms["mine"] == pytest.approx(norms["rloo"] / 2, rel=1e-4)
    assert norms["rloo"] > 0
    assert "mine/clipped" in trainer.state.log_history[0]


def test_settings_come_from_the_command_line(tmp_path: Path):
    from transformers import HfArgumentParser

    words = ["--output_dir", str(tmp_path), "--use_cpu", "--bf16", "false", "--method", "gspo"]
    (args,) = HfArgumentParser(plugin().SuiteConfig).parse_args_into_dataclasses(
        [*words, "--hyper", '{"clip_low": 0.25}']
    )
    assert args.card.hyper == dataclasses.replace(METHODS["gspo"].hyper, clip_low=0.25)
    assert args.to_dict()["hyper"] == {"clip_low": 0.25}


def test_another_version_of_trl_is_named(monkeypatch: pytest.MonkeyPatch):
    tried = plugin().TRIED
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["trl"] == [f"trl=={tried}"]
    monkeypatch.setattr(plugin().trl, "__version__", "99.0.0")
    with pytest.warns(UserWarning, match=f"tried with TRL {tried}; this is 99.0.0"), pytest.raises(UserError):
        plugin().SuiteTrainer("nothing", rewards, "no config")


def test_the_pages_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (fence,) = [one for one in fences(text_of("docs/other-trainers.md")) if one.file == "trl_run.py"]
    (tmp_path / "trl_run.py").write_text(fence.body)
    monkeypatch.chdir(tmp_path)
    trainer = runpy.run_path("trl_run.py")["trainer"]
    assert trainer.state.global_step == trainer.args.max_steps
    assert 0 < trainer.state.log_history[-1]["rewards/right/mean"] < 1, "something to learn from"
    assert trainer.state.log_history[-1]["gspo/outside_band"] > 0


def test_every_row_of_the_page_has_its_test():
    page = (ROOT / "docs" / "other-trainers.md").read_text()
    rows = re.findall(r"^\| .* \| (works|refused by name).* \| `(\w+\.py)::(\w+)` \|$", page, re.MULTILINE)
    assert len(rows) == page.count("| works") + page.count("| refused by name") > 15
    for _, file, test in rows:
        assert f"\ndef {test}(" in (ROOT / "tests" / "methods" / file).read_text(), test
