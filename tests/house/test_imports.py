"""Who may import whom, read from the source: a table of rooms, and a wall for every promise that the rooms make.

Contract files on top of `suite` <- `baselines`, `fspo` (not each other; a plug-in sees `baselines` and `records`, too);
`tasks` sees `suite.types` only; a room of `suite` sees the contract files, itself and the rooms that `ROOM` names.
`experiments` and `commands` alone know methods and tasks; `report` alone draws; `findings` print nothing; `replay`
knows no method by name.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from methods.facts import NO_ORACLE
from strategies import METHODS

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("suite", "baselines", "fspo", "tasks")

BELOW = ("records", "statistics", "policy", "methods", "training", "evaluation", "replay")
ROOM: Mapping[str, tuple[str, ...]] = {
    "records": (),
    "statistics": ("records",),
    "policy": ("records",),
    "methods": ("records",),
    "training": ("records", "policy"),
    "evaluation": ("records", "statistics", "policy"),
    "replay": ("records", "statistics", "policy", "methods", "training"),
    "experiments": BELOW,
    "planning": (*BELOW, "experiments"),
    "findings": (*BELOW, "experiments"),
    "report": (*BELOW, "experiments", "findings"),
    "commands": (*BELOW, "experiments", "planning", "findings", "report"),
}
"""Room of `suite` -> rooms that it may import, beside itself and the contract files."""

CONTRACTS: Mapping[str, tuple[str, ...]] = {
    "suite.types": (),
    "suite.arithmetic": ("suite.types",),
    "suite.advantages": ("suite.types", "suite.arithmetic"),
    "suite.seeds": ("suite.types",),
    "suite.config": ("suite.types",),
}
"""File on top of `suite` -> what of ours it may import."""

FOR_METHODS = ("suite.types", "suite.arithmetic", "suite.advantages")
COMPOSITION = ("experiments", "commands")
"""The rooms that know methods and tasks."""
DRAWING = ("report",)
SILENT = ("findings",)
WITHOUT_TORCH = ("statistics",)
NAMELESS = ("replay",)
"""The rooms that know no method by name."""

PURE_LIBRARIES = {"torch", "numpy", "scipy"}
ONE_IMPORTER = ("vllm", "lm_eval", "ray", "peft")
LAZY = {*ONE_IMPORTER, "trl", "verl", "wandb"}
OF_ORACLES = ("peers.pairings", "peers.batches")
"""What an oracle may import beside the standard library and other oracles: words without arithmetic."""
LAZY_IN_TASKS = {"transformers", "datasets", "math_verify", "sympy"}


@dataclass(frozen=True)
class Import:
    """One imported name: "torch.nn", "suite.types.Method"; `lazy` when it happens inside a function."""

    name: str
    line: int
    lazy: bool

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    def inside(self, *rooms: str) -> bool:
        return any(self.name == room or self.name.startswith(f"{room}.") for room in rooms)


def module_name(path: str) -> str:
    """`fspo/band.py` -> "fspo.band", `fspo/__init__.py` -> "fspo"."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def imports(path: str, source: str) -> list[Import]:
    """Every import of a file, relative ones resolved, `importlib.import_module("x")` and `__import__("x")` included."""
    package = module_name(path) if path.endswith("/__init__.py") else module_name(path).rpartition(".")[0]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                yield from (Import(alias.name, node.lineno, lazy) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                home = ".".join(package.split(".")[: len(package.split(".")) - level + 1]) if level else ""
                base = ".".join(part for part in (home, module) if part)
                yield from (Import(f"{base}.{alias.name}", node.lineno, lazy) for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(name, node.lineno, lazy)
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy)

    return list(visit(ast.parse(source, path), lazy=False))


def room_of(module: str) -> str:
    """`suite.records.files` -> "records"; "" for what lies on top of `suite` or elsewhere."""
    parts = module.split(".")
    return parts[1] if parts[0] == "suite" and len(parts) > 1 and f"suite.{parts[1]}" not in CONTRACTS else ""


def is_oracle(module: str) -> bool:
    """Whether a module of tests/methods is an oracle, or what oracles share."""
    folder, _, name = module.rpartition(".")
    return module == "tests.methods" or (folder == "tests.methods" and not name.startswith(NO_ORACLE))


def complaint(module: str, found: Import) -> str | None:
    """Why this module may not import that name, or None."""
    top = module.partition(".")[0]
    ours, standard = found.top in ROOMS, found.top in sys.stdlib_module_names
    if is_oracle(module):
        shared = standard or found.inside("methods", *OF_ORACLES)
        return None if shared else "an oracle shares nothing with what it judges"
    why = None
    if top in ("baselines", "fspo"):
        why = complaint_of_a_method(module, found)
    elif top == "tasks":
        if ours and not found.inside("suite.types", "tasks"):
            why = "tasks may import suite.types only"
        elif found.top in LAZY_IN_TASKS and not found.lazy:
            why = "heavy: import it inside the function that needs it"
    elif module in CONTRACTS:
        if ours and not found.inside(*CONTRACTS[module]):
            why = f"{module} may import {', '.join(CONTRACTS[module]) or 'no other room'}"
        elif not (ours or standard or found.top in PURE_LIBRARIES):
            why = f"a contract file may import {', '.join(sorted(PURE_LIBRARIES))} only"
    else:
        why = complaint_of_a_room(module, found)
    if why is None and found.top in LAZY and not found.lazy and not module.startswith("fspo.plugins."):
        why = "optional: import it inside the function that needs it"
    return why


def complaint_of_a_method(module: str, found: Import) -> str | None:
    """Why a file of `baselines` or `fspo` may not import that name, or None."""
    top, plugin_of = module.partition(".")[0], module.removeprefix("fspo.plugins.")
    # A plug-in brings methods, also the user's own, to another's trainer, and that trainer's runs into banks.
    others = ("baselines", "suite.records", "suite.methods.from_outside") if module.startswith("fspo.plugins.") else ()
    if found.top in ROOMS and not found.inside(*FOR_METHODS, top, *others):
        return f"{top} may import {', '.join(FOR_METHODS)} and itself"
    known = found.top in ROOMS or found.top in sys.stdlib_module_names or found.top in PURE_LIBRARIES
    return None if known or found.inside(plugin_of) else f"{top} may import {', '.join(sorted(PURE_LIBRARIES))} only"


def complaint_of_a_room(module: str, found: Import) -> str | None:
    """Why a file in a room of `suite` may not import that name, or None."""
    room = room_of(module)
    if found.top == "suite":
        allowed = tuple(f"suite.{name}" for name in (room, *ROOM.get(room, ())))
        if not found.inside(*CONTRACTS, *allowed):
            return f"{room or module} may import the contract files and {', '.join(ROOM.get(room, ())) or 'no room'}"
    if found.top in ("baselines", "fspo", "tasks") and room not in COMPOSITION:
        return f"only {' and '.join(COMPOSITION)} know methods and tasks"
    if found.top == "matplotlib" and room not in DRAWING:
        return f"only {' and '.join(DRAWING)} draws"
    if found.top == "rich" and room in SILENT:
        return f"{room} print nothing"
    if found.top == "torch" and room in WITHOUT_TORCH:
        return f"{room} needs no torch"
    return None


@cache
def what_is_said(module: str, source: str) -> list[tuple[int, str]]:
    """(line, why) for prints where nothing is printed, and for names of methods where none is known."""
    room, found = room_of(module), []
    if room not in (*SILENT, *NAMELESS):
        return []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="print") | ast.Attribute(attr="print")) if room in SILENT:
                found.append((node.lineno, f"{room} print nothing"))
            case ast.Constant(value=str(text)) if room in NAMELESS and text in METHODS:
                found.append((node.lineno, f"{text!r}: {room} knows no method by name"))
    return found


