"""The engines that draw responses, by name."""

from __future__ import annotations

from typing import Any

import torch

from suite.config import VllmConfig
from suite.ranks import ranks_here
from suite.sampling import HalfPrecisionSampler, Sampler, TransformersSampler
from suite.types import UserError
from suite.vllm_sampler import VllmSampler, require_vllm

ENGINES = ("transformers", "vllm")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def require_engine(engine: str, precision: str = "float32") -> None:
    """UserError where that engine or precision is unknown, not installed or not for several processes that share a run.

    Asked before anything heavy is loaded.
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision!r}: float32 or bfloat16")
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine!r}; there are: {', '.join(ENGINES)}")
    if engine == "vllm":
        if ranks_here().count > 1:
            raise UserError("sampler vllm draws for one process; under torchrun use train.sampler=transformers")
        require_vllm()


def sampler_for(engine: str, model: Any, tokenizer: Any, precision: str, side_by_side: int) -> Sampler:
    """A sampler of that engine and precision, which follows the model's weights as they change.

    On a GPU vLLM sleeps between two calls, so that a trainer in this process has the memory.
    """
    require_engine(engine)
    if engine == "vllm":
        dtype = "bfloat16" if precision == "bfloat16" else "float32"
        on_gpu = torch.cuda.is_available()
        return VllmSampler(model, tokenizer, VllmConfig(dtype, side_by_side, sleep=on_gpu))
    if precision == "bfloat16" and model.dtype != torch.bfloat16:
        return HalfPrecisionSampler(model, tokenizer)
    return TransformersSampler(model, tokenizer)
