"""From names to what they name: recipes, methods, tasks, settings. Part of the composition root."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import baselines
import fspo
import tasks
from suite.cards import card_digest, setting
from suite.config import FOLLOWS, CompareConfig, EvalConfig, TrainConfig, VllmConfig
from suite.lora import require_peft
from suite.plugins import imported_method, plugin_methods
from suite.ranges import AGAIN, NO_RANGES, Range, Ranges
from suite.recipe_book import RECIPES
from suite.types import Method, Problem, Task, UserError

if TYPE_CHECKING:
    from tasks.overlap import Overlap

METHODS: dict[str, Method] = {**baselines.METHODS, **fspo.METHODS}
EMBEDDED_MODEL = tasks.EMBEDDED_MODEL
EMBEDDED_TASKS = tasks.EMBEDDED_TASKS
LM_EVAL_TASKS = tasks.LM_EVAL_TASKS
SECTIONS = {"train": TrainConfig, "evaluation": EvalConfig, "train.vllm": VllmConfig}
T = typing.TypeVar("T")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def recipe(name: str) -> CompareConfig:
    """The recipe of that name; an unknown one raises UserError with the names there are."""
    return lookup(RECIPES, name, "recipe")()


def lookup(known: Mapping[str, T], name: str, kind: str) -> T:
    """known[name], or a UserError that suggests the nearest name and lists all."""
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"unknown {kind} {name!r}; {hint}there are: {', '.join(known)}")


def tasks_named(names: Sequence[str]) -> list[Task]:
    """The tasks of those names, in order."""
    return [lookup(tasks.TASKS, name, "task") for name in names]


def known_methods() -> dict[str, Method]:
    """The suite's methods and those of plug-ins. A plug-in cannot take a name of ours."""
    added = plugin_methods()
    if taken := METHODS.keys() & added.keys():
        raise UserError(f"plug-in method {sorted(taken)[0]}: that name is taken; rename its entry point")
    return {**METHODS, **added}


def find_method(name: str) -> Method:
    """The method of that name, ours or a plug-in's, or the one that `package.module:NAME` names."""
    if ":" in name:
        return imported_method(name)
    if name not in (known := known_methods()) and Path(f"{name.removesuffix('.py')}.py").is_file():
        raise UserError(f"unknown method {name!r}; for a file of your own name its method too: {Path(name).stem}:NAME")
    return lookup(known, name, "method")


def method_with(name: str, options: Sequence[str]) -> Method:
    """The method with the options that concern it, each `method.field=value`."""
    method = find_method(name)
    changes = dict(parsed[1:] for option in options if (parsed := _parse(option))[0] == name)
    return dataclasses.replace(method, hyper=dataclasses.replace(method.hyper, **changes)) if changes else method


def with_options(config: CompareConfig, options: Sequence[str]) -> CompareConfig:
    """The config with `train.field=value`, `train.vllm.field=value` and `evaluation.field=value` applied.

    Options of methods are kept for them.

    Every option is checked here, those of methods included; settings of one owner together, for a bound may only be
    possible beside its new neighbour.
    """
    changes: dict[str, dict[str, Any]] = {}
    for option in options:
        owner, field, value = _parse(option)
        changes.setdefault(owner, {})[field] = value
    for owner, fields in changes.items():
        if owner in SECTIONS:
            config = _changed(config, owner.split("."), fields)
        else:
            method_with(owner, options)
    if "train.vllm" in changes and config.train.sampler != "vllm":
        raise UserError(
            f"train.vllm.{next(iter(changes['train.vllm']))} is set, but train.sampler is {config.train.sampler}; "
            "set train.sampler=vllm, too"
        )
    for_methods = tuple(option for option in options if _parse(option)[0] not in SECTIONS)
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


