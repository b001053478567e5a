"""A recipe as verl 0.9.1's settings: every setting with verl's key and value, or the reason why there is none.

Needs no verl and none of the composition root: configs and methods come from the caller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from suite.config import CompareConfig, TrainConfig
from suite.experiments.verl_losses import ACTOR, MODEL, NATIVE, VerlLine, advantage_lines, loss_lines
from suite.types import Method, UserError

DRAW = "actor_rollout_ref.rollout"
ANALYSIS = "how results are compared; `fspo report` does it, verl does not"
HALF = "weights; log-probs come from bfloat16"
HALF_ONLY = "flash attention, verl's default, has no float32"
BARE = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""A chat template that writes what the messages hold and nothing around it: the suite's few-shot prompt as it is."""
REWARD_WORKERS = 8
"""Processes that verl grades in."""


@dataclass(frozen=True)
class Prompts:
    """What is known of the prompts of a run.

    `longest` is the most tokens of one and `found` says how that is known; `begin` is whether the tokenizer puts a
    begin token before a text (None: not known); `stop` are the texts that end a response; `limited` is whether
    `evaluation.limit` is applied where the evaluation file is written.
    """

    longest: int = 2048
    found: str = "assumed, no data being at hand; verl cuts the start of a longer prompt off and only warns"
    begin: bool | None = None
    stop: tuple[str, ...] = ()
    limited: bool = False

    @property
    def template(self) -> str:
        """The chat template that hands a prompt through."""
        return "{{ bos_token }}" * bool(self.begin) + BARE


def training_lines(train: TrainConfig, method: Method, limit: int, model: str, prompts: Prompts) -> list[VerlLine]:
    """The settings of a training run. UserError where mini-batches cannot be whole problems, as verl wants them."""
    problems, over = divmod(train.problems_per_step, train.mini_batches)
    if over:
        raise UserError(
            f"train.mini_batches = {train.mini_batches}: verl deals whole problems to mini-batches; take a divisor of "
            f"problems_per_step = {train.problems_per_step}"
        )
    warmed = "in rollout steps, the first at rate 0" if train.warmup_updates else "in rollout steps"
    return [
        VerlLine("train.tasks", "data.train_files", "$DATA/train.parquet"),
        VerlLine("train.tasks", "data.max_prompt_length", prompts.longest, prompts.found),
        VerlLine("train.model", f"{MODEL}.path", model),
        VerlLine("train.data_dir", None, train.data_dir and str(train.data_dir), "verl reads Parquet files"),
        VerlLine("train.steps", "trainer.total_training_steps", train.steps),
        VerlLine("train.steps", "trainer.total_epochs", train.steps, "only so that the steps are reached"),
        VerlLine("train.problems_per_step", "data.train_batch_size", train.problems_per_step),
        VerlLine("train.samples_per_problem", f"{DRAW}.n", train.samples_per_problem),
        VerlLine(
            "train.mini_batches", f"{ACTOR}.ppo_mini_batch_size", problems, "in problems, each with all its samples"
        ),
        VerlLine("train.mini_batches", f"{ACTOR}.shuffle", True, "by rows of a device; ours deals over the whole step"),
        VerlLine("train.epochs", f"{ACTOR}.ppo_epochs", train.epochs),
        VerlLine("train.learning_rate", f"{ACTOR}.optim.lr", train.learning_rate),
        *_schedule_lines(train, warmed),
        VerlLine("train.weight_decay", f"{ACTOR}.optim.weight_decay", train.weight_decay),
        VerlLine("train.max_grad_norm", f"{ACTOR}.optim.clip_grad", train.max_grad_norm),
        *_kl_lines(train, method),
        VerlLine("train.max_new_tokens", "data.max_response_length", limit),
        *_sampling_lines(train, limit, prompts),
        *_vllm_lines(train),
        *_memory_lines(train, prompts.longest + limit),
        *_precision_lines(train),
        *_adapter_lines(train),
        VerlLine("train.checkpoint_every", "trainer.save_freq", train.checkpoint_every),
        VerlLine("train.checkpoint_every", "trainer.max_actor_ckpt_to_keep", 1),
        VerlLine("train.checkpoint_every", "trainer.default_local_dir", "$RUNS/$METHOD-seed$SEED"),
        VerlLine("train.overlap", None, train.overlap, "done where train.parquet is written"),
    ]


