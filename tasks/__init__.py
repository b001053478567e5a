"""Problem sets: one file a set, one entry here."""

from pathlib import Path

from suite.types import Task
from tasks import arithmetic, gsm8k, svamp

TASKS: dict[str, Task] = {task.name: task for task in (*arithmetic.TASKS, gsm8k.TASK, svamp.TASK)}
EMBEDDED_TASKS = tuple(task.name for task in arithmetic.TASKS)
"""The generated sets that the embedded model was warmed up for; one of them is for evaluation only."""
EMBEDDED_MODEL = Path(__file__).parent / "embedded"
"""Folder of the model that ships with the package."""
