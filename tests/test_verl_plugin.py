"""The suite's methods as verl's policy losses: verl's own loss entry point says what the suite and the oracles say."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import baselines
import fspo
from oracles import Row, step_gradient, step_loss
from peers.batches import BATCHES, MAX_NEW_TOKENS, Batch
from suite.config import CompareConfig, EvalConfig, TrainConfig
from suite.types import Divisor, Level, Method, PolicyBatch, UserError
from suite.verl_command import lines_of, script

METHODS = baselines.METHODS | fspo.METHODS
pytest.importorskip("verl", reason="verl is not installed here (tests/peers/README.md: an environment of its own)")
pytestmark = pytest.mark.external
plugin = importlib.import_module("fspo.plugins.verl")
core = importlib.import_module("verl.trainer.ppo.core_algos")
losses = importlib.import_module("verl.workers.utils.losses")

ROOT = Path(__file__).resolve().parent.parent
VERLS_OWN = {"gspo", "cispo", "sapo", "dppo_tv", "dppo_kl"}
NAMES = ("still", "middle", "wide", "mixed")
OURS = sorted(plugin.REGISTERED)


def actor(name: str) -> Any:
    """verl's config of the actor with one of our losses."""
    workers = importlib.import_module("verl.workers.config")
    policy = workers.PolicyLossConfig(loss_mode=name)
    return workers.ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, policy_loss=policy,
        loss_scale_factor=MAX_NEW_TOKENS,
    )  # fmt: skip


