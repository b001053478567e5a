"""Methods and rewards from outside: other packages' entry points, and a module of the user's own."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from suite.records.texts import one_line
from suite.types import Method, UserError, kind_of

GROUP = "fspo.methods"
"""Entry-point group: name -> `package.module:METHOD`."""


@cache
def plugin_methods() -> dict[str, Method]:
    """The methods that installed packages offer under the entry-point group `fspo.methods`, by name.

    UserError names the package of one that does not load or is no Method.
    """
    found = {}
    for point in sorted(entry_points(group=GROUP)):
        owner = point.dist.name if point.dist else "an unknown package"
        found[point.name] = method_from(point.value, f"plug-in {point.name} of {owner}")
    return found


def imported_method(reference: str) -> Method:
    """The method that `package.module:NAME` names; modules of the current folder are found."""
    find_modules_here()
    return method_from(reference, f"method {reference}")


def find_modules_here() -> None:
    """Let imports find modules of the current folder, after all that is installed and after the suite's own packages.

    Python puts the current folder first where a module is run with -m: there, a user's `tasks.py` would take the place
    of the suite's package `tasks`. Worker processes start with the same order.
    """
    here, ours = os.getcwd(), str(Path(__file__).resolve().parents[2])
    if here != ours:
        others = [place for place in sys.path if place not in ("", here, ours)]
        sys.path[:] = [*others, ours, here]


def method_from(reference: str, what: str) -> Method:
    """The method that `package.module:NAME` names, from where Python looks. UserError begins with `what`."""
    found = imported(reference, what)
    if not isinstance(found, Method):
        raise UserError(f"{what} is {kind_of(found)}, not a suite.types.Method")
    return found


def imported(reference: str, what: str) -> Any:
    """What `package.module:NAME` names. UserError, which begins with `what`, where that does not load."""
    module, colon, attribute = reference.partition(":")
    if not (module and colon and attribute) or module.startswith("."):
        raise UserError(f"{what}: write it as package.module:NAME")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a module of somebody's own may raise anything
        first = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name == first
        mend = f"; run this in the folder of {first}.py, or put that folder into PYTHONPATH" if missing else ""
        raise UserError(
            f"{what} does not load from here or from what is installed: {said_in(error, module)}{mend}"
        ) from error
    here, source = Path(f"{module}.py").absolute(), getattr(sys.modules[module], "__file__", None)
    if here.is_file() and (source is None or Path(source).absolute() != here):
        raise UserError(f"{what}: {here.name} of this folder has the name of an installed module; rename it")
    return found


def said_in(error: BaseException, module: str) -> str:
    """The error in one line, and in which line of the module's own file it came up."""
    name = f"{module.replace('.', '/')}.py"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(name)]
    return f"{one_line(error)}{f' ({name}, line {lines[-1]})' if lines else ''}"
