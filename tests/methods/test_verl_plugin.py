"""The suite's methods as verl's policy losses: verl's own loss entry point says what the suite and the oracles say."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import baselines
import fspo
from fspo.plugins import verl_record
from methods import Row, step_gradient, step_loss
from peers.batches import BATCHES, MAX_NEW_TOKENS, Batch
from suite.config import CompareConfig, EvalConfig, TrainConfig
from suite.experiments.names import EMBEDDED_MODEL, tasks_named
from suite.experiments.recipes import recipe
from suite.experiments.verl_command import Prompts, lines_of
from suite.experiments.verl_script import script
from suite.records.bank import Bank
from suite.training.rollout_source import overlong_penalty
from suite.types import Divisor, Level, Method, PolicyBatch, UserError
from tasks import TASKS

METHODS = baselines.METHODS | fspo.METHODS
pytest.importorskip("verl", reason="verl is not installed here (tests/peers/README.md: an environment of its own)")
pytestmark = pytest.mark.external
plugin = importlib.import_module("fspo.plugins.verl")
core = importlib.import_module("verl.trainer.ppo.core_algos")
losses = importlib.import_module("verl.workers.utils.losses")

ROOT = Path(__file__).resolve().parents[2]
VERLS_OWN = {"gspo", "cispo", "sapo", "dppo_tv", "dppo_kl"}
NAMES = ("still", "middle", "wide", "mixed")
OURS = sorted(plugin.REGISTERED)


def actor(name: str) -> Any:
    """verl's config of the actor with one of our losses."""
    workers = importlib.import_module("verl.workers.config")
    policy = workers.PolicyLossConfig(loss_mode=name)
    return workers.ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=policy,
        loss_scale_factor=MAX_NEW_TOKENS,
    )


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


def test_every_method_that_verl_can_be_given_is_there_and_none_of_verls_is_replaced():
    everything = {n for n, m in METHODS.items() if "values" not in m.needs and not m.reads_state(m.hyper)} - {"maxrl"}
    assert {"fspo_zero_drift", "rloo", "no_clip"} <= everything
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
    oracle, method = importlib.import_module(f"methods.{name}"), plugin.METHODS[name]
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
    narrow = dataclasses.replace(plugin.METHODS["fspo"], hyper=fspo.FSPOHyper(c_low=1e-3, c_high=1e-3, drift="zero"))
    core.register_policy_loss("fspo_narrow")(plugin.policy_loss(narrow))
    assert said("fspo_narrow", batch)[0] != pytest.approx(said("fspo_zero_drift", batch)[0], rel=1e-3)


