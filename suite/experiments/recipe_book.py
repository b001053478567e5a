"""The recipes, and where every setting of theirs comes from.

A recipe is a function that returns a complete config. The mapping below it says who chose what: the paper (arXiv
2509.09177), another study, or we. A setting that stands in no mapping has the suite's default. The paper's training
set, batch, rate, lengths and number of samples are not public: what fills them in is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tasks
from suite.config import FOLLOWS, MEAN, CompareConfig, EvalConfig, TrainConfig
from suite.experiments.names import PAPER_BASELINES
from suite.policy.loading import has_fast_bfloat16
from suite.types import task_name

Sources = Mapping[str, str]
"""Where settings come from, by their path, such as `train.steps`."""
OURS = "ours"
PAPER = "paper (arXiv 2509.09177)"
HISPO = "HISPO study"
DEFAULT = "default of the suite"
YOURS = "set by this recipe"
SEVEN = ("fspo", "fspo_zero_drift", "rloo", "grpo", "gspo", "gspo_wide", "ppo")
FIVE = ("ppo", "rloo", "grpo", "gspo", "fspo")
TRAINED = tuple(name for name in tasks.EMBEDDED_TASKS if tasks.TASKS[name].trainable)


def demo() -> CompareConfig:
    """Seven methods, three seeds, the embedded model and tasks, where clips act: behind `make demo` [ours]."""
    train = TrainConfig(
        TRAINED,
        steps=12,
        mini_batches=16,
        learning_rate=3e-4,
        max_new_tokens=96,
        tokens_per_micro_batch=4096,
        probe_every=5,
        portable=True,
    )
    return CompareConfig("demo", SEVEN, (10, 11, 12), train, EvalConfig(tasks.EMBEDDED_TASKS, batch_size=256))


DEMO: Sources = {
    "name": OURS,
    "methods": "ours: FSPO with and without drift, the paper's baselines RLOO, GRPO, GSPO, its wide range, and PPO",
    "seeds": "ours: fresh ones; 0 to 2 were used to choose the rate",
    "train.tasks": OURS,
    "train.steps": OURS,
    "train.mini_batches": "ours: with 16 updates a rollout the policy goes far enough for clips to act",
    "train.learning_rate": "ours: in probes (seeds 0 to 2) methods differ at 3e-4; at 1e-4 all lie within 1.3 points",
    "train.probe_every": OURS,
    "train.max_new_tokens": OURS,
    "train.tokens_per_micro_batch": OURS,
    "train.portable": "ours: a small model, whose results anybody can make again",
    "evaluation.tasks": OURS,
    "evaluation.batch_size": OURS,
}


def demo_large() -> CompareConfig:
    """The demo with ten seeds, 30 steps, and FSPO's variants and relatives [ours]. An hour and a half on two cores."""
    small = demo()
    return dataclasses.replace(
        small,
        name="demo-large",
        methods=(*SEVEN, "luspo", "ctpo", "fspo_asymmetric", "fspo_dual_clip"),
        seeds=tuple(range(10, 20)),
        train=dataclasses.replace(small.train, steps=30),
    )


DEMO_LARGE: Sources = {
    **DEMO,
    "methods": "ours: those of demo, FSPO's relatives LUSPO and CTPO, FSPO with two widths and with a dual clip",
}


def smoke() -> CompareConfig:
    """Two methods, one seed, three steps: does everything run? [ours]"""
    train = TrainConfig(TRAINED, steps=3, problems_per_step=8, mini_batches=4, checkpoint_every=1, portable=True)
    evaluation = EvalConfig(tasks.EMBEDDED_TASKS, samples=2, limit=12)
    return CompareConfig("smoke", ("grpo", "fspo"), (0,), train, evaluation)


SMOKE: Sources = dict.fromkeys(
    (
        "name",
        "methods",
        "seeds",
        "train.tasks",
        "train.steps",
        "train.problems_per_step",
        "train.mini_batches",
        "train.checkpoint_every",
        "train.portable",
        "evaluation.tasks",
        "evaluation.samples",
        "evaluation.limit",
    ),
    OURS,
)


