"""What can be set. Frozen dataclasses with a sentence under each field; impossible values are refused when built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from suite.types import require, task_name

MEAN = "mean"
"""The primary outcome that is the mean over the evaluation sets."""
OWN_CREDIT = "own"
"""The rule of `CompareConfig.credit` that leaves every method its own advantages."""
CHECKPOINT_RULE = "Every run is evaluated once, after its last step: the best of several checkpoints is not offered."
FOLLOWS = {"train.vllm.dtype": "train.precision", "train.vllm.side_by_side": "train.sampling_batch_size"}
"""Settings that nobody gives, and the setting that each is equal to."""
RECORDED = "recorded"
"""In a field's metadata, False: the setting is no part of results and folders, whatever it says."""
PROTOCOL = 1
"""Version of what the results mean; folders of another protocol are never mixed with this one's."""

MOST = 10**9
"""No count is larger: beyond it a wrong number is likelier than a wish."""
MOST_SAMPLES = 10**5
SEEDS = 2**32


def require_bounded(settings: Any) -> None:
    """UserError for a field of a dataclass that is an infinite number, none at all, or a count above `MOST`."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        require(not isinstance(value, float) or math.isfinite(value), settings, field.name, "a finite number")
        require(
            not isinstance(value, int) or value <= MOST or "seed" in field.name, settings, field.name, "at most 1e9"
        )


def require_temperature(settings: Any) -> None:
    """UserError unless the field `temperature` is one that float32 divides logits by, or 0.

    vLLM raises temperatures between 0 and .01 to it, without saying so in its output.
    """
    sound = settings.temperature == 0 or 0.01 <= settings.temperature <= 100
    require(sound, settings, "temperature", "0 (the most likely token), or from 0.01 to 100")


def is_seed(value: int) -> bool:
    """Whether a number can be a seed: 0 or more, below 2^32, as numpy, torch and vLLM take them."""
    return 0 <= value < SEEDS


@dataclass(frozen=True)
class VllmConfig:
    """How a vLLM engine runs. None of it changes what is drawn, except `dtype` and rounding."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and arithmetic; log-probs are float32. In a training run it is `train.precision`."""
    side_by_side: int = 256
    """Most responses drawn at once, whatever `SamplingSettings.batch_size` is. In a training run it is
    `train.sampling_batch_size`."""
    prefix_caching: bool = True
    """Keep keys and values of prompt starts for later prompts; forgotten whenever the weights change."""
    compiled: bool | None = None
    """Compile the model and decode with CUDA graphs: a longer start, faster decoding. None: on a GPU, not on a CPU."""
    kv_cache_gib: int = 2
    """CPU only: room for keys and values, in GiB."""
    tensor_parallel_size: int = 1
    """GPU only: devices that share the model. More than 1 for a single process alone, not under torchrun."""
    gpu_memory_utilization: float = 0.45
    """GPU only: share of a device's memory for the engine; the trainer needs the rest."""
    sleep: bool | None = None
    """GPU only: give weights and cache back to the trainer between two calls. None: on a GPU, not on a CPU."""

    def __post_init__(self) -> None:
        require_bounded(self)
        for field in ("side_by_side", "kv_cache_gib", "tensor_parallel_size"):
            require(getattr(self, field) >= 1, self, field, "at least 1")
        require(0 < self.gpu_memory_utilization <= 1, self, "gpu_memory_utilization", "above 0 and at most 1")