def violations(sources: Mapping[str, str]) -> list[str]:
    """One line for every broken rule in a mapping from relative path to source text; empty: the house is in order."""
    found = {path: imports(path, source) for path, source in sorted(sources.items())}
    lines = [
        f"{path}:{item.line} imports {item.name}: {why}"
        for path, items in found.items()
        for item in items
        if (why := complaint(module_name(path), item))
    ]
    for path, source in sorted(sources.items()):
        lines += [f"{path}:{line} {why}" for line, why in what_is_said(module_name(path), source)]
    for library in ONE_IMPORTER:
        importers = [path for path, items in found.items() if any(item.top == library for item in items)]
        if len(importers) > 1:
            lines.append(f"{library} has {len(importers)} importers, may have one: {', '.join(importers)}")
    return lines


@cache
def sources() -> Mapping[str, str]:
    """Every file that has rules, as it is."""
    folders = (*ROOMS, "tests/methods")
    return {p.relative_to(ROOT).as_posix(): p.read_text() for room in folders for p in (ROOT / room).rglob("*.py")}


@cache
def judged_paths() -> Mapping[str, str]:
    """The sources without the tests that lie beside the oracles."""
    return {p: s for p, s in sources().items() if p.split("/")[0] in ROOMS or is_oracle(module_name(p))}


