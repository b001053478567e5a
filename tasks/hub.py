"""Rows of a data set on the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from suite.types import UserError


def hub_rows(
    dataset: str, config: str | None, split: str, revision: str, columns: Sequence[str], instead: str
) -> Iterable[dict[str, Any]]:
    """The rows of one split, the named columns of each, decoded one after another.

    UserError when the hub cannot be reached or lacks a column, `instead` naming the files to use then.
    """
    import datasets
    import datasets.exceptions
    import huggingface_hub

    huggingface_hub.utils.logging.set_verbosity_error()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(dataset, config, split=split, revision=revision)
        return loaded.select_columns(list(columns))  # pyright: ignore
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(
            f"{dataset} does not load from the hub ({type(error).__name__}: {reason}); "
            f"check the network, or give --data-dir a folder with {instead}"
        ) from None
