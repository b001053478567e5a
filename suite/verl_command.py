"""A recipe as a verl 0.9.1 command: every setting with verl's key and value, or the reason why there is none.

Needs no verl and none of the composition root: configs and methods come from the caller.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence

from suite.config import CompareConfig, TrainConfig
from suite.types import Method, UserError
from suite.verl_losses import ACTOR, MODEL, NATIVE, Line, advantage_lines, loss_lines

VERL = "0.9.1"
DRAW = "actor_rollout_ref.rollout"
ANALYSIS = "how results are compared; `fspo report` does it, verl does not"
COLUMNS = "you write it, with columns prompt, data_source and reward_model"
TEMPLATE = "verl always writes the chat template"
HALF = "weights; log-probs come from bfloat16"


def training_lines(train: TrainConfig, method: Method, limit: int, model: str) -> list[Line]:
    """The settings of a training run. UserError where mini-batches cannot be whole problems, as verl wants them."""
    problems, over = divmod(train.problems_per_step, train.mini_batches)
    if over:
        raise UserError(
            f"train.mini_batches = {train.mini_batches}: verl deals whole problems to mini-batches; take a divisor of "
            f"problems_per_step = {train.problems_per_step}"
        )
    half = train.precision == "bfloat16"
    return [
        Line("train.tasks", "data.train_files", "$DATA/train.parquet", COLUMNS),
        Line("train.tasks", "data.truncation", "error", "above data.max_prompt_length, 512; the suite cuts no prompt"),
        Line("train.model", f"{MODEL}.path", model),
        Line("train.data_dir", None, train.data_dir, "verl reads Parquet files"),
        Line("train.steps", "trainer.total_training_steps", train.steps),
        Line("train.steps", "trainer.total_epochs", train.steps, "only so that the steps are reached"),
        Line("train.problems_per_step", "data.train_batch_size", train.problems_per_step),
        Line("train.samples_per_problem", f"{DRAW}.n", train.samples_per_problem),
        Line("train.mini_batches", f"{ACTOR}.ppo_mini_batch_size", problems, "in problems, each with all its samples"),
        Line("train.mini_batches", f"{ACTOR}.shuffle", True, "by rows of a device; ours deals over the whole step"),
        Line("train.epochs", f"{ACTOR}.ppo_epochs", train.epochs),
        Line("train.learning_rate", f"{ACTOR}.optim.lr", train.learning_rate),
        *_schedule_lines(train),
        Line("train.weight_decay", f"{ACTOR}.optim.weight_decay", train.weight_decay),
        Line("train.max_grad_norm", f"{ACTOR}.optim.clip_grad", train.max_grad_norm),
        *_kl_lines(train, method),
        Line("train.max_new_tokens", "data.max_response_length", limit),
        *_sampling_lines(train, limit),
        Line(
            "train.activation_checkpointing", f"{MODEL}.enable_gradient_checkpointing", train.activation_checkpointing
        ),
        Line("train.tokens_per_micro_batch", f"{ACTOR}.use_dynamic_bsz", True),
        Line("train.tokens_per_micro_batch", f"{ACTOR}.ppo_max_token_len_per_gpu", train.tokens_per_micro_batch,
             "must hold the longest prompt and response"),
        Line("train.precision", f"{ACTOR}.fsdp_config.dtype", train.precision),
        Line("train.precision", f"{DRAW}.dtype", train.precision),
        Line("train.precision", f"{ACTOR}.fsdp_config.model_dtype", "fp32", HALF if half else ""),
        Line("train.float32_head", None, train.float32_head, "verl's head has the body's precision"),
        *_adapter_lines(train),
        Line("train.checkpoint_every", "trainer.save_freq", train.checkpoint_every),
        Line("train.overlap", None, train.overlap, "leave such problems out when you write train.parquet"),
    ]  # fmt: skip


def _adapter_lines(train: TrainConfig) -> list[Line]:
    lines = [Line("train.lora_rank", f"{MODEL}.lora_rank", train.lora_rank)]
    targets = train.lora_targets if "," not in train.lora_targets else f"[{train.lora_targets}]"
    if train.lora_rank:
        lines.append(Line("train.lora_alpha", f"{MODEL}.lora_alpha", round(train.lora_alpha)))
        return [*lines, Line("train.lora_targets", f"{MODEL}.target_modules", targets)]
    none = "no adapters are trained"
    return [
        *lines,
        Line("train.lora_alpha", None, train.lora_alpha, none),
        Line("train.lora_targets", None, targets, none),
    ]


def _schedule_lines(train: TrainConfig) -> list[Line]:
    key = f"{ACTOR}.optim.lr_scheduler_type"
    known = {"constant": "constant", "constant_with_warmup": "constant", "cosine": "cosine"}
    warmup = math.ceil(train.warmup_updates / train.updates_per_rollout)
    return [
        Line("train.schedule", key, known[train.schedule], "changes once a rollout step, not with every update")
        if train.schedule in known
        else Line("train.schedule", None, train.schedule, "verl has constant and cosine"),
        Line("train.warmup_updates", f"{ACTOR}.optim.lr_warmup_steps", warmup, "in rollout steps"),
    ]


def _kl_lines(train: TrainConfig, method: Method) -> list[Line]:
    own = method.name in NATIVE and NATIVE[method.name][1] != "token-mean"
    note = "divided as the loss is (loss_agg_mode), not by tokens" if own and train.kl_coefficient else ""
    lines = [Line("train.kl_coefficient", f"{ACTOR}.use_kl_loss", train.kl_coefficient > 0)]
    if train.kl_coefficient:
        lines.append(Line("train.kl_coefficient", f"{ACTOR}.kl_loss_coef", train.kl_coefficient, note))
        lines.append(Line("train.kl_coefficient", f"{ACTOR}.kl_loss_type", "low_var_kl"))
    return lines


def _sampling_lines(train: TrainConfig, limit: int) -> list[Line]:
    """How responses are drawn and rewarded."""
    other = "" if train.sampler == "vllm" else f"in place of {train.sampler}"
    lines = [
        Line("train.sampler", f"{DRAW}.name", "vllm", other),
        Line("train.sampler", f"{DRAW}.tensor_model_parallel_size", 1),
        Line("train.sampling_batch_size", f"{DRAW}.max_num_seqs", train.sampling_batch_size),
        Line("train.chat", "data.return_raw_chat", True)
        if train.chat
        else Line("train.chat", None, train.chat, f"{TEMPLATE}; a task's stop texts are not handed on"),
        Line("train.dynamic_sampling", "algorithm.filter_groups.enable", train.dynamic_sampling > 0,
             "without a limit on attempts; what stays uniform is never trained on" if train.dynamic_sampling else ""),
    ]  # fmt: skip
    buffer = train.overlong_buffer
    if not buffer:
        return [*lines, Line("train.overlong_buffer", "reward.reward_manager.name", "naive")]
    config = "+reward.reward_kwargs"
    return [
        *lines,
        Line("train.overlong_buffer", "reward.reward_manager.name", "dapo"),
        Line("train.overlong_buffer", f"{config}.max_resp_len", limit),
        Line("train.overlong_buffer", f"{config}.overlong_buffer_cfg.enable", True),
        Line("train.overlong_buffer", f"{config}.overlong_buffer_cfg.len", buffer),
        Line("train.overlong_buffer", f"{config}.overlong_buffer_cfg.penalty_factor", 1.0),
    ]


def comparison_lines(config: CompareConfig, limit: int) -> list[Line]:
    """Seeds, evaluation, and what only the suite does with results."""
    chosen = config.evaluation
    tokens = chosen.max_new_tokens in (None, limit)
    return [
        Line("name", "trainer.experiment_name", f"{config.name}-$METHOD-seed$SEED"),
        Line("name", "trainer.project_name", "fspo"),
        Line("seeds", "data.seed", "$SEED", "noise and order are verl's own: runs of two methods share neither"),
        Line("seeds", f"{ACTOR}.data_loader_seed", "$SEED"),
        Line("seeds", f"{DRAW}.seed", "$SEED"),
        Line("evaluation.tasks", "data.val_files", "$DATA/eval.parquet", COLUMNS),
        Line("evaluation.tasks", "reward.custom_reward_function.path", "$REWARD", "you write it: compute_score(...)"),
        Line("evaluation.samples", f"{DRAW}.val_kwargs.n", chosen.samples),
        Line("evaluation.limit", "data.val_max_samples", -1 if chosen.limit is None else chosen.limit,
             "" if chosen.limit is None else "of all sets together; ours is a limit for each"),
        Line("evaluation.temperature", f"{DRAW}.val_kwargs.temperature", chosen.temperature),
        Line("evaluation.temperature", f"{DRAW}.val_kwargs.do_sample", chosen.temperature > 0),
        Line("evaluation.seed", None, chosen.seed, "rollout.seed is the training's"),
        Line("evaluation.batch_size", None, chosen.batch_size, "rollout.max_num_seqs is the training's"),
        Line("evaluation.max_new_tokens", None, chosen.max_new_tokens,
             "the same as in training" if tokens else "verl evaluates with the training's limit"),
        Line("evaluation.chat", None, chosen.chat, TEMPLATE),
        Line("evaluation", "trainer.val_before_train", True),
        Line("evaluation", "trainer.test_freq", config.train.steps, "once, after the last step"),
        Line("bootstrap", None, config.bootstrap, ANALYSIS),
        Line("replay_seeds", None, config.replay_seeds, ANALYSIS),
        Line("primary", None, config.primary, ANALYSIS),
    ]  # fmt: skip


def lines_of(config: CompareConfig, method: Method, limit: int, model: str, gpus: int) -> list[Line]:
    """Every setting of one method's runs. `limit` is the token limit of a response, `model` a path or hub id."""
    changed = [option for option in config.options if option.partition(".")[0] == method.name]
    return [
        *comparison_lines(config, limit),
        *training_lines(config.train, method, limit, model),
        *loss_lines(method, changed, limit),
        *advantage_lines(method, config.train),
        Line("--gpus", "trainer.n_gpus_per_node", gpus),
    ]


