"""Models and tokenizers from wherever they are: the embedded one, a folder, a GGUF file, the hub."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from suite.policy.model_folders import check_sums
from suite.policy.packed_attention import NO_MASK, PACKED, Packing
from suite.types import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_KNOWN = "embedded, smollm2, a model folder, a .gguf file, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct"
_PLAIN = "a plain causal decoder such as Llama, Qwen2 or Qwen3"


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready to sample and to score, with the names of what exactly it is."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    reference: str
    digest: str
    tokenizer_digest: str


def load_model(
    reference: str, *, dtype: torch.dtype, device: torch.device | str, embedded_folder: Path | None = None
) -> LoadedModel:
    """The model that a reference names, in evaluation mode, with a pad token and a checked scoring path.

    `reference` is "embedded" (in `embedded_folder`), a folder in the Hugging Face
    layout, a `.gguf` file or a hub id. Code that comes with a model is never run, and no pickle is read.

    UserError: nothing there, broken or incomplete files, an architecture that is no plain causal decoder.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source, options = locate(reference, embedded_folder)
    if options:
        check_sums(Path(source))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader's progress bar has no switch
            options = {**options, "trust_remote_code": False}
            weights = {} if "gguf_file" in options else {"use_safetensors": True}  # the older files are pickles
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype,
                attn_implementation=PACKED,
                output_loading_info=True,
                **options,
                **weights,
            )
    except Exception as error:  # what broken files make of the loaders of three libraries
        raise _does_not_load(reference, source, error) from None
    model: Any = loaded[0]
    report = loaded[1]
    if report["missing_keys"]:
        some = ", ".join(sorted(report["missing_keys"])[:3])
        raise UserError(f"model {reference!r}: weights missing from {source} ({some}); get the complete files")
    if "gguf_file" in options:
        model = _without_quantization(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    _check_finite(model, reference)
    model = model.to(device).eval()
    _check_scoring_path(model, reference)
    return LoadedModel(model, tokenizer, reference, model_digest(model), tokenizer_digest(tokenizer))


def _does_not_load(reference: str, source: str, error: Exception) -> UserError:
    reason = str(error).strip().split("\n", 1)[0][:300]
    where = f"the hub, and no folder {source} is here" if is_hub_id(source) else source
    return UserError(f"model {reference!r} does not load from {where} ({reason}); use {_KNOWN}")


def load_tokenizer(reference: str, folder: Path) -> tuple[Any, int | None]:
    """The tokenizer in a model's folder, and the model's context in tokens as its config has it; without the weights.

    UserError: files that do not load.
    """
    transformers_logging.set_verbosity_error()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        return tokenizer, context_of(AutoConfig.from_pretrained(folder, **options))
    except Exception as error:  # what broken files make of the loaders of two libraries
        raise _does_not_load(reference, str(folder), error) from None


def context_of(config: Any) -> int | None:
    """The most tokens of a prompt and its response together; None where the model's config has no bound."""
    return getattr(config, "max_position_embeddings", None)


def is_hub_id(reference: str) -> bool:
    """Whether a reference to a model names one on the hub: in the form of a hub id, and no path here."""
    return _HUB_ID.fullmatch(reference) is not None and not Path(reference).expanduser().exists()


def has_fast_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware; on a CPU without it float32 is several times faster."""
    return torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()


def model_digest(model: torch.nn.Module) -> str:
    """The sha256 of all weights: over name, dtype, shape and bytes of every state-dict entry, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """The sha256 of what turns text into ids: the tokenizer's own definition, its special tokens and chat template.

    Padding and truncation are left out: they are settings of a call, and calls change them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        definition: dict[str, Any] = tokenizer.get_vocab()
    else:
        definition = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    record = [definition, special, getattr(tokenizer, "chat_template", None)]
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def locate(reference: str, embedded_folder: Path | None) -> tuple[str, dict[str, Any]]:
    """Where transformers finds the model: a folder or hub id, and the options that it needs there.

    UserError where the reference can be neither.
    """
    if reference == "embedded":
        if embedded_folder is None or not (embedded_folder / "config.json").is_file():
            raise UserError(
                f"model 'embedded': no model in {embedded_folder}; rebuild it with `fspo model build-embedded`"
            )
        return str(embedded_folder), {"local_files_only": True}
    path = Path(reference).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return str(path.parent), {"gguf_file": path.name, "local_files_only": True}
    if reference and path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"model {reference!r}: the folder has no config.json; give a folder from save_pretrained")
        return str(path), {"local_files_only": True}
    if path.is_file():
        raise UserError(f"model {reference!r}: a file that is no model; use {_KNOWN}")
    if path.suffix == ".gguf" or not _HUB_ID.fullmatch(reference):
        raise UserError(f"model {reference!r}: no such model or path, seen from {Path.cwd()}; use {_KNOWN}")
    return reference, {}


def _without_quantization(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model whose config does not claim to be quantized: only such a model can be saved."""
    config = type(model.config).from_dict(
        {name: value for name, value in model.config.to_dict().items() if name != "quantization_config"}
    )
    with torch.random.fork_rng(devices=[]):  # the fresh weights are overwritten; the caller's generator must not notice
        plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype, attn_implementation=PACKED)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain


def _check_finite(model: Any, reference: str) -> None:
    """UserError, which names one, for weights that are NaN or infinite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"model {reference!r}: weights that are NaN or infinite, in {name}; get sound files")


@torch.inference_mode()
def _check_scoring_path(model: Any, reference: str) -> None:
    """UserError unless logits = output embedding of the last hidden state, which scoring by chunks relies on."""
    kind = type(model).__name__
    try:
        vocabulary = model.get_input_embeddings().weight.shape[0]
        ids = torch.arange(1, 9, device=model.device)[None] * 7 % vocabulary
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        head = model.get_output_embeddings()
        same = torch.equal(head(hidden).float(), model(input_ids=ids, use_cache=False).logits.float())
        same = same and _attends_apart(model, ids, hidden)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n", 1)[0][:300]
        raise UserError(
            f"model {reference!r}: a first scoring pass of {kind} failed on {model.device.type} in {model.dtype} "
            f"({type(error).__name__}: {reason}); if the architecture is the reason, use {_PLAIN}"
        ) from error
    if not same:
        raise UserError(
            f"model {reference!r}: {kind} changes its logits after the output embedding, or does not attend as it is "
            f"told; use {_PLAIN}"
        )


def _attends_apart(model: Any, ids: torch.Tensor, hidden: torch.Tensor) -> bool:
    """Whether two sequences in one row, packed, have the hidden states that each has alone."""
    packing = Packing.of((3, ids.shape[1]), ids.device)
    row = torch.cat([ids[:, :3], ids], dim=1)
    positions = torch.cat([torch.arange(size, device=ids.device) for size in packing.sizes])[None]
    packed = model.base_model(
        input_ids=row, position_ids=positions, attention_mask=NO_MASK, packing=packing, use_cache=False
    ).last_hidden_state
    noise = 1e-3 if hidden.dtype == torch.float32 else 5e-2
    return torch.allclose(packed[:, 3:], hidden, rtol=0, atol=noise * float(hidden.abs().max()))