def test_settings_get_a_name_of_their_own():
    names = plugin.register("fspo.c_low=0.001 fspo.c_high=0.002 fspo.drift=zero rloo.clip_low=0.1")
    assert {"fspo_as_set", "rloo_as_set"} <= set(names)
    hyper = fspo.FSPOHyper(c_low=0.001, c_high=0.002, drift="zero")
    changed = dataclasses.replace(plugin.METHODS["fspo"], hyper=hyper)
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
        ("fspo.c_low=0.04", "see micro-batches only"),
        ("fspo.c_low=wide", "fspo cannot take"),
        ("fspo.target_clip_rate=0.1", "see micro-batches only"),
        ("maxrl.clip_low=0.1", "its advantage rule is what it is"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(text: str, complaint: str):
    with pytest.raises(UserError, match=complaint):
        plugin.register(text)


def test_advantages_within_a_response():
    batch = BATCHES["middle"]
    with pytest.raises(UserError, match="advantages differ within a response"):
        said("fspo_zero_drift", batch, per_token=True)
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


@pytest.mark.parametrize("name", ["vanilla", "gspo", "fspo_zero_drift"])
def test_a_recorded_loss_answers_as_ever_and_its_bank_holds_verls_ratios(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In micro-batches through verl's `ppo_loss`; the mean log ratio is that of verl's own metric."""
    batch = BATCHES["middle"]
    pieces = ([0], [1, 2, 3], [4, 5])
    wanted = [said(name, batch, rows) for rows in pieces]
    monkeypatch.setattr(core, "POLICY_LOSS_REGISTRY", dict(core.POLICY_LOSS_REGISTRY))
    text = f"{shlex.quote(str(tmp_path / 'bank'))} updates=1 limit=7"
    verl_record.RecordedLosses(verl_record.asked(text)).wrap_all(core.POLICY_LOSS_REGISTRY)
    assert [said(name, batch, rows) for rows in pieces] == wanted
    log = Bank.open(tmp_path / "bank").updates()
    mask = torch.tensor(batch.mask).bool()
    assert log.lengths.tolist() == mask.sum(1).tolist()
    ratios = (tensor(batch.log_probs) - tensor(batch.old_log_probs))[mask]
    np.testing.assert_allclose(log.log_ratios, ratios, atol=1e-6)
    config = actor("vanilla")
    config.global_batch_info.update(dp_size=1, batch_num_tokens=int(mask.sum()), global_batch_size=len(mask))
    columns = {"old_log_prob": tensor(batch.old_log_probs), "log_prob": tensor(batch.log_probs), "response_mask": mask}
    spread = tensor(batch.advantages)[:, None].expand(mask.shape)
    _, metrics = losses.get_policy_loss_fn("vanilla")(advantages=spread, config=config, **columns)
    (divergence,) = [value for key, value in metrics.items() if key.endswith("ppo_kl")]
    assert float(-log.log_ratios.mean()) == pytest.approx(float(divergence), abs=1e-6)
    assert np.float32(batch.advantages).tolist() == log.advantage.tolist()


def test_the_variable_records_what_verls_entry_point_calls(tmp_path: Path):
    """Set before verl imports the plug-in, as a worker has it."""
    program = (
        "import fspo.plugins.verl as plugin, verl.trainer.ppo.core_algos as core\n"
        "print(plugin.RECORDED.asked)\n"
        "print(*(core.get_policy_loss_fn(name).__wrapped__.__module__ for name in ('gspo', 'fspo_zero_drift')))"
    )
    environment = os.environ | {"FSPO_RECORD": f"{tmp_path}/bank updates=4 limit=64"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "updates=4, limit=64, every=1" in done.stdout
    assert done.stdout.splitlines()[-1] == "verl.trainer.ppo.core_algos fspo.plugins.verl"


def composed(text: str, folders: dict[str, Path]) -> Any:
    """verl's config of an exported script, by hydra from verl's own files, which refuses an unknown key."""
    hydra = pytest.importorskip("hydra", reason="hydra-core is not installed here")
    command = text.partition("main_ppo")[2].partition("\n  python3")[0].replace("\\\n", " ")
    for name, folder in folders.items():
        command = command.replace(f"${name}", str(folder))
    words = shlex.split(command.replace("$METHOD", "fspo").replace("$SEED", "0"))
    folder = Path(importlib.import_module("verl.trainer").__file__ or "").parent / "config"
    with hydra.initialize_config_dir(str(folder), version_base=None):
        return hydra.compose("ppo_trainer", overrides=words)


@pytest.mark.parametrize("name", sorted({"ppo", *OURS, *VERLS_OWN}))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_exported_command_fits_verls_config(name: str, precision: Any):
    """Composed, checked as verl checks it when it starts, and built as its workers build it."""
    train = TrainConfig(("a",), kl_coefficient=0.1, overlong_buffer=8, max_new_tokens=64, precision=precision)
    options = ("fspo_zero_drift.c_low=0.05", "fspo_zero_drift.c_high=0.04")
    config = CompareConfig("fit", (name,), (0,), train, EvalConfig(("a",)), options=options)
    lines = lines_of(config, METHODS[name], 64, str(EMBEDDED_MODEL), 1, Prompts(stop=("\n",)))
    found = composed(script(config, METHODS[name], lines), dict.fromkeys(("DATA", "HERE", "RUNS"), Path("/x y")))
    tools, utils = importlib.import_module("verl.utils.config"), importlib.import_module("verl.trainer.ppo.utils")
    tools.validate_config(found, utils.need_reference_policy(found), utils.need_critic(found))
    assert utils.need_critic(found) == (name == "ppo")
    built = tools.omega_conf_to_dataclass(found.actor_rollout_ref.actor)
    ours = {"ppo": "vanilla", "fspo_zero_drift": "fspo_zero_drift_as_set"}.get(name, name)
    assert (built.policy_loss.loss_mode, built.loss_scale_factor, built.optim.lr) == (ours, 64, 5e-5)
    assert found.actor_rollout_ref.model.override_config == (
        {"attn_implementation": "sdpa"} if precision == "float32" else {}
    )
    assert found.trainer.logger == ["console", "tensorboard"]
    assert (found.data.train_files, found.trainer.default_local_dir) == ("/x y/train.parquet", "/x y/fspo-seed0")
    if name == "fspo_zero_drift":
        assert " ".join(options) == found.ray_kwargs.ray_init.runtime_env.env_vars.FSPO_SETTINGS


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The demo as `fspo export` writes it, with a stop text, and verl's config of its FSPO script."""
    verl_data = importlib.import_module("suite.experiments.verl_data")
    out, config = tmp_path_factory.mktemp("export"), recipe("demo")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, overlong_buffer=16, max_new_tokens=96))
    training, evaluation = tasks_named(config.train.tasks), tasks_named(config.evaluation.tasks)
    problems = verl_data.problems_of(config, training, evaluation, set())
    prompts = verl_data.measured(problems, config.train, verl_data.tokenizer_at_hand(str(EMBEDDED_MODEL)))
    prompts = dataclasses.replace(prompts, stop=("=7",))
    verl_data.write_files(
        out,
        {
            "export.json": "",
            "compute_score.py": verl_data.reward_file(problems.tasks.values()),
            "agent_loop.yaml": verl_data.stop_file(prompts.stop),
            "train.parquet": verl_data.parquet(problems.train, problems.tasks, "train", False),
            "eval.parquet": verl_data.parquet(problems.evaluation, problems.tasks, "eval", False),
        },
    )
    method = METHODS["fspo_zero_drift"]
    text = script(config, method, lines_of(config, method, 96, str(EMBEDDED_MODEL), 1, prompts))
    return out, composed(text, dict.fromkeys(("DATA", "HERE", "RUNS"), out))


