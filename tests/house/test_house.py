"""The rules of the house that a program can read off the source: size, docstrings, and what is never written here."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("suite", "baselines", "fspo", "tasks", "benchmarks")
LONG_FILE_LINES = 400
"""Above it a file is named in a warning: it may hold two ideas. Cutting it at the line would not part them."""
MAX_FUNCTION_LINES = 60

UNPICKLERS = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
BROAD = {"Exception", "BaseException"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def names_in(node: ast.AST | None) -> set[str]:
    """The identifiers and attribute names below a node."""
    parts = ast.walk(node) if node else ()
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in parts
        if isinstance(part, ast.Name | ast.Attribute)
    }


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument, None where the call has none of that name."""
    return next((k.value for k in call.keywords if k.arg == name), None)


def is_true(node: ast.expr | None) -> bool:
    """True for the literal True only."""
    return isinstance(node, ast.Constant) and node.value is True


def bad_call(call: ast.Call) -> str | None:
    """Why this call is never written here, or None."""
    function = call.func
    if isinstance(function, ast.Name) and function.id in ("eval", "exec"):
        return f"{function.id}() runs text as a program"
    trusts = [k.value for k in call.keywords if k.arg == "trust_remote_code"]
    if any(not isinstance(value, ast.Constant) or value.value is not False for value in trusts):
        return "trust_remote_code runs a stranger's program"
    attribute = ast.unparse(function)
    if attribute == "torch.load" and not is_true(keyword(call, "weights_only")):
        return "torch.load without weights_only=True unpickles"
    if is_true(keyword(call, "allow_pickle")):
        return "allow_pickle unpickles"
    if attribute.endswith("suppress") and any(names_in(argument) & BROAD for argument in call.args):
        return "suppress() of everything is a silent except"
    if is_true(keyword(call, "shell")):
        return "shell=True: pass a list of arguments"
    return None


def bad_handler(handler: ast.ExceptHandler) -> str | None:
    """Why an except clause hides what happened, or None. A broad one must raise again or use what it caught."""
    if all(isinstance(s, ast.Pass | ast.Continue) or ast.unparse(s) == "..." for s in handler.body):
        return "silent except: the error leaves no trace"
    body = ast.Module(body=handler.body, type_ignores=[])
    broad = handler.type is None or names_in(handler.type) & BROAD
    raises = any(isinstance(part, ast.Raise) for part in ast.walk(body))
    if broad and not raises and handler.name not in names_in(body):
        return "silent except: catches everything, and neither raises nor uses it"
    return None


def bad_import(node: ast.Import | ast.ImportFrom) -> str | None:
    """Modules that unpickle, or None."""
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    found = UNPICKLERS & {module.partition(".")[0] for module in modules}
    return f"{found.pop()}: a file that runs a program when it is read" if found else None


def never_written(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, why) for every construct that no file of the house may hold."""
    checks = ((ast.Call, bad_call), (ast.ExceptHandler, bad_handler), (ast.Import | ast.ImportFrom, bad_import))
    for node in ast.walk(tree):
        for kind, check in checks:
            if isinstance(node, kind) and (why := check(node)):
                yield node.lineno, why


def long_files(sources: Mapping[str, str]) -> list[str]:
    """One sentence for every file that is worth a second look for its length, by relative path to source text."""
    lengths = {path: len(source.splitlines()) for path, source in sorted(sources.items())}
    return [
        f"{path} has {lines} lines, more than {LONG_FILE_LINES}: see whether it holds two ideas"
        for path, lines in lengths.items()
        if lines > LONG_FILE_LINES
    ]


def too_long(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, why) for a function that does not fit."""
    for node in ast.walk(tree):
        if isinstance(node, Function) and (length := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES:
            yield node.lineno, f"{node.name} has {length} lines, {MAX_FUNCTION_LINES} allowed"


def undocumented(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, why) for a room's module, public class or public function without a docstring."""
    if path.partition("/")[0] not in ROOMS:
        return
    if tree.body and not ast.get_docstring(tree):
        yield 1, "the module has no docstring"
    for node in tree.body:
        public = isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
        if public and not ast.get_docstring(node):
            yield node.lineno, f"{node.name} has no docstring"


def complaints(sources: Mapping[str, str]) -> list[str]:
    """One line for every broken rule in a mapping from relative path to source text; empty when there is none."""
    result = []
    for path, source in sorted(sources.items()):
        tree = ast.parse(source, path)
        found = [*never_written(tree), *too_long(tree), *undocumented(path, tree)]
        result += [f"{path}:{line} {why}" for line, why in sorted(found)]
    return result


def test_the_house_is_in_order():
    files = [p for room in (*ROOMS, "tests") for p in (ROOT / room).rglob("*.py")]
    sources = {p.relative_to(ROOT).as_posix(): p.read_text() for p in files}
    found = complaints(sources)
    for sentence in long_files(sources):
        warnings.warn(sentence, stacklevel=1)
    assert not found, "\n".join(["broken rules of the house:", *found])


HEADER = '"""A room."""\n'


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.memory",
        "x = eval('1')",
        "def f():\n    '''F.'''\n    exec('1')",
        "AutoModel.from_pretrained('a', trust_remote_code=True)",
        "AutoModel.from_pretrained('a', trust_remote_code=chosen)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
        "with contextlib.suppress(Exception):\n    f()",
        "try:\n    f()\nexcept ValueError:\n    pass",
        "for x in y:\n    try:\n        f()\n    except ValueError:\n        continue",
        "try:\n    f()\nexcept:\n    x = 1",
        "try:\n    f()\nexcept Exception:\n    x = 1",
        "try:\n    f()\nexcept (ValueError, Exception) as error:\n    x = 1",
        "def f():\n    return 1",
        "async def f():\n    return 1",
        "class Thing:\n    x = 1",
        "def f():\n    '''F.'''\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1),
    ],
)
def test_a_planted_fault_is_caught(source: str):
    assert len(complaints({"suite/thing.py": HEADER + source})) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "try:\n    f()\nexcept FileNotFoundError:\n    x = None",
        "try:\n    f()\nexcept Exception as error:\n    log(error)",
        "try:\n    f()\nexcept BaseException:\n    clean()\n    raise",
        "with contextlib.suppress(FileNotFoundError):\n    f()",
        "def _private():\n    return 1",
        "x = 1\n" * LONG_FILE_LINES,
        "def f():\n    '''F.'''\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 2),
    ],
)
def test_what_is_allowed_passes(source: str):
    assert complaints({"suite/thing.py": HEADER + source}) == []


def test_a_long_file_is_named_with_its_length():
    sources = {"suite/thing.py": "x = 1\n" * (LONG_FILE_LINES + 1), "tests/test_thing.py": "x = 1\n" * LONG_FILE_LINES}
    (sentence,) = long_files(sources)
    assert sentence.startswith(f"suite/thing.py has {LONG_FILE_LINES + 1} lines")


def test_a_module_without_docstring_is_caught():
    assert len(complaints({"suite/thing.py": "x = 1"})) == 1
    assert complaints({"suite/__init__.py": "", "tests/test_thing.py": "def test_x():\n    assert True"}) == []