@dataclass(frozen=True)
class TrainConfig:
    """One training run, the same for every method of a comparison."""

    tasks: tuple[str, ...]
    """Training problems come from these tasks' train splits."""
    model: str = "embedded"
    """`embedded`, `smollm2`, a local folder, a .gguf file or a hub id."""
    data_dir: Path | None = None
    """Folder of JSONL data sets; without it, real data sets come from the hub."""
    steps: int = 30
    """Rollout steps: each samples, grades, and updates several times."""
    problems_per_step: int = 16
    """Distinct problems in a rollout step."""
    samples_per_problem: int = 8
    """Responses drawn for each problem: the group that advantages are taken in."""
    mini_batches: int = 8
    """Parts that a rollout step is split into; each part gives one optimizer step an epoch."""
    epochs: int = 1
    """Passes over a rollout step. Updates per rollout = mini_batches x epochs."""
    learning_rate: float = 5e-5
    """AdamW's peak rate."""
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    """Shape of the learning rate over the optimizer steps (names of transformers.get_scheduler)."""
    warmup_updates: int = 0
    """Optimizer steps over which the rate rises from 0."""
    weight_decay: float = 0.0
    """AdamW's decoupled decay."""
    max_grad_norm: float = 1.0
    """The gradient's norm is cut to this; the norm before the cut is logged."""
    kl_coefficient: float = 0.0
    """Weight of KL(policy || start) per token (estimator k3), the same for every method; 0 leaves it out."""
    max_new_tokens: int | None = None
    """Token limit of a response; None takes the largest limit of the tasks."""
    dynamic_sampling: int = 0
    """Times that a step replaces problems whose responses are all right or all wrong by fresh ones (DAPO); 0: off."""
    overlong_buffer: int = 0
    """Tokens before the limit over which a response's reward falls by up to 1 (DAPO's soft penalty); 0: off."""
    chat: bool = False
    """Ask through the tokenizer's chat template instead of the task's own few-shot prompt."""
    sampling_batch_size: int = 256
    """Responses drawn side by side."""
    tokens_per_micro_batch: int = 16384
    """Most tokens in one forward and backward pass (a longer response gets its own); changes memory, not results."""
    activation_checkpointing: bool = False
    """Keep only every layer's input and compute the rest again in the backward pass: less memory, a third more work."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute precision; weights, log-softmax and sums stay float32 (bfloat16 is autocast)."""
    float32_head: bool = False
    """In bfloat16, multiply by the output head in float32: less noise in log-probs, a slower head."""
    sampler: Literal["transformers", "vllm", "auto"] = "transformers"
    """What draws responses, in training and in the evaluation after it; old log-probs are the trainer's either way.
    auto: the engine that draws more tokens per second, measured before the first cell, the same for all cells."""
    vllm: VllmConfig = VllmConfig()
    """How vLLM runs where it draws: `--set train.vllm.FIELD=value`; `dtype` and `side_by_side` follow from the rest."""
    deterministic: bool = False
    """Only deterministic algorithms, and a cuBLAS workspace of fixed size: slower, the same bits again on one GPU."""
    portable: bool = False
    """CPU only: kernels that every x86-64 processor since AVX2 has, on one thread: another machine repeats the bits."""
    lora_rank: int = 0
    """Rank of the low-rank adapters that are trained in place of the weights (needs peft); 0 trains all weights."""
    lora_alpha: float = 32.0
    """Adapters count alpha / rank times."""
    lora_targets: str = "all-linear"
    """Layers with adapters: `all-linear` (all but the head), or names such as `q_proj,v_proj`."""
    checkpoint_every: int = 5
    """Rollout steps between checkpoints."""
    probe_every: int = 0
    """Rollout steps between probes: the policy answers the same problems with the same noise, whatever method and seed,
    and learns nothing from it, so that the curve shows the policy and not which problems a step drew; 0: none."""
    probe_problems: int = 32
    """Problems of a probe, evenly spread over the training problems."""
    probe_samples: int = 4
    """Responses to each problem of a probe."""
    overlap: Literal["exclude", "refuse"] = "exclude"
    """Training problems that also stand in an evaluation set of the comparison: left out and counted, or refused."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = dataclasses.field(
        default=("tensorboard",), metadata={RECORDED: False}
    )
    """Where the numbers of metrics.jsonl also go while a run trains. No part of a result: a resumed run may differ."""

    def __post_init__(self) -> None:
        require_bounded(self)
        for field in ("steps", "problems_per_step", "mini_batches", "epochs", "checkpoint_every"):
            require(getattr(self, field) >= 1, self, field, "at least 1")
        for field in ("sampling_batch_size", "tokens_per_micro_batch"):
            require(getattr(self, field) >= 1, self, field, "at least 1")
        require(self.probe_every >= 0, self, "probe_every", "0 or more")
        require(self.probe_problems >= 1, self, "probe_problems", "at least 1")
        require(self.probe_samples >= 1, self, "probe_samples", "at least 1")
        grouped = 2 <= self.samples_per_problem <= MOST_SAMPLES
        require(grouped, self, "samples_per_problem", f"2 (advantages need a group) to {MOST_SAMPLES}")
        require(0 < self.learning_rate < 1, self, "learning_rate", "between 0 and 1")
        require(self.max_grad_norm > 0, self, "max_grad_norm", "positive")
        require(self.kl_coefficient >= 0, self, "kl_coefficient", "0 or more")
        require(self.weight_decay >= 0, self, "weight_decay", "0 or more")
        require(self.warmup_updates >= 0, self, "warmup_updates", "0 or more")
        require(self.lora_rank >= 0, self, "lora_rank", "0 or more")
        require(self.lora_alpha > 0, self, "lora_alpha", "positive")
        require(all(self.lora_targets.split(",")), self, "lora_targets", "all-linear, or names of layers")
        require(self.dynamic_sampling >= 0, self, "dynamic_sampling", "0 or more")
        require(self.overlong_buffer >= 0, self, "overlong_buffer", "0 or more tokens")
        short = self.max_new_tokens is None or self.overlong_buffer <= self.max_new_tokens
        require(short, self, "overlong_buffer", "at most max_new_tokens")
        require(self.max_new_tokens is None or self.max_new_tokens >= 1, self, "max_new_tokens", "at least 1")
        require(len(self.tasks) > 0, self, "tasks", "at least one task")
        require(len(set(map(task_name, self.tasks))) == len(self.tasks), self, "tasks", "distinct")
        require(len(set(self.trackers)) == len(self.trackers), self, "trackers", "distinct")
        fits = self.mini_batches <= self.problems_per_step * self.samples_per_problem
        require(fits, self, "mini_batches", "at most problems_per_step x samples_per_problem")

        derived = replace(self.vllm, dtype=self.precision, side_by_side=self.sampling_batch_size)
        object.__setattr__(self, "vllm", derived)  # the way of a frozen dataclass to fill in what follows from the rest

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer steps on each rollout; with 1 every ratio is 1 and no clip acts."""
        return self.mini_batches * self.epochs