def smollm2_svamp() -> CompareConfig:
    """SmolLM2-135M-Instruct on one-step word problems, few-shot prompts [ours]. Hours on a CPU; for a GPU."""
    train = TrainConfig(
        model="smollm2",
        tasks=("svamp",),
        steps=100,
        problems_per_step=4,
        samples_per_problem=8,
        mini_batches=4,
        learning_rate=2e-6,
        sampling_batch_size=64,
        tokens_per_micro_batch=4096,
        precision="bfloat16" if has_fast_bfloat16() else "float32",
    )
    evaluation = EvalConfig(tasks=("svamp",), samples=4, limit=16, batch_size=64)
    return CompareConfig("smollm2-svamp", FIVE, (0, 1, 2), train, evaluation)


SMOLLM2: Sources = dict.fromkeys(
    (
        "name",
        "methods",
        "seeds",
        "train.model",
        "train.tasks",
        "train.steps",
        "train.problems_per_step",
        "train.samples_per_problem",
        "train.mini_batches",
        "train.learning_rate",
        "train.sampling_batch_size",
        "train.tokens_per_micro_batch",
        "evaluation.tasks",
        "evaluation.samples",
        "evaluation.limit",
        "evaluation.batch_size",
    ),
    OURS,
) | {"train.precision": "ours: bfloat16 where this machine multiplies it in hardware"}


def smollm2_gsm8k() -> CompareConfig:
    """SmolLM2-135M-Instruct on grade-school word problems of several steps [ours]. For a GPU; it solves few of them."""
    base = smollm2_svamp()
    train = dataclasses.replace(base.train, tasks=("gsm8k",), problems_per_step=16)
    evaluation = dataclasses.replace(base.evaluation, tasks=("gsm8k",), limit=128)
    return dataclasses.replace(base, name="smollm2-gsm8k", train=train, evaluation=evaluation)


def smollm2_words() -> CompareConfig:
    """SmolLM2-135M-Instruct on generated word problems: FSPO and the paper's baselines [ours]. Ten hours on two cores.

    svamp and gsm8k, which it is also evaluated on, come from the hub or from --data-dir.
    """
    train = TrainConfig(
        model="smollm2",
        tasks=("word_problems",),
        steps=25,
        problems_per_step=8,
        samples_per_problem=8,
        mini_batches=8,
        learning_rate=3e-6,
        sampling_batch_size=64,
        tokens_per_micro_batch=2048,
    )
    evaluation = EvalConfig(
        tasks=("word_problems", "word_problems_long", "svamp", "gsm8k"),
        samples=4,
        limits=("word_problems_long=100", "svamp=200", "gsm8k=200"),
        batch_size=512,
        max_new_tokens=128,
    )
    methods = ("fspo", "fspo_zero_drift", "rloo", "grpo", "gspo", "gspo_wide")
    return CompareConfig("smollm2-words", methods, tuple(range(6)), train, evaluation, primary="word_problems")


SMOLLM2_WORDS: Sources = {
    **{path: source for path, source in SMOLLM2.items() if path not in ("train.precision", "evaluation.limit")},
    "evaluation.limits": OURS,
    "evaluation.max_new_tokens": OURS,
    "methods": "ours: FSPO with and without drift, and the paper's baselines, GSPO at both of its ranges",
    "seeds": "ours: fresh ones; the rate was chosen with seed 900",
    "primary": "ours: the set whose training problems the runs see",
    "train.learning_rate": "ours: by a rule that was written before its pilot (results/LOG.md)",
}


def qwen3_1_7b_dapo() -> CompareConfig:
    """The paper's smaller model on DAPO-Math-17k, with the paper's baselines and sets; all other settings [ours]."""
    train = TrainConfig(
        model="Qwen/Qwen3-1.7B-Base",
        tasks=("dapo_math_17k",),
        steps=200,
        problems_per_step=64,
        mini_batches=8,
        learning_rate=1e-6,
        warmup_updates=80,
        schedule="constant_with_warmup",
        max_new_tokens=4096,
        tokens_per_micro_batch=8192,
        activation_checkpointing=True,
        precision="bfloat16",
        sampler="vllm",
    )
    evaluation = EvalConfig(tasks=("math500", "aime24", "aime25"), samples=8, max_new_tokens=4096)
    methods, seeds = ("rloo", "grpo", "gspo", "fspo", "fspo_zero_drift"), (0, 1, 2)
    return CompareConfig("qwen3-1.7b-dapo", methods, seeds, train, evaluation, primary="math500")


