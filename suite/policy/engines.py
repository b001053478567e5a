"""The engines that draw responses, by name."""

from __future__ import annotations

from typing import Any

import torch

from suite.config import VllmConfig
from suite.policy.ranks import ranks_here
from suite.policy.sampling import HalfPrecisionSampler, Sampler, TransformersSampler
from suite.policy.vllm_engine import require_fitting, require_vllm
from suite.policy.vllm_sampler import PRECISIONS, VllmSampler
from suite.types import Policy, UserError

ENGINES = ("transformers", "vllm")


def require_engine(engine: str, precision: str = "float32", vllm: VllmConfig | None = None) -> None:
    """UserError where that engine or precision is unknown or not installed, or no vLLM can be started as `vllm` says.

    Asked before anything heavy is loaded.
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision!r}: float32 or bfloat16")
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine!r}; there are: {', '.join(ENGINES)}")
    if engine == "vllm":
        require_vllm()
        require_fitting(vllm or VllmConfig(), ranks_here().count)


def sampler_for(
    engine: str, model: Policy, tokenizer: Any, precision: str, side_by_side: int, vllm: VllmConfig | None = None
) -> Sampler:
    """A sampler of that engine and precision, which follows the model's weights as they change.

    Without a `vllm` of a training run nobody else wants the engine's memory: it stays awake. vLLM draws on the device
    that it finds by itself, a GPU where it was built for one (under torchrun the process's own); the in-process sampler
    draws where the model is.
    """
    require_engine(engine, vllm=vllm)
    if engine == "vllm":
        dtype = "bfloat16" if precision == "bfloat16" else "float32"
        return VllmSampler(model, tokenizer, vllm or VllmConfig(dtype, side_by_side, sleep=False), ranks_here())
    if precision == "bfloat16" and model.dtype != torch.bfloat16:
        return HalfPrecisionSampler(model, tokenizer)
    return TransformersSampler(model, tokenizer)
