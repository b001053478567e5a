"""The bash script that runs verl 0.9.1 with a recipe's settings, merges its checkpoint and says how to evaluate it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from suite.config import CompareConfig
from suite.experiments.verl_losses import VerlLine
from suite.types import Method

VERL = "0.9.1"
NAMES = re.compile(r"\$(?:DATA|HERE|RUNS|METHOD|SEED)\b")
"""What the shell fills in; `${...}` is verl's own and stays."""
FOLDERS = ("$DATA", "$HERE", "$RUNS")
"""Those that are paths, which may hold any sign."""
_PLAIN = re.compile(r"[\w./:+@-]*|\$\{[\w.]+\}")
_HEAD = """\
#!/usr/bin/env bash
# fspo export: recipe {recipe}, method {method}, for verl {verl} on one node. We have composed and checked these
# settings with verl's own code; we have not trained with them, for lack of a GPU.
# Wants in verl's environment (Python 3.10 to 3.12; the suite brings its grader, its losses and its stop texts):
#   pip install 'verl[vllm,flash-attn-cu130torch211]=={verl}' 'math-verify==0.9.*' 'psutil>=6'
#   pip install --no-deps /path/to/fspo-suite
set -euo pipefail
HERE=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
DATA=${{DATA:-$HERE}}
RUNS=${{RUNS:-$PWD/verl-runs}}
for FILE in {files}; do
  [[ -f $FILE ]] && continue
  echo "$FILE is missing: fspo export {recipe} --data-dir FOLDER --out FOLDER writes it" >&2
  exit 2
done
python3 "$HERE/compute_score.py"  # fails here, before any GPU is taken, where the grader is not installed
METHOD={method}
for SEED in {seeds}; do
"""
_FOLD = """\
  python3 - "$RUNS/$METHOD-seed$SEED" <<'PYTHON'
# verl keeps base weights and adapter apart; fspo evaluate wants them as one model
import sys
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
run = sys.argv[1]
base = AutoModelForCausalLM.from_pretrained(f"{run}/base", dtype="float32")
PeftModel.from_pretrained(base, f"{run}/base/lora_adapter").merge_and_unload().save_pretrained(f"{run}/merged")
AutoTokenizer.from_pretrained(f"{run}/base").save_pretrained(f"{run}/merged")
PYTHON
"""


def script(config: CompareConfig, method: Method, lines: Sequence[VerlLine]) -> str:
    """A bash script that runs verl for every seed of one method, and says at its end what verl does otherwise."""
    words = [word(line) for line in lines if line.key is not None]
    notes = [f"#   {x.setting} -> {x.key}: {x.note}" for x in lines if x.key and x.note]
    missing = [f"#   {x.setting} = {x.value!r}: {x.note}" for x in lines if x.key is None]
    files = ["$DATA/train.parquet", "$DATA/eval.parquet", "$HERE/compute_score.py"]
    files += [str(x.value) for x in lines if str(x.value) == "$HERE/agent_loop.yaml"]
    head = _HEAD.format(
        recipe=config.name,
        method=method.name,
        verl=VERL,
        files=" ".join(f'"{file}"' for file in files),
        seeds=" ".join(map(str, config.seeds)),
    )
    return "\n".join(
        [
            f"{head}  python3 -m verl.trainer.main_ppo \\",
            *(f"    {word} \\" for word in words[:-1]),
            f"    {words[-1]}",
            f"{_merging(config)}done",
            "# What verl does otherwise:",
            *notes,
            "#   verl.model_merger rounds weights to bfloat16, whatever was trained",
            "# Settings without a counterpart in verl:",
            *missing,
            "",
        ]
    )


def word(line: VerlLine) -> str:
    """One argument `key=value` as the shell reads it; a text with signs of hydra's grammar is quoted for hydra too."""
    argument = f"{line.key}={_value(line.value)}"
    if not NAMES.search(argument):
        return shlex.quote(argument)
    return '"' + re.sub(r'([\\"`])', r"\\\1", argument) + '"'


def _value(value: Any) -> str:
    """A value in hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if not isinstance(value, str):
        return repr(value)
    if value and not value.startswith(FOLDERS) and _PLAIN.fullmatch(NAMES.sub("", value)):
        return value
    return "'" + value.replace("'", "\\'") + "'"


def _merging(config: CompareConfig) -> str:
    """From verl's last checkpoint to a folder that `fspo evaluate --model` takes, and that command."""
    train, chosen = config.train, config.evaluation
    adapters = train.lora_rank > 0
    words = ["--tasks", ",".join(chosen.tasks), "--samples", str(chosen.samples), "--seed", str(chosen.seed)]
    words += ["--temperature", f"{chosen.temperature:g}", "--engine", train.sampler, "--precision", train.precision]
    optional = {
        "--limit": chosen.limit,
        "--limits": ",".join(chosen.limits) or None,
        "--max-new-tokens": chosen.max_new_tokens,
        "--data-dir": train.data_dir,
    }
    words += [part for name, value in optional.items() if value is not None for part in (name, str(value))]
    words += ["--chat"] * chosen.chat
    return (
        "  python3 -m verl.model_merger merge --backend fsdp \\\n"
        f'    --local_dir "$RUNS/$METHOD-seed$SEED/global_step_{train.steps}/actor" \\\n'
        f'    --target_dir "$RUNS/$METHOD-seed$SEED/{"base" if adapters else "merged"}"\n'
        f"{_FOLD if adapters else ''}"
        '  echo "Evaluate it in the suite\'s own environment:"\n'
        f'  echo fspo evaluate --model "$RUNS/$METHOD-seed$SEED/merged" {shlex.quote(shlex.join(words))}\n'
    )
