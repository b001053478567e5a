"""A trained model to the Hugging Face hub, with the hub's own client."""

from __future__ import annotations

from pathlib import Path

from suite.policy.loading import is_hub_id
from suite.policy.model_folders import CARD, SUMS, check_sums, listed_files
from suite.records.files import file_sha256
from suite.records.texts import one_line
from suite.types import UserError


def push_model(folder: Path, hub_id: str, private: bool) -> str:
    """Upload a model folder, its card and its list of digests, and nothing else; returns the model's address.

    The repository is made where there is none, private or not; one that is there stays as private as it is.

    UserError: a folder without a list of digests or a card, an altered file, a card of other files, a name that is no
    hub id, no token, or whatever the hub answers.
    """
    check_pushable(folder)
    if not is_hub_id(hub_id):
        raise UserError(f"--to {hub_id!r}: write it as OWNER/NAME")
    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise UserError("no token for the hub: set HF_TOKEN, or log in with `hf auth login`, and push again")
    hub = HfApi()
    try:
        hub.create_repo(hub_id, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=hub_id,
            folder_path=folder,
            allow_patterns=[*listed_files(folder), SUMS, CARD],
            commit_message="A model trained with fspo-suite",
        )
    except Exception as error:  # what a network and somebody's server make of the client
        raise UserError(f"{folder}: not pushed to {hub_id} ({one_line(error)}); mend it and push again") from error
    return f"{hub.endpoint}/{hub_id}"


def check_pushable(folder: Path) -> None:
    """UserError unless a folder holds a model as it was saved, and the card that was written for it."""
    if not (folder / SUMS).is_file():
        raise UserError(f"{folder}: no {SUMS} in it; give the folder of a trained model, cells/METHOD-seedN/model")
    check_sums(folder)
    if not (folder / CARD).is_file():
        raise UserError(f"{folder}: no card ({CARD}) in it; a cell that is trained anew writes one")
    if file_sha256(folder / SUMS) not in (folder / CARD).read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{folder / CARD}: not the card of these files: it does not name the sha256 of {SUMS}")
