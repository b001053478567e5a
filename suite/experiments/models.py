"""What the name of a model stands for, where it lies and how it is loaded: the one place that knows every name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch

from suite.experiments.names import EMBEDDED_MODEL
from suite.policy.loading import LoadedModel, is_hub_id, load_model, load_tokenizer, locate
from suite.policy.smollm2 import cache_folder, fetch_smollm2, is_fetched
from suite.types import UserError

SMOLLM2 = "smollm2"


@dataclass(frozen=True)
class ModelPlace:
    """Where a model lies.

    source: what `from_pretrained` takes, a folder or a hub id. options: what it takes beside that; empty for a hub id.
    folder: the model's own folder on this machine; None for a GGUF file and for what has to be downloaded first.
    """

    source: str
    options: dict[str, Any]
    folder: Path | None

    @property
    def absolute(self) -> str:
        """The model as a program that runs in another folder finds it: an absolute path, or the hub id."""
        if not self.options:
            return self.source
        return str(Path(self.source, self.options.get("gguf_file", "")).resolve())


def model_place(reference: str) -> ModelPlace:
    """Where a model lies: `embedded`, `smollm2` in any letter case, a local folder, a .gguf file or a hub id.

    Nothing is downloaded. SmolLM2 has a place in the cache folder also before it is fetched, then without a `folder`.

    UserError where the reference can name no model.
    """
    if is_smollm2(reference):
        folder = cache_folder() / SMOLLM2
        return ModelPlace(str(folder), {"local_files_only": True}, folder if is_fetched(folder) else None)
    source, options = locate(reference, EMBEDDED_MODEL)
    return ModelPlace(source, options, Path(source) if options and "gguf_file" not in options else None)


def is_smollm2(reference: str) -> bool:
    """Whether this is the name of the model that `fspo model fetch` downloads."""
    return reference.lower() == SMOLLM2


def model_folder(reference: str) -> Path | None:
    """The folder of a model on this machine; None for one that is not here, and for what names none."""
    try:
        return model_place(reference).folder
    except UserError:
        return None


def cached_folder(source: str) -> Path | None:
    """Where the hub's cache on this machine holds the config of a hub id; None where it does not."""
    config = huggingface_hub.try_to_load_from_cache(source, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def tokenizer_here(reference: str) -> tuple[Any, int | None] | None:
    """The tokenizer of a model on this machine and its context in tokens (None: no bound); no weights are loaded.

    None for a GGUF file, and for a model or tokenizer that is to be downloaded. UserError for files that do not load.
    """
    folder = model_folder(reference)
    if folder is None and is_hub_id(reference):
        folder = cached_folder(reference)
        if folder is not None and not (folder / "tokenizer.json").is_file():
            return None
    return None if folder is None else load_tokenizer(reference, folder)


def load_named(reference: str, dtype: torch.dtype, device: str) -> LoadedModel:
    """The model that a reference names, as `load_model` gives it; SmolLM2 is downloaded where it is absent."""
    where = str(fetch_smollm2()) if is_smollm2(reference) else reference
    return load_model(where, dtype=dtype, device=device, embedded_folder=EMBEDDED_MODEL)
