"""Who may import whom, read from the source: the rooms of the house stay apart.

`suite.types` <- `suite.arithmetic`, `suite.advantages`, `suite.seeds` <- `baselines`, `fspo` (not each other);
`tasks` sees `suite.types` only; the rest of `suite` knows no method and no task, except the composition root.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("suite", "baselines", "fspo", "tasks")
COMPOSITION_ROOT = {
    "suite.cli", "suite.cli_grade", "suite.recipes", "suite.recipe_book", "suite.comparison", "suite.matching",
    "suite.arena", "suite.online", "suite.lab", "suite.lab_model", "suite.lab_text", "suite.theory",
    "suite.verl_reward",
}  # fmt: skip
PURE_LIBRARIES = {"torch", "numpy", "scipy"}
DIAGNOSTICS = {"pandas"}  # what the data frames of fspo's diagnostics are made of
ONE_IMPORTER = ("vllm", "lm_eval", "ray", "peft")
LAZY = {*ONE_IMPORTER, "trl", "verl", "wandb"}
LAZY_IN_TASKS = {"transformers", "datasets", "math_verify", "sympy"}

CORE = {
    "suite.types": (),
    "suite.arithmetic": ("suite.types",),
    "suite.advantages": ("suite.types", "suite.arithmetic"),
    "suite.seeds": ("suite.types",),
}
FOR_METHODS = ("suite.types", "suite.arithmetic", "suite.advantages")


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


def complaint(module: str, found: Import) -> str | None:
    """Why this module may not import that name, or None."""
    room = module.partition(".")[0]
    if module.startswith("tests.oracles"):
        standard = found.top in sys.stdlib_module_names
        return None if standard or found.inside("oracles") else "an oracle shares nothing with what it judges"
    ours, standard = found.top in ROOMS, found.top in sys.stdlib_module_names
    if room in ("baselines", "fspo"):
        plugin_of = module.removeprefix("fspo.plugins.")
        others = ("baselines",) if module.startswith("fspo.plugins.") else ()  # it brings methods to another's trainer
        if ours and not found.inside(*FOR_METHODS, room, *others):
            return f"{room} may import {', '.join(FOR_METHODS)} and itself"
        allowed = PURE_LIBRARIES | (DIAGNOSTICS if room == "fspo" else set())
        if not (ours or standard or found.top in allowed or found.inside(plugin_of)):
            return f"{room} may import {', '.join(sorted(allowed))} only"
    elif room == "tasks":
        if ours and not found.inside("suite.types", "tasks"):
            return "tasks may import suite.types only"
        if found.top in LAZY_IN_TASKS and not found.lazy:
            return "heavy: import it inside the function that needs it"
    elif module in CORE:
        if ours and not found.inside(*CORE[module]):
            return f"{module} may import {', '.join(CORE[module]) or 'no other room'}"
        if not (ours or standard or found.top in PURE_LIBRARIES):
            return f"the core may import {', '.join(sorted(PURE_LIBRARIES))} only"
    elif module not in COMPOSITION_ROOT and found.inside("baselines", "fspo", "tasks"):
        return "only the composition root knows methods and tasks"
    if found.top in LAZY and not found.lazy and not module.startswith("fspo.plugins."):
        return "optional: import it inside the function that needs it"
    return None


def violations(sources: Mapping[str, str]) -> list[str]:
    """One line for every broken rule in a mapping from relative path to source text; empty: the house is in order."""
    found = {path: imports(path, source) for path, source in sorted(sources.items())}
    lines = [
        f"{path}:{item.line} imports {item.name}: {why}"
        for path, items in found.items()
        for item in items
        if (why := complaint(module_name(path), item))
    ]
    for library in ONE_IMPORTER:
        importers = [path for path, items in found.items() if any(item.top == library for item in items)]
        if len(importers) > 1:
            lines.append(f"{library} has {len(importers)} importers, may have one: {', '.join(importers)}")
    return lines


def test_every_import_keeps_to_the_rules():
    folders = (*ROOMS, "tests/oracles")
    sources = {p.relative_to(ROOT).as_posix(): p.read_text() for room in folders for p in (ROOT / room).rglob("*.py")}
    assert {module_name(path) for path in sources} >= CORE.keys()
    assert not violations(sources), "\n".join(["broken import rules:", *violations(sources)])


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("baselines/grpo.py", "from fspo.band import width"),
        ("fspo/objective.py", "from baselines import METHODS"),
        ("fspo/objective.py", "from suite.trainer import train"),
        ("fspo/objective.py", "from suite import trainer"),
        ("fspo/objective.py", "import suite"),
        ("fspo/objective.py", "from suite.typesetting import x"),
        ("fspo/objective.py", "def f():\n    from transformers import AutoModel"),
        ("fspo/objective.py", "from ..suite.trainer import train"),
        ("fspo/plugins/trl.py", "import verl"),
        ("fspo/plugins/trl.py", "from suite.trainer import train"),
        ("fspo/plugins/verl.py", "import tasks"),
        ("baselines/ppo.py", "import importlib\nimportlib.import_module('transformers')"),
        ("baselines/ppo.py", "__import__('suite.trainer')"),
        ("tasks/gsm8k.py", "from suite.sampling import sample"),
        ("tasks/gsm8k.py", "from suite.arithmetic import masked"),
        ("tasks/gsm8k.py", "import datasets"),
        ("tasks/grading.py", "from math_verify import verify"),
        ("suite/trainer.py", "from fspo import FSPO"),
        ("suite/trainer.py", "def f():\n    import tasks.grading"),
        ("suite/evaluate.py", "from importlib import import_module\nimport_module('tasks')"),
        ("suite/types.py", "from suite.arithmetic import masked"),
        ("suite/types.py", "from . import arithmetic"),
        ("suite/arithmetic.py", "from .advantages import whiten"),
        ("suite/advantages.py", "import pandas"),
        ("suite/vllm_sampler.py", "import vllm"),
        ("suite/cli.py", "class Late:\n    import ray"),
        ("suite/__init__.py", "import fspo"),
        ("tests/oracles/grpo.py", "from suite.arithmetic import pessimistic_clip"),
        ("tests/oracles/grpo.py", "import torch"),
    ],
)
def test_a_planted_violation_is_caught(path: str, source: str):
    assert len(violations({path: source})) == 1


@pytest.mark.parametrize("library", ONE_IMPORTER)
def test_a_second_importer_is_caught(library: str):
    lazily = f"def start():\n    import {library}.thing"
    assert violations({"suite/a.py": lazily}) == []
    assert len(violations({"suite/a.py": lazily, "tasks/b.py": lazily})) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("suite/cli.py", "from baselines import METHODS\nfrom fspo import FSPO\nfrom tasks import TASKS"),
        ("suite/recipes.py", "import baselines, fspo, tasks"),
        ("suite/trainer.py", "import transformers, numpy, json\nfrom suite.types import Method\nfrom . import scoring"),
        ("fspo/objective.py", "import math, torch\nfrom suite.types import Method\nfrom .band import width"),
        ("fspo/plugins/trl.py", "import trl\nfrom fspo.objective import surrogate"),
        (
            "fspo/plugins/verl.py",
            "import baselines, fspo\nfrom importlib import import_module\nimport_module('verl.x')",
        ),
        ("baselines/gspo.py", "from suite import arithmetic\nfrom baselines.ranges import Range"),
        ("tests/oracles/grpo.py", "import math\nfrom oracles import Row\nfrom oracles.ppo import token_terms"),
        ("tasks/gsm8k.py", "from tasks import grading\ndef load():\n    import datasets"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str):
    assert violations({path: source}) == []


def test_the_methods_load_neither_transformers_nor_an_engine():
    """All of `baselines`, `fspo` (less the plug-ins) and the pure core, imported in a fresh interpreter."""
    modules = [*CORE, "baselines", "fspo"]
    for room in ("baselines", "fspo"):
        modules += [module_name(p.relative_to(ROOT).as_posix()) for p in sorted((ROOT / room).glob("*.py"))]
    unwanted = ("transformers", "vllm", "lm_eval", "datasets", "ray", "tasks", "suite.trainer")
    program = f"import sys, {', '.join(modules)}\nprint(*(name for name in {unwanted} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


def test_results_hold_data_only():
    assert list((ROOT / "results").rglob("*.py")) == []
