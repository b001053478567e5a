"""What breaks a program in ordinary life, tried many times: the campaign behind `make faults`, about an hour.

    python tests/faults/campaigns.py [--scale X] [--seed N] [--out FILE.json [--add]] [NAME ...]

Each prints how many tries were refused in one line, did what was asked, or did no harm; nothing may be read as
something else, end in a traceback, or hang. The same campaigns, smaller, are part of every test run. The exit code is 1
where one found something.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from faults import broken_methods, command_lines, flips, kills, pairs, places, strange_settings  # noqa: E402
from faults.outcomes import Counts, command  # noqa: E402

SIZES = {
    "command lines": 5000,
    "flips and cuts": 1000,
    "odd places": 300,
    "two at once": 200,
    "kills": 100,
    "kills of torchrun and vLLM": 6,
    "broken methods": 72,
    "strange settings": 100,
}
"""Tries of every campaign at scale 1."""
LOADED = ("suite.commands.evaluate_model", "suite.findings.comparison", "suite.report.write")


def world(folder: Path) -> dict[str, Path]:
    """A comparison, a bank, an evaluation and a range file, made by the commands that make them."""
    made = {
        "comparison": ["compare", "smoke", "--steps", "2", "--set", "evaluation.limit=2", "--out", "comparison"],
        "bank": ["bank", "record", "smoke", "--steps", "1", "--seeds", "1", "--out", "bank"],
        "evaluation": ["evaluate", "--limit", "2", "--samples", "2", "--out", "evaluation"],
        "ranges": ["bank", "calibrate", "bank", "--methods", "fspo,grpo", "--target", "0.2", "--out", "ranges.json"],
    }
    for words in made.values():
        ended = command(words, folder, patience=600)
        if ended.code:
            raise RuntimeError(f"fspo {' '.join(words)}: {ended.said[-1000:]}")
    return {name: folder / (name if name != "ranges" else "ranges.json") for name in made}


def campaigns(made: dict[str, Path], folder: Path) -> dict[str, Callable[[int, int], Counts]]:
    """Every campaign as a function of its size and seed."""
    comparison, cell = made["comparison"], made["comparison"] / "cells" / "fspo-seed0"
    known = {"bank": str(made["bank"]), "demo": str(comparison)}

    def flipped(size: int, seed: int) -> Counts:
        kinds = {
            "comparison": flips.comparison(comparison),
            "first rollouts": flips.first_rollouts(comparison),
            "model": flips.model_folder(cell / "model"),
            "samples": flips.samples(made["evaluation"]),
            "samples of a cell": flips.samples(cell),
            "ranges": flips.range_file(made["ranges"].parent),
        }
        return flips.campaign(size, seed, _place(folder, "flips"), kinds)

    return {
        "command lines": lambda size, seed: command_lines.campaign(size, seed, _place(folder, "lines")),
        "flips and cuts": flipped,
        "odd places": lambda size, seed: places.campaign(size, seed, _place(folder, "places"), known),
        "two at once": lambda size, seed: pairs.campaign(size, seed, _place(folder, "pairs")),
        "kills": lambda size, seed: kills.campaign(size, seed, _place(folder, "kills")),
        "kills of torchrun and vLLM": lambda size, seed: kills.campaign(size, seed, _place(folder, "rare"), rare()),
        "broken methods": lambda size, seed: broken_methods.campaign(size, seed, _place(folder, "methods")),
        "strange settings": lambda size, seed: strange_settings.campaign(size, seed, _place(folder, "settings")),
    }


def rare() -> list[str]:
    """The slower commands that are killed: vLLM's where it is installed."""
    return [name for name in kills.RARE if name != "vllm" or importlib.util.find_spec("vllm")]


def _place(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", choices=[[], *SIZES], help="campaigns; default all")
    parser.add_argument("--scale", type=float, default=1.0, help="tries, as a multiple of the campaign's size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the counts; what it says of others stays")
    parser.add_argument("--add", action="store_true", help="count these tries on top of those of other seeds in --out")
    options = parser.parse_args()
    for name in LOADED:
        importlib.import_module(name)
    found: list[Counts] = []
    with tempfile.TemporaryDirectory() as temporary:
        start = time.monotonic()
        (Path(temporary) / "world").mkdir()
        run = campaigns(world(Path(temporary) / "world"), Path(temporary))
        print(f"made what is tried on ({time.monotonic() - start:.0f} s)", flush=True)
        for name in options.names or SIZES:
            start = time.monotonic()
            counts = run[name](max(1, round(options.scale * SIZES[name])), options.seed)
            counts.name = name
            found.append(counts)
            seconds = time.monotonic() - start
            print(f"\r{counts.line()} ({seconds:.0f} s)", flush=True)
            if options.out:
                asked = f"python tests/faults/campaigns.py --scale {options.scale:g} --seed {options.seed} '{name}'"
                write(counts, {"command": asked, "seconds": round(seconds)}, options.out, options.add)
    sys.exit(any(counts.bad for counts in found))


def write(counts: Counts, run: Mapping[str, object], path: Path, add: bool = False) -> None:
    """Note in a JSON file how a campaign ended, by which command and versions; what it says of others stays.

    With `add` the tries are counted on top of those that are there, unless they were made by the same command.
    """
    from suite.records.files import write_atomically
    from suite.records.provenance import machine, versions

    known = json.loads(path.read_text(encoding="utf-8"))["campaigns"] if path.exists() else {}
    before = known.get(counts.name, {}) if add else {}
    runs = before.get("runs", [])
    if any(one["command"] == run["command"] for one in runs):
        raise SystemExit(f"{path}: has the tries of {run['command']} already; take another --seed")
    ended = {"tried": counts.tried, **counts.ended}
    sums = {word: before.get(word, 0) + ended.get(word, 0) for word in sorted({*ended, *before} - {"runs"})}
    here = {**run, "machine": machine(), "versions": versions()}
    content = {"campaigns": {**known, counts.name: {**sums, "runs": [*runs, here]}}}
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