@dataclass(frozen=True)
class EvalConfig:
    """How a model is evaluated; the decoding noise is a function of `seed`, problem and sample, whatever the method."""

    tasks: tuple[str, ...]
    """Evaluation sets."""
    samples: int = 4
    """Responses per problem: accuracy is avg@samples."""
    limit: int | None = None
    """Use only the first `limit` problems of each set."""
    seed: int = 0
    """Seed of the decoding noise."""
    temperature: float = 1.0
    """Sampling temperature."""
    batch_size: int = 512
    """Responses drawn side by side."""
    max_new_tokens: int | None = None
    """Token limit of a response; None takes each task's own."""
    chat: bool = False
    """Ask through the tokenizer's chat template instead of the task's own few-shot prompt."""
    limits: tuple[str, ...] = ()
    """Limits of single sets in the place of `limit`, each TASK=N."""

    def __post_init__(self) -> None:
        require(len(self.tasks) > 0, self, "tasks", "at least one task")
        require(len(set(map(task_name, self.tasks))) == len(self.tasks), self, "tasks", "distinct")
        require(1 <= self.samples <= MOST_SAMPLES, self, "samples", f"at least 1, at most {MOST_SAMPLES}")
        require(is_seed(self.seed), self, "seed", "0 or more, below 2^32")
        require(self.limit is None or self.limit >= 1, self, "limit", "at least 1")
        for one in self.limits:
            name, _, count = one.partition("=")
            good = name in map(task_name, self.tasks) and count.isascii() and count.isdigit() and int(count) >= 1
            require(good, self, "limits", "TASK=N each, of evaluation tasks and whole numbers of at least 1")
        require_temperature(self)
        require(self.batch_size >= 1, self, "batch_size", "at least 1")
        require(self.max_new_tokens is None or self.max_new_tokens >= 1, self, "max_new_tokens", "at least 1")
        require_bounded(self)

    @property
    def single_limits(self) -> dict[str, int]:
        """`limits` by the name of the task."""
        return {name: int(count) for name, count in (one.split("=") for one in self.limits)}

    def limit_of(self, task: str) -> int | None:
        """How many of a set's problems are used at most; None for all of them."""
        return self.single_limits.get(task, self.limit)