QWEN3: Sources = {
    "name": OURS,
    "methods": PAPER,
    "seeds": OURS,
    "primary": "ours: AIME's 30 problems alone have a standard error of 8 points",
    "train.model": PAPER,
    "train.tasks": "ours: the training set is not public",
    "train.steps": OURS,
    "train.problems_per_step": OURS,
    "train.mini_batches": "ours: at least 4 updates a rollout, or no clip acts",
    "train.learning_rate": OURS,
    "train.warmup_updates": OURS,
    "train.schedule": OURS,
    "train.max_new_tokens": OURS,
    "train.tokens_per_micro_batch": OURS,
    "train.activation_checkpointing": "ours: less memory for about a third more work",
    "train.precision": OURS,
    "train.sampler": OURS,
    "evaluation.tasks": PAPER,
    "evaluation.samples": OURS,
    "evaluation.max_new_tokens": OURS,
}


def qwen3_8b_dapo() -> CompareConfig:
    """The paper's larger model, where it reports the largest gains; settings as for the smaller one [ours].

    Weights, gradients and AdamW's moments in float32 take 131 GB: more than one device has. --set train.lora_rank=32
    trains adapters instead.
    """
    base = qwen3_1_7b_dapo()
    return dataclasses.replace(
        base, name="qwen3-8b-dapo", train=dataclasses.replace(base.train, model="Qwen/Qwen3-8B-Base")
    )


def hispo_1_7b() -> CompareConfig:
    """The published small-budget study, for one GPU of 32 GB: rank-1 adapters, 4 updates a rollout, acc@8.

    The study trains on the MATH training set, which the suite does not have: numbers beside its own are near
    relatives, not a reproduction.
    """
    train = TrainConfig(
        model="Qwen/Qwen3-1.7B-Base",
        tasks=("dapo_math_17k",),
        steps=100,
        problems_per_step=32,
        mini_batches=4,
        learning_rate=2e-5,
        lora_rank=1,
        max_new_tokens=4096,
        sampling_batch_size=128,
        tokens_per_micro_batch=8192,
        activation_checkpointing=True,
        precision="bfloat16",
        sampler="vllm",
    )
    evaluation = EvalConfig(tasks=("math500", "aime24", "aime25"), samples=8, max_new_tokens=4096, batch_size=128)
    return CompareConfig("hispo-1.7b", ("grpo", "gspo", "fspo"), (0, 1, 2), train, evaluation, primary="math500")


HISPO_1_7B: Sources = {
    "name": OURS,
    "methods": f"{HISPO} for GRPO and GSPO, with the ranges of our cards; FSPO is added by us",
    "seeds": OURS,
    "primary": "ours: AIME's 30 problems alone have a standard error of 8 points",
    "train.model": HISPO,
    "train.tasks": "ours, in place of the study's MATH training set",
    "train.steps": OURS,
    "train.problems_per_step": OURS,
    "train.mini_batches": f"{HISPO}: 4 updates a rollout; as mini-batches of one epoch is our reading",
    "train.learning_rate": "ours: about ten times that of full training",
    "train.lora_rank": HISPO,
    "train.lora_alpha": OURS,
    "train.lora_targets": OURS,
    "train.max_new_tokens": f"{HISPO}: 512 / 4,096 tokens, read by us as prompt / response; the suite cuts no prompt",
    "train.sampling_batch_size": OURS,
    "train.tokens_per_micro_batch": OURS,
    "train.activation_checkpointing": "ours: less memory for about a third more work",
    "train.precision": OURS,
    "train.sampler": OURS,
    "evaluation.tasks": HISPO,
    "evaluation.samples": f"{HISPO}: acc@8, read by us as avg@8",
    "evaluation.max_new_tokens": f"{HISPO}: as in training",
    "evaluation.temperature": OURS,
    "evaluation.batch_size": OURS,
}

