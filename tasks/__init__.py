"""Problem sets: one file a set, one entry here."""

from pathlib import Path

from suite.types import Task
from tasks import (
    aime24,
    aime25,
    aime26,
    amc23,
    dapo_math_17k,
    deepmath,
    embedded_tasks,
    gsm8k,
    hmmt_feb26,
    math500,
    minerva_math,
    olympiadbench,
    svamp,
    word_problems,
)

REAL_SETS = (
    gsm8k,
    svamp,
    math500,
    aime24,
    aime25,
    aime26,
    hmmt_feb26,
    amc23,
    minerva_math,
    olympiadbench,
    dapo_math_17k,
    deepmath,
)
"""The modules of the sets that people wrote; each has a SHEET and a TASK."""
_GENERATED = (*embedded_tasks.TASKS, *word_problems.TASKS)
TASKS: dict[str, Task] = {task.name: task for task in (*_GENERATED, *(module.TASK for module in REAL_SETS))}
GENERATED_TASKS = tuple(task.name for task in _GENERATED)
"""The sets that are made from a seed: they are here without a download, and no other set shares a problem with them."""
EMBEDDED_TASKS = tuple(task.name for task in embedded_tasks.TASKS)
"""The generated sets that the embedded model was warmed up for; one of them is for evaluation only."""
EMBEDDED_MODEL = Path(__file__).parent / "embedded"
"""Folder of the model that ships with the package."""
LM_EVAL_TASKS = Path(__file__).parent / "lm_eval"
"""Folder for lm-eval's --include_path: the evaluation sets as its tasks, fspo_NAME each."""