@dataclass(frozen=True)
class CompareConfig:
    """A comparison: the same training and evaluation for every method and seed."""

    name: str
    """The recipe's name."""
    methods: tuple[str, ...]
    """Methods to compare."""
    seeds: tuple[int, ...]
    """Training seeds; every method runs with each."""
    train: TrainConfig
    """Training, shared by all cells."""
    evaluation: EvalConfig
    """Evaluation, shared by all cells and the base model."""
    options: tuple[str, ...] = ()
    """Hyper-parameters set apart from their defaults, each as `method.field=value`."""
    bootstrap: int = 10_000
    """Bootstrap repetitions behind every interval."""
    replay_seeds: int | None = None
    """Replays (who is clipped, LRE) read the update logs of the first so many seeds; None: of all."""
    primary: str = MEAN
    """The outcome that a claim is about, declared before the run: one evaluation set, or `mean` over all of them."""
    credit: Literal["standardised", "leave_one_out", "own"] = "standardised"
    """From rewards to advantages: one rule for all methods without a critic, so that it does not confound the losses,
    or every method's own."""

    def __post_init__(self) -> None:
        require_bounded(self)
        require(len(self.methods) > 0, self, "methods", "at least one method")
        require(len(set(self.methods)) == len(self.methods), self, "methods", "distinct")
        require(len(self.seeds) > 0, self, "seeds", "at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), self, "seeds", "distinct")
        require(all(map(is_seed, self.seeds)), self, "seeds", "0 or more, below 2^32")
        require(self.bootstrap >= 100, self, "bootstrap", "at least 100")
        require(self.replay_seeds is None or self.replay_seeds >= 1, self, "replay_seeds", "at least 1")
        sets = [*map(task_name, self.evaluation.tasks)]
        require(self.primary in (MEAN, *sets), self, "primary", f"{MEAN} or one of {', '.join(sets)}")

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """The tasks of training and evaluation, each once, as they are named."""
        return tuple(dict.fromkeys((*self.train.tasks, *self.evaluation.tasks)))

    @property
    def replayed(self) -> tuple[int, ...]:
        """The seeds whose update logs replays read."""
        return self.seeds[: self.replay_seeds]


def plain_data(config: Any) -> Mapping[str, Any]:
    """A config as plain JSON data, without what is not recorded: tuples become lists, paths strings."""

    def convert(value: Any) -> Any:
        if is_dataclass(value):
            return {f.name: convert(getattr(value, f.name)) for f in fields(value) if f.metadata.get(RECORDED, True)}
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return [convert(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return convert(config)


def restored(content: Mapping[str, Any]) -> CompareConfig:
    """The CompareConfig that `plain_data` wrote; KeyError or TypeError for anything else."""
    evaluation = EvalConfig(**_tuples(content["evaluation"]))
    train = restored_training(content["train"])
    credit = content.get("credit", OWN_CREDIT)  # a comparison from before there was one rule for all
    return CompareConfig(**{**_tuples(content), "train": train, "evaluation": evaluation, "credit": credit})


def restored_training(content: Mapping[str, Any]) -> TrainConfig:
    """The TrainConfig that `plain_data` wrote; KeyError or TypeError for anything else."""
    train = _tuples(content)
    train["data_dir"] = None if train["data_dir"] is None else Path(train["data_dir"])
    train["vllm"] = VllmConfig(**train.get("vllm", {}))
    return TrainConfig(**train)


def _tuples(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}
