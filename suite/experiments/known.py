"""Names that are known, and the nearest to one that is not. Loads no method, so that a typo is answered at once."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from suite.methods.from_outside import GROUP
from suite.types import UserError

OPTIONS = ("--methods", "--method")
T = TypeVar("T")


def lookup(known: Mapping[str, T], name: str, kind: str) -> T:
    """known[name], or a UserError that suggests the nearest name and lists all."""
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"unknown {kind} {name!r}; {hint}there are: {', '.join(known)}")


def names_of_methods() -> list[str]:
    """The names of the suite's methods, read off the tables METHODS in the source, and those of plug-ins."""
    names = []
    for package in ("baselines", "fspo"):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
            match node:
                case ast.AnnAssign(target=ast.Name(id="METHODS"), value=ast.Dict(keys=keys)):
                    names += [key.value for key in keys if isinstance(key, ast.Constant)]
    return [*names, *(point.name for point in sorted(entry_points(group=GROUP)))]


def refuse_unknown_methods(words: Sequence[str]) -> None:
    """UserError for a name behind `--method` or `--methods` on a command line that no method has.

    What is MODULE:NAME, or a file here, is left to those who load methods.
    """
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        if option not in OPTIONS:
            continue
        for name in map(str.strip, (value if equals else following).split(",")):
            if name and ":" not in name and not Path(f"{name.removesuffix('.py')}.py").is_file():
                lookup(dict.fromkeys(names_of_methods()), name, "method")
