"""Fuzzed command lines: known commands and options with values that nobody means."""

from __future__ import annotations

import random
from pathlib import Path

from faults.outcomes import DONE, TRACEBACK, Counts, command

NUMBERS = ["0", "-1", "1", "2", "1e3", "1e999", "-1e-400", "nan", "inf", "-inf", "1e-40", "99999999999999999999"]
NUMBERS += ["0x10", "1_000", "3.5", "+2", "²", "٣", "1,2", "", " "]
TEXTS = ["", " ", ".", "..", "/", "~", "-", "--", "none", "None", "true", "x" * 5000, "a\nb", "[/red]", "[bold]", "ünï"]
TEXTS += ["'", '"', "\\", "%s", "{}", "$HOME", "fspo", "fspo,", ",fspo", "fspo,grpo", "grpo,grpo", "evil:X", ":"]
TEXTS += [
    "a:b:c",
    "/dev/null",
    "/proc/self/mem",
    "no/such",
    "embedded",
    "smollm3",
    "recurrence",
    "gcd,gcd",
    "demo",
    "smoke",
]
SETTINGS = ["train", "evaluation", "fspo", "grpo", "ppo", "train.vllm", "nobody", ""]
FIELDS = ["learning_rate", "steps", "tasks", "mini_batches", "c_low", "clip_low", "limit", "temperature", "seed"]
FIELDS += [
    "drift",
    "samples",
    "precision",
    "sampler",
    "kl_coefficient",
    "lora_rank",
    "dtype",
    "model",
    "data_dir",
    "x",
    "",
]

COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "compare": (["--steps", "1", "--dry-run"], ["--methods", "--seeds", "--model", "--data-dir", "--workers"]),
    "train": (["--method", "grpo", "--dry-run"], ["--method", "--seed", "--steps", "--out", "--ranges", "--credit"]),
    "evaluate": (["--limit", "1", "--samples", "1", "--max-new-tokens", "2"], ["--model", "--tasks", "--temperature"]),
    "samples": ([], ["--task", "--limit", "--problem"]),
    "grade": ([], ["--out"]),
    "plan": ([], ["--steps", "--method", "--device", "--from", "--detect", "--pair", "--count"]),
    "export": ([], ["--out", "--methods", "--seeds", "--steps"]),
    "recipes": ([], []),
    "report": ([], ["--compare", "--out", "--pack", "--claims"]),
    "verify": (["--cells", "0"], ["--cells", "--draw", "--workers", "--out"]),
    "method card": ([], []),
    "method list": ([], []),
    "bank record": (["--seeds", "0"], ["--out", "--method", "--first-seed"]),
    "bank replay": ([], ["--methods", "--out", "--ranges"]),
    "bank lab": ([], ["--out", "--gradients", "--precisions"]),
    "bank calibrate": ([], ["--target", "--methods", "--out", "--ranges"]),
    "model fetch": (["smollm3"], ["--out"]),
}


def line(rng: random.Random) -> list[str]:
    """One command line: a command, what keeps it short, and up to four strange words."""
    name = rng.choice(list(COMMANDS))
    short, options = COMMANDS[name]
    words = [*name.split(), *short] if rng.random() < 0.9 else name.split()
    if name in ("evaluate", "bank record", "compare", "train", "verify"):
        words = [*name.split(), *short]
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        value = rng.choice(NUMBERS if rng.random() < 0.5 else TEXTS)
        if kind < 0.5 and options:
            words += [rng.choice(options), value] if rng.random() < 0.8 else [f"{rng.choice(options)}={value}"]
        elif kind < 0.75:
            words += ["--set", f"{rng.choice(SETTINGS)}.{rng.choice(FIELDS)}={value}"]
        elif kind < 0.9:
            words.append(value)
        else:
            words[rng.randrange(len(words))] = value
    return [word.replace("\0", "") for word in words]


def campaign(size: int, seed: int, folder: Path) -> Counts:
    """So many lines; each is refused, or does what it says, and says so without a traceback."""
    counts, rng = Counts("command lines"), random.Random(f"command lines {seed}")
    for _ in range(size):
        words = line(rng)
        ended = command(words, folder)
        word = ended.word
        if word not in (DONE, TRACEBACK) and not ended.said.strip():
            word = TRACEBACK  # refused without a word
        counts.add(word, f"{words!r}: {ended.complaint[:300]}")
    return counts