def _memory_lines(train: TrainConfig, longest: int) -> list[VerlLine]:
    """How much one pass may hold."""
    tokens = max(train.tokens_per_micro_batch, longest)
    note = "" if tokens == train.tokens_per_micro_batch else "raised: verl wants the longest prompt and response in it"
    return [
        VerlLine(
            "train.activation_checkpointing", f"{MODEL}.enable_gradient_checkpointing", train.activation_checkpointing
        ),
        VerlLine("train.tokens_per_micro_batch", f"{ACTOR}.use_dynamic_bsz", True),
        VerlLine("train.tokens_per_micro_batch", f"{ACTOR}.ppo_max_token_len_per_gpu", tokens, note),
    ]


def _precision_lines(train: TrainConfig) -> list[VerlLine]:
    """Precision of the arithmetic, and whether the same bits come again."""
    half = train.precision == "bfloat16"
    plain = [
        VerlLine("train.precision", f"+{MODEL}.override_config.attn_implementation", "sdpa", HALF_ONLY),
        VerlLine("train.precision", f"{MODEL}.use_remove_padding", False, HALF_ONLY),
    ]
    return [
        VerlLine("train.precision", f"{ACTOR}.fsdp_config.dtype", train.precision),
        VerlLine("train.precision", f"{DRAW}.dtype", train.precision),
        VerlLine("train.precision", f"{ACTOR}.fsdp_config.model_dtype", "fp32", HALF if half else ""),
        *([] if half else plain),
        VerlLine("train.float32_head", None, train.float32_head, "verl's head has the body's precision"),
        VerlLine("train.deterministic", f"{ACTOR}.fsdp_config.full_determinism", train.deterministic),
        VerlLine("train.deterministic", f"{DRAW}.full_determinism", train.deterministic),
    ]


def _vllm_lines(train: TrainConfig) -> list[VerlLine]:
    """How vLLM runs; its precision and how much it draws side by side follow from settings of the training."""
    vllm = train.vllm
    return [
        VerlLine("train.vllm.prefix_caching", f"{DRAW}.enable_prefix_caching", vllm.prefix_caching),
        VerlLine("train.vllm.compiled", f"{DRAW}.enforce_eager", vllm.compiled is False),
        VerlLine("train.vllm.tensor_parallel_size", f"{DRAW}.tensor_model_parallel_size", vllm.tensor_parallel_size),
        VerlLine("train.vllm.gpu_memory_utilization", f"{DRAW}.gpu_memory_utilization", vllm.gpu_memory_utilization),
        VerlLine("train.vllm.sleep", f"{DRAW}.free_cache_engine", vllm.sleep is not False),
        VerlLine("train.vllm.kv_cache_gib", None, vllm.kv_cache_gib, "for a CPU"),
    ]


def _adapter_lines(train: TrainConfig) -> list[VerlLine]:
    lines = [VerlLine("train.lora_rank", f"{MODEL}.lora_rank", train.lora_rank)]
    targets = train.lora_targets.split(",") if "," in train.lora_targets else train.lora_targets
    if train.lora_rank:
        lines.append(VerlLine("train.lora_alpha", f"{MODEL}.lora_alpha", round(train.lora_alpha)))
        return [*lines, VerlLine("train.lora_targets", f"{MODEL}.target_modules", targets)]
    none = "no adapters are trained"
    return [
        *lines,
        VerlLine("train.lora_alpha", None, train.lora_alpha, none),
        VerlLine("train.lora_targets", None, targets, none),
    ]


