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

GRID = ("methods", "seeds")
"""What a comparison can get more of: cells do not depend on each other, so those that are there stay what they are."""
GROWN = "grown"
"""In the comparison's file: what was added after it was begun, a list of facts, oldest first."""


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
) -> dict[str, list[Any]]:
    """Write the resolved config into the folder, or check that it holds this very comparison; what was added to it.

    A config that has the methods and seeds of the folder's and more behind them makes the folder's comparison grow: the
    file then says what was added, by which command and versions.

    `code` digests each method's source. `ranges` says which range file settings came from; the config has the settings
    themselves, so that no result depends on the file being kept. `sampler_choice` says how the engine was chosen that
    draws, where it was. Raises UserError, and writes nothing, where `holds` does. Of two processes that claim one
    folder at once the second finds what the first wrote.
    """
    if holds(config, out, code) and not additions(config, out):  # a refused folder stays as it is
        return {}
    with locked(out):
        if not holds(config, out, code):
            _begin(config, out, command, code, ranges, sampler_choice)
            return {}
        if more := additions(config, out):
            _grow(config, out, more | ({"ranges": dict(ranges)} if ranges else {}), command, code)
        return more


def _grow(
    config: CompareConfig, out: Path, more: Mapping[str, Any], command: Sequence[str], code: Mapping[str, str]
) -> None:
    content = json.loads((out / CONFIG_FILE).read_text(encoding="utf-8"))
    facts = {**more, "command": shlex.join(command), "versions": versions()}
    content["config"] = plain_data(config)
    content["code"] = content.get("code", {}) | {name: code[name] for name in more.get("methods", ()) if name in code}
    content[GROWN] = [*content.get(GROWN, []), facts]
    write_atomically(out / CONFIG_FILE, json.dumps(content, indent=1) + "\n")


def additions(config: CompareConfig, out: Path) -> dict[str, list[Any]]:
    """The methods and seeds that a config has beyond the comparison in a folder that `holds` it; {} where none."""
    path = out / CONFIG_FILE
    if not path.exists():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))["config"]
    found = {axis: [one for one in getattr(config, axis) if one not in known[axis]] for axis in GRID}
    return {axis: new for axis, new in found.items() if new}


def grown_by(more: Mapping[str, Sequence[Any]]) -> str:
    """What was added, in words.

    >>> grown_by({"seeds": [3, 4]}), grown_by({"methods": ["mine"], "seeds": [3]})
    ('seeds 3, 4', 'methods mine and seeds 3')
    """
    return " and ".join(f"{axis} {', '.join(map(str, more[axis]))}" for axis in GRID if axis in more)


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
    """Whether the folder holds this comparison already, or its first methods and seeds; False where it is empty or
    absent. Writes nothing.

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
        new = {*wanted["methods"]} - {*known["methods"]}
        wanted["options"] = [option for option in wanted["options"] if _owner(option) not in new]
        for name, value in flat(wanted).items():
            old = flat(known).get(name)
            if old != (value[: len(known[name])] if name in GRID else value):
                advice = "keep these and add others behind them, or " if name in GRID else ""
                said = f"{name} = {old!r}, not {value!r}; {advice}choose another --out"
                raise UserError(f"{out}: holds a comparison with {said}")
        for name, digest in code.items():
            if written.get(name, digest) != digest:
                raise UserError(f"{out}: holds results of {name} before its code changed; choose another --out")
        return True
    if names:
        raise UserError(f"{out}: not empty and no comparison; choose another --out folder")
    return False


def _owner(option: str) -> str:
    """The method of an option `method.field=value`."""
    return option.partition("=")[0].rpartition(".")[0]


def stored_config(out: Path) -> CompareConfig:
    """The config of the comparison in a folder.

    Raises UserError where there is none, one of another protocol, or one with a method or reward of somebody's own that
    this process may not import (`suite.records.own_methods`).
    """
    config = recorded_config(out)
    owners = [_owner(option) for option in config.options]
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


def recorded_growth(out: Path) -> list[dict[str, Any]]:
    """What was added to the comparison after it was begun, oldest first: methods, seeds, command and versions."""
    path = out / CONFIG_FILE
    return list(json.loads(path.read_text(encoding="utf-8")).get(GROWN, [])) if path.exists() else []


def recorded_sampler_choice(out: Path) -> dict[str, Any]:
    """How the engine was chosen that draws the comparison's responses; empty where it was named."""
    return dict(json.loads((out / CONFIG_FILE).read_text(encoding="utf-8")).get("sampler_choice", {}))


def recorded_versions(out: Path) -> dict[str, str]:
    """Commit and versions when the comparison was begun; empty where they were not recorded."""
    return dict(json.loads((out / CONFIG_FILE).read_text(encoding="utf-8")).get("versions", {}))
