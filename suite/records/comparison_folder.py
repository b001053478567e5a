"""The folder of a comparison: which comparison it holds, and that it holds no other."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.config import PROTOCOL, CompareConfig, plain_data, restored
from suite.records.files import flat, listed, locked, write_atomically
from suite.records.own_methods import require_allowed
from suite.records.provenance import versions
from suite.records.result import BASE, check_protocol
from suite.types import UserError, reward_of

CONFIG_FILE = "comparison.json"
FIRST = "first.json"
"""In a folder of rollouts, the file that says which set is the seed's first."""

TRACEBACK = "error.txt"
"""In a job's folder, what an error of the program's own left; a mistake of the user's leaves nothing there."""


def base_folder(out: Path) -> Path:
    """Where the result of a comparison's start model lies."""
    return out / BASE


def rollouts_folder(out: Path, seed: int) -> Path:
    """Where the rollouts lie that all methods of a seed start from."""
    return out / "rollouts" / f"seed{seed}"


def cell_folder(out: Path, method: str, seed: int) -> Path:
    """Where the training run of a method with a seed lies."""
    return out / "cells" / f"{method}-seed{seed}"


def claim_folder(
    config: CompareConfig,
    out: Path,
    command: Sequence[str],
    code: Mapping[str, str],
    ranges: Mapping[str, str] | None = None,
    sampler_choice: Mapping[str, object] | None = None,
) -> None:
    """Write the resolved config into the folder, or check that it holds this very comparison.

    `code` digests each method's source. `ranges` says which range file settings came from; the config has the settings
    themselves, so that no result depends on the file being kept. `sampler_choice` says how the engine was chosen that
    draws, where it was. Raises UserError, and writes nothing, where `holds` does. Of two processes that claim one
    folder at once the second finds what the first wrote.
    """
    if holds(config, out, code):  # a refused folder stays as it is
        return
    with locked(out):
        if not holds(config, out, code):
            _begin(config, out, command, code, ranges, sampler_choice)


def _begin(
    config: CompareConfig,
    out: Path,
    command: Sequence[str],
    code: Mapping[str, str],
    ranges: Mapping[str, str] | None,
    sampler_choice: Mapping[str, object] | None,
) -> None:
    content = {
        "protocol": PROTOCOL,
        "config": plain_data(config),
        "command": shlex.join(command),
        "versions": versions(),
    }
    content["code"] = dict(code)
    if ranges:
        content["ranges"] = dict(ranges)
    if sampler_choice:
        content["sampler_choice"] = dict(sampler_choice)
    write_atomically(out / CONFIG_FILE, json.dumps(content, indent=1) + "\n")


def holds(config: CompareConfig, out: Path, code: Mapping[str, str]) -> bool:
    """Whether the folder holds this very comparison already; False where it is empty or absent. Writes nothing.

    Raises UserError when it has results of another protocol or configuration, or of a method that was another one.
    """
    path, names = out / CONFIG_FILE, listed(out)
    wanted = json.loads(json.dumps(plain_data(config)))
    if CONFIG_FILE in names:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            check_protocol(found["protocol"], path)
            known = json.loads(json.dumps(plain_data(restored(found["config"]))))  # younger settings had their defaults
            written = found.get("code", {})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: unreadable ({error}); choose another --out folder") from error
        for name, value in flat(wanted).items():
            if flat(known).get(name) != value:
                old = flat(known).get(name)
                raise UserError(f"{out}: holds a comparison with {name} = {old!r}, not {value!r}; choose another --out")
        for name, digest in code.items():
            if written.get(name, digest) != digest:
                raise UserError(f"{out}: holds results of {name} before its code changed; choose another --out")
        return True
    if names:
        raise UserError(f"{out}: not empty and no comparison; choose another --out folder")
    return False


def stored_config(out: Path) -> CompareConfig:
    """The config of the comparison in a folder.

    Raises UserError where there is none, one of another protocol, or one with a method or reward of somebody's own that
    this process may not import (`suite.records.own_methods`).
    """
    config = recorded_config(out)
    owners = [option.partition("=")[0].rpartition(".")[0] for option in config.options]
    rewards = [reward for task in config.all_tasks if (reward := reward_of(task))]
    require_allowed([*config.methods, *owners, *rewards], out / CONFIG_FILE)
    return config


def recorded_config(out: Path) -> CompareConfig:
    """The same for a reader who imports nothing that it names; UserError for no comparison or another protocol."""
    path = out / CONFIG_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        check_protocol(found["protocol"], path)
        return restored(found["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no comparison to read ({error}); give the --out folder of fspo compare") from error


def recorded_code(out: Path) -> dict[str, str]:
    """Digest of every method's source when the comparison was begun; empty where it was not recorded."""
    return dict(json.loads((out / CONFIG_FILE).read_text(encoding="utf-8")).get("code", {}))


def recorded_command(out: Path) -> str:
    """The command line that the comparison was begun with; empty where there is none."""
    path = out / CONFIG_FILE
    return str(json.loads(path.read_text(encoding="utf-8")).get("command", "")) if path.exists() else ""


def recorded_sampler_choice(out: Path) -> dict[str, Any]:
    """How the engine was chosen that draws the comparison's responses; empty where it was named."""
    return dict(json.loads((out / CONFIG_FILE).read_text(encoding="utf-8")).get("sampler_choice", {}))


def recorded_versions(out: Path) -> dict[str, str]:
    """Commit and versions when the comparison was begun; empty where they were not recorded."""
    return dict(json.loads((out / CONFIG_FILE).read_text(encoding="utf-8")).get("versions", {}))
