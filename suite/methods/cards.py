"""A method's card: what it is, in words and numbers, with where every number comes from."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from suite.records.files import digest_of
from suite.types import Method


def hyper_line(method: Method) -> str:
    """The hyper-parameters as one line, for instance `c_low=0.03, c_high=0.03`."""
    values = {f.name: getattr(method.hyper, f.name) for f in dataclasses.fields(method.hyper)}
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def setting(name: str, field: str, value: Any) -> str:
    """A hyper-parameter as `--set` reads it."""
    return f"{name}.{field}={'none' if value is None else value}"


def card_digest(method: Method) -> str:
    """First 12 hex digits of the sha256 over name, source, facts and hyper-parameters."""
    facts = [method.name, method.source, dict(method.facts), dataclasses.asdict(method.hyper)]
    return digest_of(facts)[:12]


def code_digest(method: Method) -> str:
    """First 12 hex digits of the sha256 over the card and the source of the method's functions, where there is one.

    It moves with every edit, also one that changes no number: results of two versions are never mixed unnoticed.
    """
    functions = (method.surrogate, method.credit, method.value_loss, method.observe)
    sources = []
    for function in functions:
        try:
            sources.append("" if function is None else inspect.getsource(function))
        except (OSError, TypeError):  # made in a session, or a callable without a source file
            sources.append(repr(getattr(function, "__qualname__", "")))
    return digest_of([card_digest(method), *sources])[:12]


def overview(methods: Mapping[str, Method]) -> list[tuple[str, str, str]]:
    """All methods, a row each: name, card digest, what it is."""
    return [(name, card_digest(method), f"{method.title} ({method.source})") for name, method in methods.items()]


def card(method: Method) -> str:
    """One method as Markdown: facts, equation, and every hyper-parameter with its provenance."""
    facts = [f"- **{key}**: {value}" for key, value in method.facts.items()]
    knobs = [
        f"| {f.name} | {getattr(method.hyper, f.name)} | {f.metadata.get('provenance', '')} |"
        for f in dataclasses.fields(method.hyper)
    ]
    return "\n".join(
        [
            f"# {method.title}",
            "",
            f"`{method.name}`, {method.source}, card {card_digest(method)}",
            "",
            *facts,
            "",
            "```",
            inspect.getdoc(method.surrogate) or "",
            "```",
            "",
            "| hyper-parameter | value | where it comes from |",
            "|---|---|---|",
            *(knobs or ["| none | | |"]),
            "",
            "The same thing elsewhere:",
            "",
            *(f"- **{trainer}**: `{line}`" for trainer, line in method.elsewhere.items()),
            *([] if method.elsewhere else ["- not looked up"]),
        ]
    )
