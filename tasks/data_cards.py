"""The page docs/data-cards.md: what each problem set is, from its own module.

python -m tasks.data_cards > docs/data-cards.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from suite.types import Task
from tasks import LM_EVAL_TASKS, REAL_SETS, embedded_tasks, word_problems
from tasks.data_sheet import Copy, Sheet
from tasks.prompts import BOXED_STOP

HEAD = """# Data cards

What each problem set is: where it comes from and under which licence, what is wrong with it, what a copy of it must
hold, and how it is asked and graded. Made from the sets' own modules by `python -m tasks.data_cards`; a test compares.
How to name sets, files of your own and data folders in a command: [models and data](models-and-data.md).

A digest is that of the problems' texts and answers (`tasks.text.content_digest`): a copy with another one is refused.
Where there is none, only the rows are counted: a hub copy is then held by its revision, and one at `main`, or in a data
folder, may hold other texts unnoticed.
Problems that others wrote stay under their licences: no row of them is in this repository or in a result (samples hold
responses and the problems' names).
"""


def cards() -> str:
    """The page as Markdown."""
    written = [_real(module) for module in REAL_SETS]
    generated = [_generated(module, module.TASKS) for module in (word_problems, embedded_tasks)]
    parts = [HEAD.rstrip(), "## Sets that people wrote", *written, "## Sets that are generated", *generated]
    return "\n\n".join(parts) + "\n"


def _real(module: ModuleType) -> str:
    """The card of one set that people wrote."""
    sheet: Sheet = vars(module)["SHEET"]
    rows = [
        ("use", " and ".join({"train": "training", "eval": "evaluation"}[split] for split in sheet.files)),
        ("licence as stated", sheet.licence),
        ("known flaws", sheet.flaws),
        ("on the hub", f"`{sheet.hub.dataset}` at `{sheet.hub.revision}`"),
        *_copies("data folder", sheet.files),
        *_copies("hub", sheet.hub.splits),
        *_asked(vars(module)["TASK"]),
    ]
    return "\n\n".join([f"### {sheet.name}", _prose(module), _table(rows)])


def _generated(module: ModuleType, tasks: Sequence[Task]) -> str:
    """The card of the sets that one module generates."""
    columns = [dict(_uses(task)) for task in tasks]
    rows = [(name, *(column.get(name, "") for column in columns)) for name in columns[0]]
    names = [task.name for task in tasks]
    return "\n\n".join([f"### {', '.join(names)}", _prose(module), _table(rows, ["", *names])])


def _uses(task: Task) -> Iterator[tuple[str, str]]:
    yield "use", "training and evaluation" if task.trainable else "evaluation"
    yield "problems", " + ".join(str(len(task.load(split, None))) for split in ("train", "eval")[not task.trainable :])
    yield from _asked(task)


def _asked(task: Task) -> Iterator[tuple[str, str]]:
    """How a set is asked and judged, row by row."""
    if not task.stop:
        asked = "the problem's text alone"
    elif task.stop == BOXED_STOP:
        asked = "four worked examples of ours that box their answer"
    else:
        asked = "four worked examples of ours that end in `#### answer`"
    yield "asked with", asked
    yield "tokens of a response, at most", f"{task.max_new_tokens:,}"
    yield (
        "judged by",
        f"the common grader, version {task.grader}" if task.grader else f"a rule of its own: {_rule(task)}",
    )
    yield "version", task.version
    yield "in lm-eval", f"`fspo_{task.name}`" if (LM_EVAL_TASKS / f"{task.name}.yaml").is_file() else "no"


def _rule(task: Task) -> str:
    """What the set's own grader says of itself, in its first sentence."""
    return (inspect.getdoc(task.grade) or "").partition("\n")[0].rstrip(".")


def _copies(place: str, copies: Mapping[str, Copy]) -> Iterator[tuple[str, str]]:
    """What each stored copy must hold; splits that are cut out of one copy share its row."""
    for copy in dict.fromkeys(copies.values()):
        yield f"{' and '.join(split for split in copies if copies[split] == copy)}: {place}", _held(copy)


def _held(copy: Copy) -> str:
    """What a copy must hold, and where."""
    places = ", ".join(f"`{place}`" for place in copy.where)
    digest = f"digest `{copy.digest[:16]}`" if copy.digest else "no digest"
    return f"{places}: {copy.rows:,} rows, {digest}"


def _prose(module: ModuleType) -> str:
    """A module's own words, without the example that its doctest runs; the table says which revision."""
    words = (inspect.getdoc(module) or "").partition("\n\n    >>>")[0]
    return words.replace("at `REVISION`", "at the revision below")


def _table(rows: Sequence[Sequence[Any]], head: Sequence[str] = ("", "")) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(cards(), end="")