def test_verls_dataset_and_agent_loop_show_the_model_our_prompt(export: tuple[Path, Any]):
    """Their tokens are those of the suite's trainer, within data.max_prompt_length, and stop texts reach the engine."""
    out, config = export
    loops = importlib.import_module("verl.experimental.agent_loop.agent_loop")
    model = importlib.import_module("verl.utils.config").omega_conf_to_dataclass(config.actor_rollout_ref.model)
    data_module = importlib.import_module("verl.utils.dataset.rl_dataset")
    (entry,) = importlib.import_module("omegaconf").OmegaConf.load(out / "agent_loop.yaml")
    assert entry.name == config.actor_rollout_ref.rollout.agent.default_agent_loop

    class Server:
        """In place of the inference engine, which needs a GPU: keeps what it was asked."""

        async def generate(self, **asked: Any) -> Any:
            self.asked = asked
            replica = importlib.import_module("verl.workers.rollout.replica")
            return replica.TokenOutput(token_ids=[3, 4], log_probs=[-0.5, -0.5])

    server, tools = Server(), loops.ToolListWrap([])

    async def run(row: dict[str, Any]) -> Any:
        loop = importlib.import_module("hydra.utils").instantiate(
            config=entry,
            trainer_config=loops.DictConfigWrap(config=config),
            server_manager=server,
            tokenizer=model.tokenizer,
            processor=model.processor,
            hf_model_type="qwen3",
            dataset_cls=data_module.RLHFDataset,
            data_config=loops.DictConfigWrap(config.data),
            tools=tools,
        )
        return await loop.run({"temperature": 1.0}, **row)

    for path, split in ((config.data.train_files, "train"), (config.data.val_files, "eval")):
        rows = data_module.RLHFDataset(path, model.tokenizer, config.data)
        lengths = []
        for row in (rows[i] for i in range(0, len(rows), 97)):
            answer = asyncio.run(run(row))
            task = TASKS[row["data_source"]]
            (problem,) = [p for p in task.load(split, None) if p.id == row["extra_info"]["id"]]
            assert tuple(server.asked["prompt_ids"]) == tuple(model.tokenizer(task.render(problem)).input_ids)
            assert server.asked["sampling_params"] == {"temperature": 1.0, "stop": ["=7"]}
            assert answer.response_ids == [3, 4]
            lengths.append(len(server.asked["prompt_ids"]))
        assert max(lengths) <= config.data.max_prompt_length


