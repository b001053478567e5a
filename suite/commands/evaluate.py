"""The command that evaluates one model, by ourselves or through lm-eval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from suite.commands.console import console
from suite.config import EvalConfig
from suite.experiments.names import EMBEDDED_TASKS
from suite.policy.loading import has_fast_bfloat16
from suite.types import OWN_PROBLEMS, UserError


def evaluate(
    model: str = "embedded",
    tasks: str | None = None,
    style: str | None = None,
    reward: str | None = None,
    data_dir: Path | None = None,
    limit: int | None = None,
    limits: str | None = None,
    samples: int = 4,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    chat: bool = False,
    seed: int = 0,
    precision: str | None = None,
    engine: str = "transformers",
    batch_size: int | None = None,
    through: str | None = None,
    lm_eval_native: bool = False,
    out: Path | None = None,
) -> None:
    """Evaluate one model: avg@k on every set with 95 % intervals. Run again to go on where it stopped.

    Args:
        model: embedded, smollm2, a local folder, a .gguf file or a hub id.
        tasks: Comma-separated evaluation sets, or files FILE.jsonl of your own; default the embedded ones.
        style: How your own files are asked: boxed (four examples with boxed answers; the default), worked, or plain.
        reward: Judge your own files by a function of yours, MODULE:NAME; a response is right from a reward of 1 on.
        data_dir: Folder of JSONL data sets; without it, real data sets come from the hub.
        limit: Use only the first problems of each set.
        limits: Limits of single sets, comma-separated: svamp=200,gsm8k=100.
        samples: Responses per problem.
        temperature: Sampling temperature; 0 takes the most likely token.
        max_new_tokens: Token limit instead of each task's own.
        chat: Ask through the chat template instead of few-shot prompts.
        seed: Seed of the decoding noise.
        precision: float32 or bfloat16; default float32 for the embedded model and without bfloat16 hardware.
        engine: What draws: transformers (in this process) or vllm. Their noise differs, so their samples do too.
        batch_size: Responses asked for at a time; default 512 for the embedded model, 256 with vllm, else 64.
        through: lm-eval: it asks and scores the same sets, and its numbers are shown beside ours.
        lm_eval_native: The same, and what lm-eval's own tasks say where it has them (their data come from the hub).
        out: Folder for the result and every sample; default results/runs/evaluate-MODEL-..., named by all of the above.
    """
    from suite.commands import evaluate_lm_eval, evaluate_model

    evaluate_lm_eval.require_way(through)
    config = EvalConfig(
        tasks=asked(EMBEDDED_TASKS if tasks is None else tasks.split(","), style, reward),
        samples=samples,
        limit=limit,
        limits=() if limits is None else tuple(limits.split(",")),
        seed=seed,
        temperature=temperature,
        batch_size=_side_by_side(model, engine) if batch_size is None else batch_size,
        max_new_tokens=max_new_tokens,
        chat=chat,
    )
    how = (model, config, precision or _fast_precision(model), engine, data_dir, out)
    if through or lm_eval_native:
        return evaluate_lm_eval.run_through_lm_eval(*how, lm_eval_native, console)
    evaluate_model.run_evaluation(*how, console)


def asked(tasks: Sequence[str], style: str | None, reward: str | None = None) -> tuple[str, ...]:
    """The tasks, files of the user's own with style and reward; UserError for one of these without a file."""
    own = [task.endswith(OWN_PROBLEMS) for task in tasks]
    if style is not None and not any(own):
        raise UserError("--style: it is for files of your own, --tasks FILE.jsonl; the sets have their own prompts")
    if reward is not None and (not any(own) or ":" not in reward):
        raise UserError(f"--reward {reward}: write MODULE:NAME, beside files of your own, --tasks FILE.jsonl")
    more = "".join(f"@{part}" for part in (style, reward) if part)
    return tuple(f"{task}{more}" if mine else task for task, mine in zip(tasks, own, strict=True))


def _fast_precision(model: str) -> str:
    """The precision where nobody says."""
    return "bfloat16" if has_fast_bfloat16() and model != "embedded" else "float32"


def _side_by_side(model: str, engine: str) -> int:
    """Responses that are asked for at a time where nobody says."""
    return 512 if model == "embedded" else 256 if engine == "vllm" else 64
