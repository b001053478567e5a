"""The plug-in for verl as far as it goes without verl: what it registers, and its losses on small batches.

verl itself judges the same losses in tests/methods/test_verl_plugin.py, in an environment of its own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from suite.config import TrainConfig
from suite.experiments.names import METHODS
from suite.experiments.verl_losses import advantage_lines, loss_lines
from suite.types import Method, UserError

PLUGIN, CORE = "fspo.plugins.verl", "verl.trainer.ppo.core_algos"


def exported(method: Method) -> bool:
    """Whether verl has or can be given the method's loss and its advantages."""
    try:
        return bool(loss_lines(method, (), 8)) and bool(advantage_lines(method, TrainConfig(("gcd",))))
    except UserError:
        return False


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The plug-in on a registry that stands for verl's, with one loss of verl's in it."""
    registry: dict[str, Any] = {"gspo": SimpleNamespace(__module__=CORE)}

    def register(name: str) -> Callable[[Any], Any]:
        return lambda function: registry.setdefault(name, function)

    core = SimpleNamespace(POLICY_LOSS_REGISTRY=registry, register_policy_loss=register)
    monkeypatch.setitem(sys.modules, CORE, core)
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    monkeypatch.delenv("FSPO_SETTINGS", raising=False)
    yield importlib.import_module(PLUGIN)
    sys.modules.pop(PLUGIN)


def test_the_import_registers_every_method_that_verls_losses_can_be(plugin: Any):
    """Those that the export has a command for: without a critic, by a loss of ours and an advantage rule of verl's."""
    able = {name for name, method in METHODS.items() if "values" not in method.needs and exported(method)}
    assert set(plugin.REGISTERED) == able - {"gspo"}
    assert "fspo_zero_drift" in able
    assert not able & {"fspo", "maxrl"}


def test_settings_that_take_the_estimates_away_make_a_loss(plugin: Any):
    assert "fspo_as_set" in plugin.register("fspo.drift=zero fspo.c_low=0.05")
    with pytest.raises(UserError, match="see micro-batches only"):
        plugin.register("fspo.c_low=0.05")


def test_a_method_that_is_an_advantage_rule_is_refused_whatever_its_settings(plugin: Any):
    with pytest.raises(UserError, match=r"^maxrl: its advantage rule is what it is, and verl has none of the kind"):
        plugin.register("maxrl.clip_low=0.1")


def test_another_way_to_aggregate_is_said_to_change_nothing(plugin: Any):
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    given = (x - 0.1, x, torch.tensor([[1.0], [-0.5]]).expand(2, 3), mask)
    loss = plugin.policy_loss(METHODS["fspo_zero_drift"])
    wanted, _ = loss(*given, loss_agg_mode="token-mean")
    with pytest.warns(UserWarning, match="fspo_zero_drift: loss_agg_mode='seq-mean-token-sum' is for verl's KL"):
        found, _ = loss(*given, loss_agg_mode="seq-mean-token-sum")
    assert found == wanted


@pytest.mark.parametrize("name", ["fspo_zero_drift", "grpo", "dapo", "dr_grpo"])
def test_a_fully_masked_row_does_not_count(name: str, plugin: Any):
    """Without counts of the whole step, as in verl's own losses."""
    x = torch.full((3, 2), -0.1)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    advantages = torch.tensor([[1.0], [-0.5], [0.0]]).expand(3, 2)
    config, loss = SimpleNamespace(global_batch_info={"loss_scale_factor": 11}), plugin.policy_loss(METHODS[name])
    whole, _ = loss(x, x + 0.05, advantages, mask, config=config)
    part, _ = loss(x[:2], x[:2] + 0.05, advantages[:2], mask[:2], config=config)
    assert whole.item() == pytest.approx(part.item(), rel=1e-6)
    assert loss(x[2:], x[2:], advantages[2:], mask[2:], config=config)[0] == 0, "nothing to divide by"