def test_every_import_keeps_to_the_rules():
    found = violations(judged_paths())
    assert not found, "\n".join(["broken import rules:", *found])


def test_the_table_is_the_folder_and_has_no_circle():
    folders = {path.parent.name for path in (ROOT / "suite").glob("*/__init__.py")}
    assert folders == ROOM.keys()
    assert {module_name(path) for path in sources()} >= CONTRACTS.keys()
    on_top = {path.name for path in (ROOT / "suite").glob("*.py")}
    assert on_top == {"__init__.py", *(f"{name.removeprefix('suite.')}.py" for name in CONTRACTS)}
    order = list(TopologicalSorter(ROOM).static_order())  # raises CycleError
    assert all(order.index(below) < order.index(room) for room, rooms in ROOM.items() for below in rooms)


def test_importing_a_room_loads_nothing_of_it():
    for room in ROOM:
        tree = ast.parse((ROOT / "suite" / room / "__init__.py").read_text())
        assert [type(node) for node in tree.body] == [ast.Expr], room
        assert len(str(ast.get_docstring(tree)).splitlines()) >= 3, room


@pytest.mark.parametrize("room", ROOM)
def test_a_room_sees_no_room_that_its_row_leaves_out(room: str):
    """An import of every forbidden room, planted into a copy of one of the room's own files."""
    path = next(p for p in sorted(judged_paths()) if p.startswith(f"suite/{room}/") and not p.endswith("__init__.py"))
    for other in sorted({*ROOM} - {room, *ROOM[room]}):
        planted = {**judged_paths(), path: f"{judged_paths()[path]}\nfrom suite.{other} import anything\n"}
        assert len(violations(planted)) == 1, other


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("suite/findings/comparison.py", "import matplotlib.pyplot"),
        ("suite/findings/claims.py", "from rich.console import Console"),
        ("suite/findings/stability.py", "print('better')"),
        ("suite/findings/bank_model.py", "def tell(console):\n    console.print('better')"),
        ("suite/training/trainer.py", "from matplotlib.figure import Figure"),
        ("suite/evaluation/evaluate.py", "def draw():\n    import matplotlib"),
        ("suite/experiments/cells.py", "import matplotlib"),
        ("suite/commands/report.py", "import matplotlib"),
        ("suite/training/update.py", "from fspo import FSPO"),
        ("suite/evaluation/canary.py", "import tasks.grading"),
        ("suite/findings/theory.py", "from fspo.band import width"),
        ("suite/report/tables.py", "from baselines import METHODS"),
        ("suite/planning/cost_model.py", "from tasks import TASKS"),
        ("suite/replay/replays.py", "REFERENCE = 'fspo'"),
        ("suite/replay/simulation.py", "RULES = {'rloo': 0.2}"),
        ("suite/statistics/variance.py", "import torch"),
        ("suite/types.py", "from suite.records.files import digest_of"),
        ("fspo/objective.py", "from suite.replay.growth import Band"),
    ],
)
def test_a_hole_in_a_wall_is_seen_in_a_copy_of_the_sources(path: str, line: str):
    assert len(violations({**judged_paths(), path: f"{judged_paths()[path]}\n{line}\n"})) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("baselines/grpo.py", "from fspo.band import width"),
        ("fspo/objective.py", "from baselines import METHODS"),
        ("fspo/objective.py", "from suite.training.trainer import train"),
        ("fspo/objective.py", "from suite.training import trainer"),
        ("fspo/objective.py", "import suite"),
        ("fspo/objective.py", "import pandas"),
        ("fspo/objective.py", "from suite.typesetting import x"),
        ("fspo/objective.py", "def f():\n    from transformers import AutoModel"),
        ("fspo/objective.py", "from ..suite.trainer import train"),
        ("fspo/plugins/trl.py", "import verl"),
        ("fspo/plugins/trl.py", "from suite.training.trainer import train"),
        ("fspo/band.py", "from suite.records.bank import Bank"),
        ("fspo/plugins/verl.py", "import tasks"),
        ("baselines/ppo.py", "import importlib\nimportlib.import_module('transformers')"),
        ("baselines/ppo.py", "__import__('suite.training.trainer')"),
        ("tasks/gsm8k.py", "from suite.policy.sampling import sample"),
        ("tasks/gsm8k.py", "from suite.arithmetic import masked"),
        ("tasks/gsm8k.py", "import datasets"),
        ("tasks/grading.py", "from math_verify import verify"),
        ("suite/training/trainer.py", "def f():\n    import tasks.grading"),
        ("suite/evaluation/evaluate.py", "from importlib import import_module\nimport_module('tasks')"),
        ("suite/records/files.py", "from ..policy import sampling"),
        ("suite/records/files.py", "import suite"),
        ("suite/types.py", "from suite.arithmetic import masked"),
        ("suite/types.py", "from . import arithmetic"),
        ("suite/arithmetic.py", "from .advantages import whiten"),
        ("suite/advantages.py", "import pandas"),
        ("suite/config.py", "from suite.seeds import derive"),
        ("suite/policy/vllm_sampler.py", "import vllm"),
        ("suite/commands/main.py", "class Late:\n    import ray"),
        ("suite/__init__.py", "import fspo"),
        ("suite/__init__.py", "from suite.records import files"),
        ("tests/methods/grpo.py", "from suite.arithmetic import pessimistic_clip"),
        ("tests/methods/grpo.py", "import torch"),
        ("tests/methods/grpo.py", "from peers.ours import judged"),
    ],
)
def test_a_planted_violation_is_caught(path: str, source: str):
    assert len(violations({path: source})) == 1