def _schedule_lines(train: TrainConfig, warmed: str) -> list[VerlLine]:
    key = f"{ACTOR}.optim.lr_scheduler_type"
    known = {"constant": "constant", "constant_with_warmup": "constant", "cosine": "cosine"}
    warmup = math.ceil(train.warmup_updates / train.updates_per_rollout)
    return [
        VerlLine("train.schedule", key, known[train.schedule], "changes once a rollout step, not with every update")
        if train.schedule in known
        else VerlLine("train.schedule", None, train.schedule, "verl has constant and cosine"),
        VerlLine("train.warmup_updates", f"{ACTOR}.optim.lr_warmup_steps", warmup, warmed),
    ]


def _kl_lines(train: TrainConfig, method: Method) -> list[VerlLine]:
    own = method.name in NATIVE and NATIVE[method.name][1] != "token-mean"
    note = "divided as the loss is (loss_agg_mode), not by tokens" if own and train.kl_coefficient else ""
    lines = [VerlLine("train.kl_coefficient", f"{ACTOR}.use_kl_loss", train.kl_coefficient > 0)]
    if train.kl_coefficient:
        lines.append(VerlLine("train.kl_coefficient", f"{ACTOR}.kl_loss_coef", train.kl_coefficient, note))
        lines.append(VerlLine("train.kl_coefficient", f"{ACTOR}.kl_loss_type", "low_var_kl"))
    return lines


def _sampling_lines(train: TrainConfig, limit: int, prompts: Prompts) -> list[VerlLine]:
    """How responses are drawn and rewarded."""
    other = "" if train.sampler == "vllm" else f"in place of {train.sampler}"
    known = (
        "" if prompts.begin else "without a begin token; put {{ bos_token }} before it for a tokenizer that adds one"
    )
    lines = [
        VerlLine("train.sampler", f"{DRAW}.name", "vllm", other),
        VerlLine("train.sampler", f"{DRAW}.temperature", 1.0),
        VerlLine("train.sampler", f"{DRAW}.top_p", 1.0),
        VerlLine("train.sampler", f"{DRAW}.top_k", -1),
        VerlLine("train.sampling_batch_size", f"{DRAW}.max_num_seqs", train.sampling_batch_size),
        VerlLine("train.chat", "data.return_raw_chat", True, "the model's own chat template around the question")
        if train.chat
        else VerlLine("train.chat", f"{MODEL}.custom_chat_template", prompts.template, known),
        VerlLine(
            "train.dynamic_sampling",
            "algorithm.filter_groups.enable",
            train.dynamic_sampling > 0,
            "without a limit on attempts; what stays uniform is never trained on" if train.dynamic_sampling else "",
        ),
        VerlLine("train.dynamic_sampling", "algorithm.filter_groups.metric", "acc"),
    ]
    if prompts.stop:
        lines.append(VerlLine("train.tasks", f"{DRAW}.agent.agent_loop_config_path", "$HERE/agent_loop.yaml"))
        lines.append(
            VerlLine("train.tasks", f"{DRAW}.agent.default_agent_loop", "fspo", "ends a response at a stop text")
        )
    buffer = train.overlong_buffer
    if not buffer:
        return [*lines, VerlLine("train.overlong_buffer", "reward.reward_manager.name", "naive")]
    config = "+reward.reward_kwargs"
    return [
        *lines,
        VerlLine("train.overlong_buffer", "reward.reward_manager.name", "dapo"),
        VerlLine("train.overlong_buffer", f"{config}.max_resp_len", limit),
        VerlLine("train.overlong_buffer", f"{config}.overlong_buffer_cfg.enable", True),
        VerlLine("train.overlong_buffer", f"{config}.overlong_buffer_cfg.len", buffer),
        VerlLine("train.overlong_buffer", f"{config}.overlong_buffer_cfg.penalty_factor", 1.0),
        VerlLine("train.overlong_buffer", f"{config}.overlong_buffer_cfg.log", False),
    ]