def resolved(
    name: str,
    methods: str | None,
    seeds: int | None,
    steps: int | None,
    model: str | None,
    data_dir: Path | None,
    options: Sequence[str],
    ranges: Ranges = NO_RANGES,
) -> CompareConfig:
    """The recipe with what the command line changed, every name checked before anything starts."""
    config = recipe(name)
    chosen = config.methods if methods is None else tuple(methods.split(","))
    config = with_options(config, with_ranges(ranges, chosen, options))
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds {seeds}: at least 1")
    changes: dict[str, Any] = {"steps": steps, "model": model, "data_dir": data_dir}
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, **{key: value for key, value in changes.items() if value is not None}),
        methods=chosen,
        seeds=config.seeds if seeds is None else tuple(range(seeds)),
    )
    if config.train.lora_rank:
        require_peft()
    for method in config.methods:
        find_method(method)
    for task in tasks_named(config.train.tasks):
        task.load("train", config.train.data_dir)
    for task in tasks_named(config.evaluation.tasks):
        task.load("eval", config.train.data_dir)
    refuse_overlap(config)
    return config


def refuse_overlap(config: CompareConfig) -> None:
    """Raise UserError where `train.overlap` is "refuse" and a training problem stands in an evaluation set."""
    found = overlaps_of(config)
    if found and config.train.overlap == "refuse":
        first = f"{found[0].train.id} and {found[0].evaluation.id} are alike"
        raise UserError(
            f"train.overlap = 'refuse': {'; '.join(overlap_lines(config))} (for instance {first}); "
            "take a set out, or leave those problems out with --set train.overlap=exclude"
        )


@functools.cache
def overlaps_of(config: CompareConfig) -> tuple[Overlap, ...]:
    """Training problems that also stand in an evaluation set, whole sets compared, whatever `evaluation.limit` is.

    The generated tasks are left out of the search: their splits are disjoint, and short terms all look alike.
    """
    from tasks.overlap import overlaps

    def problems(names: Sequence[str], split: str) -> list[Problem]:
        written = [task for task in tasks_named(names) if task.name not in EMBEDDED_TASKS]
        return [problem for task in written for problem in task.load(split, config.train.data_dir)]

    training = problems(config.train.tasks, "train")
    return tuple(overlaps(training, problems(config.evaluation.tasks, "eval"))) if training else ()


def left_out(config: CompareConfig) -> dict[str, dict[str, int]]:
    """Training problems that are left out, by pair of sets: `"set / evaluation set"` to counts, exact and near."""
    from tasks.overlap import counts

    return counts(overlaps_of(config))


def overlap_lines(config: CompareConfig) -> list[str]:
    """One line for every pair of sets that overlap."""
    return [
        f"{count['exact'] + count['near']} training problems of {pair.partition(' / ')[0]} stand in the evaluation set "
        f"{pair.partition(' / ')[2]} ({count['exact']} word for word, {count['near']} nearly)"
        for pair, count in left_out(config).items()
    ]


def _parse(option: str) -> tuple[str, str, Any]:
    """(owner, field, value) of `owner.field=value`; the owner is a method or one of SECTIONS."""
    target, equals, text = option.partition("=")
    owner, dot, field = target.rpartition(".")
    if not (equals and dot):
        raise UserError(f"--set {option!r}: write it as method.field=value, for instance fspo.c_low=0.05")
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
    if typing.get_origin(kind) is typing.Literal:
        return lookup({choice: choice for choice in typing.get_args(kind)}, text, f"value in {where}")
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(None) in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if (int in kinds and re.fullmatch(r"[+-]?\d+", text)) or (float in kinds and _NUMBER.fullmatch(text)):
        return int(text) if int in kinds else float(text)
    if str in kinds:
        return text
    names = " or ".join("none" if k is type(None) else getattr(k, "__name__", str(k)) for k in kinds)
    raise UserError(f"{where}: {text!r} is not {names}")


def learning_rates(text: str, own: float) -> dict[str, float]:
    """Comma-separated learning rates by the way they are written; UserError for none, twice the same, or `own`."""
    found: dict[str, float] = {}
    for word in text.split(","):
        rate = _read(word.strip(), float, f"--rates {text!r}")
        if rate == own or rate in found.values():
            raise UserError(f"--rates {text!r}: {rate:g} is there already")
        found[f"{rate:g}"] = rate
    return found