@pytest.mark.parametrize("library", ONE_IMPORTER)
def test_a_second_importer_is_caught(library: str):
    lazily = f"def start():\n    import {library}.thing"
    assert violations({"suite/policy/a.py": lazily}) == []
    assert len(violations({"suite/policy/a.py": lazily, "tasks/b.py": lazily})) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("suite/commands/main.py", "from baselines import METHODS\nfrom fspo import FSPO\nfrom tasks import TASKS"),
        ("suite/experiments/recipes.py", "import baselines, fspo, tasks"),
        (
            "suite/training/trainer.py",
            "import transformers, numpy, json\nfrom suite.types import Method\nfrom suite.policy import scoring",
        ),
        ("suite/training/trainer.py", "from . import update"),
        ("suite/report/style.py", "import matplotlib"),
        ("suite/report/terminal.py", "from rich.table import Table\nprint('seen')"),
        ("suite/findings/claims.py", "FSPO = 'fspo'"),
        ("fspo/objective.py", "import math, torch\nfrom suite.types import Method\nfrom .band import width"),
        ("fspo/plugins/trl.py", "import trl\nfrom fspo.objective import surrogate"),
        ("fspo/plugins/trl_record.py", "from suite.records.bank import Bank"),
        (
            "fspo/plugins/verl.py",
            "import baselines, fspo\nfrom importlib import import_module\nimport_module('verl.x')",
        ),
        ("baselines/gspo.py", "from suite import arithmetic\nfrom baselines.ranges import Range"),
        ("tests/methods/grpo.py", "import math\nfrom methods.ppo import token_terms\nfrom peers.pairings import trl"),
        ("tasks/gsm8k.py", "from tasks import grading\ndef load():\n    import datasets"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str):
    assert violations({path: source}) == []


# --- what is loaded, in a process of its own -------------------------------------------------------------


def loaded(modules: list[str], unwanted: tuple[str, ...], folder: Path = ROOT) -> list[str]:
    """Which of the unwanted modules a fresh process holds after importing these."""
    program = f"import sys\nsys.path.insert(0, '.')\nimport {', '.join(modules)}\n"
    program += f"print(*(name for name in {unwanted} if name in sys.modules))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_methods_load_neither_transformers_nor_an_engine():
    """All of `baselines`, `fspo` (less the plug-ins) and the contract files."""
    modules = [*CONTRACTS, "baselines", "fspo"]
    for room in ("baselines", "fspo"):
        modules += [module_name(p.relative_to(ROOT).as_posix()) for p in sorted((ROOT / room).glob("*.py"))]
    unwanted = ("transformers", "vllm", "lm_eval", "datasets", "ray", "tasks", "pandas", "suite.training.trainer")
    assert loaded(modules, unwanted) == []


def test_a_worker_loads_no_matplotlib():
    """What a training or evaluation process imports."""
    assert loaded(["suite.experiments.cells", "suite.evaluation.evaluate"], ("matplotlib",)) == []


@pytest.mark.slow
def test_a_worker_that_loads_matplotlib_is_seen(tmp_path: Path):
    """Planted into a copy of the sources."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "suite/statistics/frames.py").open("a") as file:
        file.write("\nimport matplotlib\n")
    assert loaded(["suite.experiments.cells"], ("matplotlib",), tmp_path) == ["matplotlib"]


def test_results_hold_data_only():
    assert list((ROOT / "results").rglob("*.py")) == []
