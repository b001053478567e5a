"""From text to settings: what `--set`, a range file, a TOML recipe and `--rates` say, as values of the right kind."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.config import FOLLOWS, CompareConfig, EvalConfig, TrainConfig, VllmConfig, require_bounded
from suite.experiments.names import find_method, lookup
from suite.experiments.one_credit import with_credit
from suite.methods.cards import card_digest, setting
from suite.records.ranges import AGAIN, Range, Ranges
from suite.types import Method, UserError

SECTIONS = {"train": TrainConfig, "evaluation": EvalConfig, "train.vllm": VllmConfig}
NAMES_IN_TOML: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    tuple[str, ...]: "an array of strings",
    tuple[int, ...]: "an array of whole numbers",
}
T = typing.TypeVar("T")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def method_with(name: str, options: Sequence[str]) -> Method:
    """The method with the options that concern it, each `method.field=value`."""
    method = find_method(name)
    changes = {field: value for owner, field, value in map(parsed, options) if owner == name}
    method = dataclasses.replace(method, hyper=dataclasses.replace(method.hyper, **changes)) if changes else method
    require_bounded(method.hyper)
    return method


def method_in(config: CompareConfig, name: str) -> Method:
    """A method as a comparison trains it: with its options, and with the one rule for advantages where there is one."""
    return with_credit(method_with(name, config.options), config.credit)


def credit_line(config: CompareConfig) -> list[str]:
    """One line on the rule for advantages that methods get in the place of their own; none where all keep theirs."""
    own = {name: method_with(name, config.options) for name in config.methods}
    changed = [name for name, method in own.items() if with_credit(method, config.credit) is not method]
    if not changed:
        return []
    words = f"advantages: {config.credit} for all alike, also {', '.join(changed)}"
    return [f"{words}; --credit own leaves every method its own"]


def with_options(config: CompareConfig, options: Sequence[str]) -> CompareConfig:
    """The config with `train.field=value`, `train.vllm.field=value` and `evaluation.field=value` applied.

    Options of methods are kept for them, behind those that the config has already and in place of its for one field.

    Every option is checked here, those of methods included; settings of one owner together, for a bound may only be
    possible beside its new neighbour.
    """
    given = {option.partition("=")[0] for option in options}
    options = (*(option for option in config.options if option.partition("=")[0] not in given), *options)
    changes: dict[str, dict[str, Any]] = {}
    for option in options:
        owner, field, value = parsed(option)
        changes.setdefault(owner, {})[field] = value
    for owner, fields in changes.items():
        if owner in SECTIONS:
            config = _changed(config, owner.split("."), fields)
        else:
            method_with(owner, options)
    if "train.vllm" in changes and config.train.sampler == "transformers":
        raise UserError(
            f"train.vllm.{next(iter(changes['train.vllm']))} is set, but train.sampler is {config.train.sampler}; "
            "set train.sampler=vllm, too"
        )
    for_methods = tuple(option for option in options if parsed(option)[0] not in SECTIONS)
    return dataclasses.replace(config, options=for_methods)


def _changed(section: T, path: Sequence[str], fields: Mapping[str, Any]) -> T:
    """The section with the fields of one of its parts replaced, `path` being the names that lead to that part."""
    new = {path[0]: _changed(getattr(section, path[0]), path[1:], fields)} if path else fields
    return dataclasses.replace(section, **new)  # pyright: ignore[reportArgumentType]


def with_ranges(ranges: Ranges, methods: Sequence[str], options: Sequence[str]) -> tuple[str, ...]:
    """The options, and before them the settings that a range file has for those methods and the options have not.

    Every entry of the file is checked, also of methods that take no part; but a module of the user's own is imported
    only for a method that was asked for by name. UserError names the file and the entry.
    """
    given = {option.partition("=")[0] for option in options}
    before = []
    for name, one in ranges.methods.items():
        if ":" in name and name not in methods:
            continue
        _check_range(f"{ranges.path}: methods.{name}", name, one)
        if name in methods:
            before += [setting(name, field, x) for field, x in one.settings.items() if f"{name}.{field}" not in given]
    return (*before, *options)


def _check_range(where: str, name: str, one: Range) -> None:
    """Raise UserError unless the settings are this method's, of the right kind, and make the card that was measured."""
    try:
        for field, value in one.settings.items():
            text = setting(name, field, value).partition("=")[2]
            meant = _value(name, field, text, f"{field} = {value!r}")
            if meant != value:
                raise UserError(f"{field} = {value!r}: must be written as {json.dumps(meant)}")
        method = method_with(name, [setting(name, field, value) for field, value in one.settings.items()])
    except UserError as error:
        raise UserError(f"{where}: {error}; {AGAIN}") from error
    if card_digest(method) != one.card:
        raise UserError(
            f"{where}: its settings make card {card_digest(method)}, not {one.card}: the method has changed since, or "
            f"the file was edited; {AGAIN}, or give values of your own with --set"
        )