def comparison_lines(config: CompareConfig, limit: int, prompts: Prompts) -> list[VerlLine]:
    """Seeds, evaluation, and what only the suite does with results."""
    chosen = config.evaluation
    rows = None if prompts.limited else chosen.limit
    tokens = "the same as in training" if chosen.max_new_tokens == limit else "verl evaluates with the training's limit"
    asked = "the same as in training" if chosen.chat == config.train.chat else "verl asks as in training"
    return [
        VerlLine("name", "trainer.experiment_name", f"{config.name}-$METHOD-seed$SEED"),
        VerlLine("name", "trainer.project_name", "fspo"),
        VerlLine("train.trackers", "trainer.logger", ("console", *config.train.trackers)),
        VerlLine("seeds", "data.seed", "$SEED", "noise and order are verl's own: runs of two methods share neither"),
        VerlLine("seeds", f"{ACTOR}.data_loader_seed", "$SEED"),
        VerlLine("seeds", f"{DRAW}.seed", "$SEED"),
        VerlLine("evaluation.tasks", "data.val_files", "$DATA/eval.parquet"),
        VerlLine("evaluation.tasks", "reward.custom_reward_function.path", "$HERE/compute_score.py"),
        VerlLine("evaluation.tasks", "reward.num_workers", REWARD_WORKERS),
        VerlLine("evaluation.samples", f"{DRAW}.val_kwargs.n", chosen.samples),
        VerlLine(
            "evaluation.limit",
            "data.val_max_samples",
            -1 if rows is None else rows,
            "" if rows is None else "of all sets together; ours is a limit for each",
        ),
        VerlLine("evaluation.limits", None, list(chosen.limits), "applied where the evaluation file is written"),
        VerlLine("evaluation.temperature", f"{DRAW}.val_kwargs.temperature", chosen.temperature),
        VerlLine("evaluation.temperature", f"{DRAW}.val_kwargs.do_sample", chosen.temperature > 0),
        VerlLine("evaluation.seed", None, chosen.seed, "rollout.seed is the training's"),
        VerlLine("evaluation.batch_size", None, chosen.batch_size, "rollout.max_num_seqs is the training's"),
        VerlLine("evaluation.max_new_tokens", None, chosen.max_new_tokens, tokens),
        VerlLine("evaluation.chat", None, chosen.chat, asked),
        VerlLine("evaluation", "trainer.val_before_train", True),
        VerlLine("evaluation", "trainer.test_freq", config.train.steps, "once, after the last step"),
        VerlLine("credit", None, config.credit, "the advantage rule of this script is already the one that it says"),
        VerlLine("train.portable", None, config.train.portable, "kernels of CPUs only"),
        VerlLine("train.probe_every", None, config.train.probe_every, "verl has no fixed probe set"),
        VerlLine("train.probe_problems", None, config.train.probe_problems, "verl has no fixed probe set"),
        VerlLine("train.probe_samples", None, config.train.probe_samples, "verl has no fixed probe set"),
        VerlLine("bootstrap", None, config.bootstrap, ANALYSIS),
        VerlLine("replay_seeds", None, config.replay_seeds, ANALYSIS),
        VerlLine("primary", None, config.primary, ANALYSIS),
    ]


def lines_of(
    config: CompareConfig, method: Method, limit: int, model: str, gpus: int, prompts: Prompts | None = None
) -> list[VerlLine]:
    """Every setting of one method's runs. `limit` is the token limit of a response, `model` a path or hub id.

    UserError for what verl refuses when it starts.
    """
    prompts = prompts or Prompts()
    responses = config.train.problems_per_step // config.train.mini_batches * config.train.samples_per_problem
    if responses % gpus:
        raise UserError(
            f"--gpus {gpus}: verl deals the {responses} responses of a mini-batch evenly to the devices; "
            f"take a divisor of {responses}"
        )
    changed = [option for option in config.options if option.partition(".")[0] == method.name]
    return [
        *comparison_lines(config, limit, prompts),
        *training_lines(config.train, method, limit, model, prompts),
        *loss_lines(method, changed, limit),
        *advantage_lines(method, config.train),
        VerlLine("--gpus", "trainer.n_gpus_per_node", gpus),
        VerlLine("--gpus", "trainer.nnodes", 1),
    ]