@pytest.mark.parametrize("manager", ["naive", "dapo"])
def test_verls_reward_managers_take_our_reward(manager: str, export: tuple[Path, Any]):
    """The penalty of a long response is the suite's too."""
    _, config = export
    config = importlib.import_module("copy").deepcopy(config)
    config.reward.reward_manager.name = manager
    reward = importlib.import_module("verl.trainer.ppo.reward")
    DataProto: Any = importlib.import_module("verl").DataProto
    TensorDict: Any = importlib.import_module("tensordict").TensorDict
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(EMBEDDED_MODEL)

    async def scores(texts: Sequence[str]) -> list[dict[str, Any]]:
        held = reward.load_reward_manager(config, tokenizer)

        def data(text: str) -> Any:
            ids = torch.tensor([tokenizer(text).input_ids])
            mask = torch.ones(1, 1 + ids.shape[1], dtype=torch.long)
            about = {"data_source": "gcd", "reward_model": {"ground_truth": "12"}, "extra_info": {"id": "x"}}
            columns = {name: np.array([value], dtype=object) for name, value in about.items()}
            batch = TensorDict({"responses": ids, "attention_mask": mask, "prompts": torch.ones(1, 1)}, batch_size=1)
            return DataProto(batch=batch, non_tensor_batch=columns)

        return await asyncio.gather(*(held.run_single(data(text)) for text in texts))

    texts = ["12,12=12", "12,12=11", "12,12", "0" * 85 + "=12"]
    found = asyncio.run(scores(texts))
    assert [one["reward_extra_info"]["acc"] for one in found] == [1.0, 0.0, 0.0, 1.0]
    assert [one["reward_extra_info"]["no_answer"] for one in found] == [0.0, 0.0, 1.0, 0.0]
    lengths = [len(tokenizer(text).input_ids) for text in texts]
    penalties = [overlong_penalty(n, 96, 16) if manager == "dapo" else 0.0 for n in lengths]
    assert penalties[3] == (-0.5 if manager == "dapo" else 0.0)
    wanted = [acc + penalty for acc, penalty in zip([1.0, 0.0, 0.0, 1.0], penalties, strict=True)]
    assert [float(one["reward_score"]) for one in found] == pytest.approx(wanted)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_merged_checkpoint_is_a_model_folder(rank: int, tmp_path: Path):
    """verl.model_merger, called as the script calls it, on weights that were saved as verl's FSDP engine saves them."""
    transformers = importlib.import_module("transformers")
    run = tmp_path / "fspo-seed0"
    config = recipe("demo")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, lora_rank=rank))
    actor = run / f"global_step_{config.train.steps}" / "actor"
    model = transformers.AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL, dtype=torch.float32)
    for name, keeper in (("config", model.config), ("tokenizer", transformers.AutoTokenizer)):
        kept = keeper.from_pretrained(EMBEDDED_MODEL) if name == "tokenizer" else keeper
        kept.save_pretrained(actor / "huggingface")
    torch.manual_seed(0)
    if rank:
        peft = pytest.importorskip("peft", reason="peft is not installed here")
        settings = peft.LoraConfig(r=rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, settings)
        (actor / "lora_train_meta.json").write_text(f'{{"r": {rank}, "lora_alpha": 32, "task_type": "CAUSAL_LM"}}')
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn_like(weight)
    (actor / "fsdp_config.json").write_text('{"FSDP_version": 1, "world_size": 1}')
    saved = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.save(saved, actor / "model_world_size_1_rank_0.pt")
    wanted = (model.merge_and_unload() if rank else model).state_dict()

    lines = lines_of(config, METHODS["fspo_zero_drift"], 96, "MODEL", 1)
    text = script(config, METHODS["fspo_zero_drift"], lines)
    merging = "  python3 -m verl.model_merger" + text.partition("verl.model_merger")[2].partition("\n  echo")[0]
    bin_folder = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"RUNS": str(tmp_path), "METHOD": "fspo", "SEED": "0", "PATH": bin_folder}
    subprocess.run(["bash", "-euc", merging], env=environment, check=True, capture_output=True)
    found = transformers.AutoModelForCausalLM.from_pretrained(run / "merged", dtype=torch.float32).state_dict()
    assert set(found) == set(wanted)
    for name, weight in wanted.items():
        # bfloat16 keeps 8 bits: each weight is off by 2^-8 of itself, so B A by 2^-7 of the sum of its terms.
        bound, adapter = 2**-8 * weight.abs(), f"base_model.model.{name.removesuffix('.weight')}"
        if f"{adapter}.lora_A.default.weight" in saved:
            down, up = (saved[f"{adapter}.lora_{x}.default.weight"].abs() for x in "AB")
            bound = 2**-8 * saved[f"{adapter}.base_layer.weight"].abs() + 2**-7 * (up @ down) * (32 / rank)
        assert bool(((found[name] - weight).abs() <= 1.01 * bound + 1e-7).all()), name
    assert (run / "merged" / "tokenizer.json").is_file()


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