RECIPES: dict[str, Callable[[], CompareConfig]] = {
    "demo": demo,
    "demo-large": demo_large,
    "smoke": smoke,
    "smollm2-svamp": smollm2_svamp,
    "smollm2-gsm8k": smollm2_gsm8k,
    "smollm2-words": smollm2_words,
    "qwen3-1.7b-dapo": qwen3_1_7b_dapo,
    "qwen3-8b-dapo": qwen3_8b_dapo,
    "hispo-1.7b": hispo_1_7b,
}
SOURCES: dict[str, Sources] = {
    "demo": DEMO,
    "demo-large": DEMO_LARGE,
    "smoke": SMOKE,
    "smollm2-svamp": SMOLLM2,
    "smollm2-gsm8k": SMOLLM2,
    "smollm2-words": SMOLLM2_WORDS,
    "qwen3-1.7b-dapo": QWEN3,
    "qwen3-8b-dapo": QWEN3,
    "hispo-1.7b": HISPO_1_7B,
}
PUBLISHED: dict[str, dict[tuple[str, str], tuple[float, str]]] = {
    "hispo-1.7b": {
        ("grpo", "math500"): (64.70, f"{HISPO}, acc@8"),
        ("grpo", "aime24"): (5.42, f"{HISPO}, acc@8"),
        ("grpo", "aime25"): (4.58, f"{HISPO}, acc@8"),
        ("gspo", "math500"): (65.55, f"{HISPO}, acc@8"),
        ("gspo", "aime24"): (5.42, f"{HISPO}, acc@8"),
        ("gspo", "aime25"): (5.83, f"{HISPO}, acc@8"),
    },
}
"""Public numbers by recipe, then by (method, set): per cent, and whose. FSPO's paper has published none."""


def recipe_settings(config: CompareConfig) -> dict[str, object]:
    """Every setting of a comparison by its path: `methods`, `train.steps`, `train.vllm.sleep` and their like."""
    return dict(_settings_in(config, ""))


def _settings_in(section: Any, prefix: str) -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(section):
        value, path = getattr(section, field.name), prefix + field.name
        yield from _settings_in(value, f"{path}.") if dataclasses.is_dataclass(value) else [(path, value)]


def provenance(config: CompareConfig) -> dict[str, str]:
    """Where each setting comes from, every setting of `recipe_settings` in its order.

    A recipe of one's own has no sources: what differs from the suite's default is its author's.
    """
    followed = {path: f"follows {other}" for path, other in FOLLOWS.items()}
    sources = {**_set_by_the_author(config), **followed, **SOURCES.get(config.name, {})}
    return {path: sources.get(path, DEFAULT) for path in recipe_settings(config)}


def _set_by_the_author(config: CompareConfig) -> dict[str, str]:
    """The settings of a recipe outside this book that are not the suite's defaults."""
    if config.name in SOURCES:
        return {}
    least = CompareConfig(
        "", config.methods, config.seeds, TrainConfig(config.train.tasks), EvalConfig(config.evaluation.tasks)
    )
    own, default = recipe_settings(config), recipe_settings(least)
    required = ("methods", "seeds", "train.tasks", "evaluation.tasks")
    return {path: YOURS for path, value in own.items() if path in required or value != default[path]}


def title_of(name: str) -> str:
    """What a recipe is, in one line; a recipe of one's own has only its name."""
    build = RECIPES.get(name)
    return f"{name}: a recipe of one's own" if build is None else (build.__doc__ or "").strip().split("\n", 1)[0]


def published(name: str) -> Mapping[tuple[str, str], tuple[float, str]]:
    """Public numbers to set beside a recipe's: (method, set) to (per cent, whose); empty for other names."""
    return PUBLISHED.get(name, {})


def primary_sentence(config: CompareConfig) -> str:
    """The primary outcome in words, as it is declared before the run."""
    sets = ", ".join(map(task_name, config.evaluation.tasks))
    several = len(config.evaluation.tasks) > 1
    what = config.primary if config.primary != MEAN else f"the mean over {sets}" if several else sets
    rivals = ", ".join(name for name in PAPER_BASELINES if name in config.methods)
    return (
        f"Primary outcome: avg@{config.evaluation.samples} on {what}, FSPO against each of the paper's baselines"
        f"{f' ({rivals})' if rivals else ''}."
    )
