"""A public name means one thing: no function or class of `suite` is called like another one."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def names_twice(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Public functions and classes at the top of more than one file, with the files.

    Commands are left out: their functions are named by what is typed.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for path, source in sorted(sources.items()):
        if not path.startswith("suite/commands/"):
            for node in ast.parse(source).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(path)
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def test_no_name_occurs_twice() -> None:
    files = (ROOT / "suite").rglob("*.py")
    assert names_twice({p.relative_to(ROOT).as_posix(): p.read_text() for p in files}) == {}


def test_a_name_that_occurs_twice_is_seen() -> None:
    twice = {
        "suite/a.py": "def whole(): ...",
        "suite/b.py": "class whole: ...",
        "suite/commands/c.py": "def whole(): ...",
    }
    assert names_twice(twice) == {"whole": ["suite/a.py", "suite/b.py"]}