def tensor(rows: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def said(name: str, batch: Batch, rows: Sequence[int] = range(6), per_token: bool = False) -> tuple[float, list[Any]]:
    """Loss and gradient of some rows of a batch from `ppo_loss`, which verl's engines call: nested, without padding."""
    TensorDict: Any = importlib.import_module("tensordict").TensorDict
    lengths = [sum(batch.mask[i]) for i in rows]
    log_probs = [tensor(batch.log_probs[i][:n]).requires_grad_(True) for i, n in zip(rows, lengths, strict=True)]

    def nested(columns: list[torch.Tensor]) -> torch.Tensor:
        return torch.nested.as_nested_tensor(columns, layout=torch.jagged)

    def column(values: Any) -> torch.Tensor:
        return nested([tensor(values[i][:n]) for i, n in zip(rows, lengths, strict=True)])

    # One prompt token a row; its last hidden state scores the first response token, the row's last one scores nothing.
    scores = torch.cat([torch.cat([x, x.new_zeros(1)]) for x in log_probs])
    spread = batch.token_advantages if per_token else [[a] * len(batch.mask[0]) for a in batch.advantages]
    data = TensorDict(
        {
            "prompts": nested([torch.zeros(1, dtype=torch.long) for _ in rows]),
            "responses": nested([torch.zeros(n, dtype=torch.long) for n in lengths]),
            "response_mask": nested([torch.ones(n, dtype=torch.bool) for n in lengths]),
            "old_log_probs": column(batch.old_log_probs),
            "advantages": column(spread),
        },
        batch_size=[len(rows)],
    )
    tools = importlib.import_module("verl.utils.tensordict_utils")
    counts = {"dp_size": 1, "batch_num_tokens": sum(map(sum, batch.mask)), "global_batch_size": len(batch.mask)}
    tools.assign_non_tensor(data, **counts)
    loss, _ = losses.ppo_loss(actor(name), {"log_probs": scores}, data)
    slopes = torch.autograd.grad(loss, log_probs)
    width = len(batch.mask[0])
    return loss.item(), [torch.nn.functional.pad(x, (0, width - len(x))).tolist() for x in slopes]


def rows_of(method: Method, batch: Batch) -> list[Row]:
    """The batch as the oracles read it."""
    found = []
    for i, mask in enumerate(batch.mask):
        advantages = [batch.advantages[i]] * (1 if method.level == Level.SEQUENCE else len(mask))
        found.append(Row(batch.log_probs[i], batch.old_log_probs[i], advantages, [bool(m) for m in mask]))
    return found


def ours(method: Method, batch: Batch) -> tuple[float, torch.Tensor]:
    """Loss and gradient as the suite's optimizer step forms them."""
    mask = torch.tensor(batch.mask).bool()
    new = tensor(batch.log_probs).requires_grad_(True)
    seen = PolicyBatch(new, tensor(batch.old_log_probs), tensor(batch.advantages)[:, None], mask, mask.sum(1).double())
    surrogate = method.surrogate(seen, method.hyper, {})
    rows = len(batch.mask)
    count = {Divisor.RESPONSES: rows, Divisor.TOKENS: float(mask.sum()), Divisor.CONSTANT: rows * MAX_NEW_TOKENS}
    loss = -surrogate.objective.sum() / count[surrogate.divisor]
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.item(), gradient


def test_every_method_without_a_critic_is_there_and_none_of_verls_is_replaced():
    everything = {n for n, m in (baselines.METHODS | fspo.METHODS).items() if "values" not in m.needs}
    assert set(OURS) == everything - VERLS_OWN
    assert set(core.POLICY_LOSS_REGISTRY) >= VERLS_OWN
    for name in VERLS_OWN:
        assert core.get_policy_loss_fn(name).__module__ == "verl.trainer.ppo.core_algos"


@pytest.mark.parametrize("name", OURS)
def test_verls_loss_is_ours(name: str):
    for batch in (BATCHES[key] for key in NAMES):
        loss, gradient = said(name, batch)
        wanted, slope = ours(plugin.METHODS[name], batch)
        assert loss == pytest.approx(wanted, rel=1e-12, abs=1e-15)
        torch.testing.assert_close(tensor(gradient), slope, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", OURS)
def test_verls_loss_is_the_equations(name: str):
    oracle, method = importlib.import_module(f"oracles.{name}"), plugin.METHODS[name]
    for batch in (BATCHES[key] for key in NAMES):
        loss, gradient = said(name, batch)
        rows, hyper = rows_of(method, batch), method.hyper
        wanted = step_loss(oracle.response, oracle.DIVISOR, rows, hyper, {}, max_new_tokens=MAX_NEW_TOKENS)
        assert loss == pytest.approx(wanted, rel=1e-9)
        slope = step_gradient(oracle.response, oracle.DIVISOR, rows, hyper, {}, max_new_tokens=MAX_NEW_TOKENS)
        torch.testing.assert_close(tensor(gradient), tensor(slope), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OURS)
def test_micro_batches_add_up_to_the_step(name: str):
    batch = BATCHES["mixed"]
    whole, _ = said(name, batch)
    pieces = [said(name, batch, rows)[0] for rows in ([0], [1, 2, 3], [4, 5])]
    assert sum(pieces) == pytest.approx(whole, rel=1e-12)


def test_a_loss_with_another_band_is_told_apart():
    batch = BATCHES["middle"]
    narrow = dataclasses.replace(plugin.METHODS["fspo"], hyper=fspo.FSPOHyper(c_low=1e-3, c_high=1e-3))
    core.register_policy_loss("fspo_narrow")(plugin.policy_loss(narrow))
    assert said("fspo_narrow", batch)[0] != pytest.approx(said("fspo", batch)[0], rel=1e-3)


def test_settings_get_a_name_of_their_own():
    names = plugin.register("fspo.c_low=0.001 fspo.c_high=0.002 rloo.clip_low=0.1")
    assert {"fspo", "fspo_as_set", "rloo_as_set"} <= set(names)
    changed = dataclasses.replace(plugin.METHODS["fspo"], hyper=fspo.FSPOHyper(c_low=0.001, c_high=0.002))
    found = said("fspo_as_set", BATCHES["middle"])[0]
    assert found == pytest.approx(ours(changed, BATCHES["middle"])[0], rel=1e-12)
    with pytest.raises(ValueError, match="Unsupported loss mode: grpo_as_set"):
        core.get_policy_loss_fn("grpo_as_set")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fspo.c_low", "write it as method.field=value"),
        ("nothing.c_low=1", "unknown method 'nothing'"),
        ("fspo.epsilon=1", "fspo has no setting 'epsilon'"),
        ("fspo.c_low=-1", "c_low = -1"),
        ("fspo.drift=ema", "see micro-batches only"),
        ("fspo.target_clip_rate=0.1", "see micro-batches only"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(text: str, complaint: str):
    with pytest.raises(UserError, match=complaint):
        plugin.register(text)


def test_advantages_within_a_response():
    batch = BATCHES["middle"]
    with pytest.raises(UserError, match="advantages differ within a response"):
        said("fspo", batch, per_token=True)
    said("grpo", batch, per_token=True)


def test_weights_of_the_samplers_mismatch():
    mask = torch.ones(2, 3, dtype=torch.bool)
    new, old = tensor([[0.1] * 3, [0.2] * 3]) - 1, torch.full((2, 3), -1.0, dtype=torch.float64)
    loss = plugin.policy_loss(plugin.METHODS["rloo"])
    given = (old, new, torch.tensor([[1.0], [-1.0]]).expand(2, 3), mask)
    weights = torch.tensor([[2.0] * 3, [0.0] * 3])
    weighted, _ = loss(*given, rollout_is_weights=weights)
    assert weighted.item() == pytest.approx(-2.0 * min(torch.e**0.3, 1.2) / 2)
    weights[0, 1] = 1.0
    with pytest.raises(UserError, match="rollout_is_weights differ within a response"):
        loss(*given, rollout_is_weights=weights)


def test_the_constant_divisor_needs_the_limit():
    config = actor("dr_grpo")
    config.global_batch_info.update(dp_size=1, global_batch_size=2, loss_scale_factor=None)
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(UserError, match="loss_scale_factor"):
        core.get_policy_loss_fn("dr_grpo")(x, x, x, mask, config=config)


@pytest.mark.parametrize("name", ["ppo", "grpo", "gspo", "cispo", "dppo_tv", "fspo"])
def test_an_exported_command_fits_verls_config(name: str):
    """Composed by hydra from verl's own files, which refuses an unknown key; then built as verl's workers build it."""
    hydra = pytest.importorskip("hydra", reason="hydra-core is not installed here")
    train = TrainConfig(("a",), lora_rank=4, kl_coefficient=0.1, overlong_buffer=8, max_new_tokens=64)
    options = ("fspo.c_low=0.05", "fspo.c_high=0.04")
    config = CompareConfig("fit", (name,), (0,), train, EvalConfig(("a",)), options=options)
    text = script(config, METHODS[name], lines_of(config, METHODS[name], 64, "some/model", 1))
    words = shlex.split(text.partition("main_ppo")[2].partition("\ndone")[0].replace("\\\n", " ").replace("$SEED", "0"))
    folder = Path(importlib.import_module("verl.trainer").__file__ or "").parent / "config"
    with hydra.initialize_config_dir(str(folder), version_base=None):
        found = hydra.compose("ppo_trainer", overrides=words)
    built = importlib.import_module("verl.utils.config").omega_conf_to_dataclass(found.actor_rollout_ref.actor)
    loss = {"ppo": "vanilla", "fspo": "fspo_as_set"}.get(name, name)
    assert (built.policy_loss.loss_mode, built.loss_scale_factor, built.optim.lr) == (loss, 64, 5e-5)
    if name == "fspo":
        assert found.ray_kwargs.ray_init.runtime_env.env_vars.FSPO_SETTINGS == "fspo.c_low=0.05 fspo.c_high=0.04"


def test_the_import_loads_torch_and_verls_algorithms_only():
    """In a fresh interpreter, beyond what verl's own module loads: no other library, and of the suite its core."""
    program = (
        "import sys, torch, verl.trainer.ppo.core_algos; before = set(sys.modules); import fspo.plugins.verl\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
        "; print(*sorted(name for name in sys.modules if name.startswith('suite.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    libraries, rooms = done.stdout.splitlines()[-2:]
    assert libraries.split() == ["baselines", "fspo", "suite"]
    assert rooms.split() == ["suite.advantages", "suite.arithmetic", "suite.types"]