def _word(line: Line) -> str:
    """`key=value` for the shell; $NAMES stay for the shell to fill in, settings are quoted for verl too."""
    value = line.value if isinstance(line.value, str) else {"None": "null"}.get(repr(line.value), repr(line.value))
    if "=" in value:
        value = f'"{value}"'
    if "$" in value and "${" not in value:
        return f'"{line.key}={value}"'
    return shlex.quote(f"{line.key}={value}")


def script(config: CompareConfig, method: Method, lines: Sequence[Line]) -> str:
    """A bash script that runs verl for every seed of one method; what has no counterpart stands at its end."""
    words = [_word(line) for line in lines if line.key is not None]
    notes = [f"#   {x.setting} -> {x.key}: {x.note}" for x in lines if x.key and x.note]
    missing = [f"#   {x.setting} = {x.value!r}: {x.note}" for x in lines if x.key is None]
    return "\n".join([
        "#!/usr/bin/env bash",
        f"# fspo export-verl: recipe {config.name}, method {method.name}, for verl {VERL}. Not run by us.",
        "set -euo pipefail",
        ': "${DATA:?folder with train.parquet and eval.parquet}" "${REWARD:?Python file with compute_score}"',
        f"METHOD={method.name}",
        f"for SEED in {' '.join(map(str, config.seeds))}; do",
        "  python3 -m verl.trainer.main_ppo \\",
        *(f"    {word} \\" for word in words[:-1]),
        f"    {words[-1]}",
        "done",
        "# What verl does otherwise:",
        *notes,
        "# Settings without a counterpart in verl:",
        *missing,
        "",
    ])  # fmt: skip


def settings_named(config: CompareConfig) -> set[str]:
    """Every path of a setting that a script must name: those of the comparison, its training and its evaluation."""
    found = set()
    for field in dataclasses.fields(config):
        inner = getattr(config, field.name)
        sections = dataclasses.fields(inner) if dataclasses.is_dataclass(inner) else ()
        found |= {f"{field.name}.{f.name}" for f in sections} or {field.name}
    return found