def parsed(option: str) -> tuple[str, str, Any]:
    """(owner, field, value) of `owner.field=value`; the owner is a method or one of SECTIONS. UserError for others."""
    target, equals, text = option.partition("=")
    owner, dot, field = target.rpartition(".")
    if not (equals and dot):
        near = [name for name, kind in SECTIONS.items() if equals and target in typing.get_type_hints(kind)]
        hint = f"did you mean {near[0]}.{option}? " if near else ""
        raise UserError(f"--set {option!r}: {hint}write it as method.field=value, for instance fspo.c_low=0.05")
    return owner, field, _value(owner, field, text, f"--set {option!r}")


def _value(owner: str, field: str, text: str, where: str) -> Any:
    """What `text` means for a field of a method or one of SECTIONS; `where` is what a complaint begins with."""
    if (path := f"{owner}.{field}") in FOLLOWS:
        raise UserError(f"{where}: it follows {FOLLOWS[path]}; set that")
    if path in SECTIONS:
        fields = (f"{path}.{name}" for name in typing.get_type_hints(SECTIONS[path]))
        raise UserError(
            f"{where}: set its fields one by one ({', '.join(name for name in fields if name not in FOLLOWS)})"
        )
    settings = SECTIONS[owner] if owner in SECTIONS else type(find_method(owner).hyper)
    kinds = typing.get_type_hints(settings)
    lookup(kinds, field, f"setting of {owner}")
    return _read(text, kinds[field], where)


def _read(text: str, kind: Any, where: str) -> Any:
    """What the text means as a value of that kind; a tuple's items have commas between."""
    if typing.get_origin(kind) is tuple:
        words = [word.strip() for word in text.split(",")]
        if not all(words):
            raise UserError(f"{where}: write the items with commas between, and no empty one")
        if text.lower() == "none":
            return ()
        return tuple(_read(word, typing.get_args(kind)[0], where) for word in words)
    if typing.get_origin(kind) is typing.Literal:
        return lookup({choice: choice for choice in typing.get_args(kind)}, text, f"value in {where}")
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(None) in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if (int in kinds and re.fullmatch(r"[+-]?\d+", text)) or (float in kinds and _NUMBER.fullmatch(text)):
        return int(text) if int in kinds else float(text)
    if str in kinds or Path in kinds:
        return text if str in kinds else Path(text)
    names = " or ".join("none" if k is type(None) else NAMES_IN_TOML.get(k, str(k)) for k in kinds)
    raise UserError(f"{where}: {text!r} is not {names}")


def of_kind(value: Any, kind: Any, path: str) -> Any:
    """A TOML value as a setting of that kind; UserError with its path where it is of another.

    A whole number stands for a float, a string for a path, an array for a tuple; nothing else is converted.
    """
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(of_kind(item, typing.get_args(kind)[0], path) for item in value)
    if typing.get_origin(kind) is typing.Literal and isinstance(value, str):
        return lookup({choice: choice for choice in typing.get_args(kind)}, value, f"value of {path}")
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(value) in kinds:
        return value
    if type(value) is int and float in kinds:
        return float(value)
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    names = " or ".join(NAMES_IN_TOML.get(k, str(k)) for k in kinds if k is not type(None))
    raise UserError(f"{path} = {value!r}: must be {names}")


def as_setting(name: str, field: str, value: Any) -> str:
    """A TOML value of a method's table as `--set` takes it; UserError where TOML means another kind than the method."""
    option = setting(name, field, value)
    meant = parsed(option)[2]
    if meant != value and not (meant is None and value == "none"):
        raise UserError(f"settings.{name}.{field} = {value!r}: must be written as {json.dumps(meant)}")
    return option


def learning_rates(text: str, own: float) -> dict[str, float]:
    """Comma-separated learning rates by the way they are written; UserError for none, twice the same, or `own`."""
    found: dict[str, float] = {}
    for word in text.split(","):
        rate = _read(word.strip(), float, f"--rates {text!r}")
        if rate == own or rate in found.values():
            raise UserError(f"--rates {text!r}: {rate:g} is there already")
        found[f"{rate:g}"] = rate
    return found
