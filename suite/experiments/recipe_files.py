"""Recipes of one's own: a function in a Python file, or a TOML file such as `fspo recipes NAME --toml` prints."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from suite.config import FOLLOWS, CompareConfig, EvalConfig, TrainConfig, VllmConfig
from suite.experiments.names import lookup
from suite.experiments.settings import as_setting, method_with, of_kind, parsed
from suite.methods.from_outside import find_modules_here
from suite.types import UserError, kind_of

TABLES = ("train", "evaluation", "settings")
"""The tables of a TOML recipe; `settings` has one a method: hyper-parameters apart from its defaults."""


def recipe_in_toml(path: Path) -> CompareConfig:
    """The recipe that a TOML file holds; UserError with the file and the setting where something is wrong.

    What the file does not set has the suite's default. Paths in it count from the current folder.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from error
    try:
        return _config_of(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _config_of(content: Mapping[str, Any]) -> CompareConfig:
    """The recipe that parsed TOML means."""
    own = {key: value for key, value in content.items() if key not in TABLES}
    for name in TABLES:
        if not isinstance(content.get(name, {}), dict):
            raise UserError(f"{name} = {content[name]!r}: must be a table, [{name}]")
    if "options" in own:
        raise UserError('options: write them as tables of methods, for instance [settings.fspo] with "c_low = 0.05"')
    return CompareConfig(
        **_fields(CompareConfig, own, ""),
        train=_section(TrainConfig, content.get("train", {}), "train."),
        evaluation=_section(EvalConfig, content.get("evaluation", {}), "evaluation."),
        options=tuple(_options(content.get("settings", {}))),
    )


def _section(kind: type, content: Mapping[str, Any], prefix: str) -> Any:
    """The config of one table; UserError names a setting that is missing."""
    fields = _fields(kind, content, prefix)
    return kind(**fields)


def _fields(kind: type, content: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The settings of a table, each of the kind that its field has."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for name, value in content.items():
        path = prefix + name
        if path in FOLLOWS:
            raise UserError(f"{path}: it follows {FOLLOWS[path]}; set that")
        lookup(hints, name, f"setting {prefix}".rstrip(". "))
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise UserError(f"{path} = {value!r}: must be a table, [{path}]")
            found[name] = _section(VllmConfig, value, f"{path}.")
        else:
            found[name] = of_kind(value, hints[name], path)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.name not in found and field.name not in TABLES
    ]
    if missing:
        raise UserError(f"{prefix}{missing[0]} is missing")
    return found


def _options(methods: Mapping[str, Any]) -> Iterator[str]:
    """Hyper-parameters as `--set` takes them, each checked by its method."""
    for name, fields in methods.items():
        if not isinstance(fields, dict):
            raise UserError(f"settings.{name} = {fields!r}: must be a table, [settings.{name}]")
        options = [as_setting(name, field, value) for field, value in fields.items()]
        method_with(name, options)
        yield from options


def as_toml(config: CompareConfig, sources: Mapping[str, str], title: str = "") -> str:
    """A recipe as TOML that `recipe_in_toml` reads back as the same config, with the source of every setting beside it.

    TOML has no word for none: a setting that is none stands there as a comment. `sources` maps paths such as
    `train.steps` to where the value comes from.
    """
    lines = [f"# {title}", "# Give a changed copy a name of its own."] if title else []
    own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in (*TABLES, "options")}
    lines += _lines(own, "", sources)
    for name in ("train", "evaluation"):
        section = getattr(config, name)
        values = {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}
        nested = {key: value for key, value in values.items() if dataclasses.is_dataclass(value)}
        lines += ["", f"[{name}]", *_lines({k: v for k, v in values.items() if k not in nested}, f"{name}.", sources)]
        for key, inner in nested.items():
            fields = {f.name: getattr(inner, f.name) for f in dataclasses.fields(inner)}
            lines += ["", f"[{name}.{key}]", *_lines(fields, f"{name}.{key}.", sources)]
    methods: dict[str, dict[str, Any]] = {}
    for option in config.options:
        owner, field, value = parsed(option)
        methods.setdefault(owner, {})[field] = value
    for owner, fields in methods.items():
        lines += ["", f"[settings.{json.dumps(owner)}]", *_lines(fields, f"settings.{owner}.", {})]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any], prefix: str, sources: Mapping[str, str]) -> Iterator[str]:
    for name, value in values.items():
        if (path := prefix + name) in FOLLOWS:
            continue
        source = f"  # {sources[path]}" if path in sources else ""
        yield (
            f"# {name} is not set"
            if value is None and not prefix.startswith("settings.")
            else (f"{name} = {_toml(value)}{source}")
        )


def _toml(value: Any) -> str:
    """One value in TOML's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps("none" if value is None else str(value), ensure_ascii=False)


def recipe_in_module(reference: str) -> CompareConfig:
    """The recipe of FILE.py:NAME or package.module:NAME: a function without arguments that returns a CompareConfig.

    UserError says what does not load, and at which line the user's own code failed.
    """
    place, _, name = reference.partition(":")
    if not (place and name):
        raise UserError(f"recipe {reference!r}: write it as my_recipe.py:NAME, NAME being the function in it")
    module = _in_users_code(reference, lambda: _module_at(place))
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
        raise UserError(f"{place}: there is no {name} in it" + (f"; there is: {', '.join(known)}" if known else ""))
    found = getattr(module, name)
    config = _in_users_code(reference, found) if callable(found) else found
    if not isinstance(config, CompareConfig):
        raise UserError(f"{reference} gives {kind_of(config)}, not a suite.config.CompareConfig")
    return config


def _module_at(place: str) -> ModuleType:
    """The module of a Python file, or of that name."""
    find_modules_here()
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place)
    if not path.is_file():
        raise UserError(f"{place}: no such file")
    name = f"recipe_file_{path.stem}"
    loader = _AsItIs(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class _AsItIs(SourceFileLoader):
    """Reads the file itself: compiled files are recognised by second and size, and miss an edit within a second."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _in_users_code(reference: str, call: Callable[[], Any]) -> Any:
    """What a call into the user's code gives; whatever it raises becomes one line with the place."""
    try:
        return call()
    except UserError as error:
        raise UserError(f"{reference}: {error}" if reference not in str(error) else str(error)) from error
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(at.filename).name}, line {at.lineno}"
        raise UserError(f"{reference} does not load: {type(error).__name__}: {error} ({where})") from error
