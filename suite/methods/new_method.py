"""The skeleton of a new method: a loss that conforms from the start, its oracle, page and entry, to be rewritten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from keyword import iskeyword
from pathlib import Path

from suite.records.files import write_atomically
from suite.types import UserError

METHOD = '''"""{title}: what is weighed, and what the clip does, in one line."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.hyper import RatioBand
from baselines.rewards import LEAVE_ONE_OUT, leave_one_out
from suite.arithmetic import pessimistic_clip, token_log_ratio, token_surrogate
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class {title}Hyper(RatioBand):
    """Hyper-parameters of {title} with their provenance."""

    clip_low: float = knob(0.2, "where this value comes from")
    clip_high: float = knob(0.2, "where this value comes from")


def surrogate(batch: PolicyBatch, hyper: {title}Hyper, state: State) -> Surrogate:
    """J_i = 1/L sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A), mean over responses.

    Source: arXiv id and equation, or "ours".
    """
    log_ratio = token_log_ratio(batch)
    tokens = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages)
    return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES, mean=True)


{constant} = Method(
    name="{name}",
    title="{title}, in a few words",
    source="arXiv id with version, or ours",
    hyper={title}Hyper(),
    credit=leave_one_out,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.CONSTANT,
    elsewhere={{"TRL": "not looked up", "verl": "not looked up", "OpenRLHF": "not looked up"}},
    facts={{
        "ratio": "token, r_t",
        "band": "ratio in [1 - clip_low, 1 + clip_high]",
        "aggregation": "mean over the tokens of a response, then over responses",
        "advantage": LEAVE_ONE_OUT,
        "kl": "none",
        "dual clip": "none",
        "departures": "none known",
    }},
)
'''

ORACLE = '''"""{title}: the equation as loops over Python floats, written without looking at the implementation."""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, clip_term, counted, log, log_ratio, of_tokens, per_token
from methods.advantages import leave_one_out_credit
from methods.facts import NO_CREDIT_VARIANTS, RATIO_MISTAKES, RATIO_VARIANTS, Mutant, slope_of_mean

DIVISOR = "responses"
credit = leave_one_out_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The mean over the response's tokens."""
    low, high, advantage = log(1 - hyper.clip_low), log(1 + hyper.clip_high), row.advantages[0]
    terms = {{t: clip_term(log_ratio(row, t), low, high, None, advantage) for t in counted(row.mask)}}
    return per_token(row, of_tokens(row, terms))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {{"clip_low": 0.2, "clip_high": 0.2}}
MISTAKES = RATIO_MISTAKES
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = RATIO_VARIANTS
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
WITHOUT_PEER = "not looked up in TRL and verl"
MUTANTS = [
    Mutant(
        "low and high exchanged",
        "baselines/{name}.py",
        "hyper.log_low, hyper.log_high,",
        "-hyper.log_high, -hyper.log_low,",
    ),
    Mutant(
        "sum of the tokens for their mean",
        "baselines/{name}.py",
        "Divisor.RESPONSES, mean=True",
        "Divisor.RESPONSES",
    ),
]
'''

PAGE = """## {name}

`J_i = 1/L sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A)`, mean over responses.
Source: arXiv id and equation, or ours.

What the clip does to short and to long responses; what other code bases do under the same name.

| hyper-parameter | default | where it comes from |
|---|---|---|
| clip_low | 0.2 | where this value comes from |
| clip_high | 0.2 | where this value comes from |

Departures: none known.
"""
ROW = (
    "| [{name}](#{name}) | `r_t` | token: log r in [-.223, .182] | own length, responses | minus mean of others | min "
    "| constant |\n"
)

PAGES, ENTRIES = Path("baselines", "README.md"), Path("baselines", "__init__.py")
FIRST_OWN_ROW, FIRST_OWN_SECTION = "| [fspo](#fspo) ", "## fspo\n"
"""The lines of PAGES that follow on those of the baselines."""


def write_skeleton(name: str, folder: Path) -> list[str]:
    """Write a method with its oracle and its page, and say what is left to do, a line each.

    In a checkout of the suite they go to their places, and the method gets its entry: nothing else has to know it. In
    any other folder method, oracle and page lie side by side. UserError for a name that is no lower-case identifier,
    and for files that exist; nothing is ever written over.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or iskeyword(name) or name.startswith("test_"):
        raise UserError(
            f"method {name!r}: use lower-case letters, digits and underscores, a letter first, and neither a word of "
            "Python nor test_ in front"
        )
    words = {"name": name, "title": "".join(part.capitalize() for part in name.split("_")), "constant": name.upper()}
    checkout = (folder / ENTRIES).is_file() and (folder / "tests" / "methods").is_dir()
    texts = texts_of_a_checkout(folder, words) if checkout else texts_side_by_side(folder, words)
    for path, text in texts.items():
        write_atomically(path, text)
    return steps_in_a_checkout(words, texts) if checkout else steps_on_ones_own(words, texts)


def texts_of_a_checkout(folder: Path, words: Mapping[str, str]) -> dict[Path, str]:
    """Path -> text of the four places: the method, its oracle with its facts, the page, the entry."""
    name, constant = words["name"], words["constant"]
    method, oracle = folder / "baselines" / f"{name}.py", folder / "tests" / "methods" / f"{name}.py"
    refuse_existing(method, oracle)
    page = with_text_before(folder / PAGES, None, FIRST_OWN_ROW, ROW.format(**words))
    page = with_text_before(folder / PAGES, page, FIRST_OWN_SECTION, PAGE.format(**words) + "\n")
    path = folder / ENTRIES
    modules = re.findall(r"^from (\S+) import ", path.read_text(encoding="utf-8"), re.MULTILINE)
    later = next((module for module in modules if module > f"baselines.{name}"), "suite.types")
    entries = with_text_before(path, None, f"from {later} import ", f"from baselines.{name} import {constant}\n")
    entries = with_text_before(path, entries, "}\n", f'    "{name}": {constant},\n')
    return {method: METHOD.format(**words), oracle: ORACLE.format(**words), folder / PAGES: page, path: entries}


def texts_side_by_side(folder: Path, words: Mapping[str, str]) -> dict[Path, str]:
    """Path -> text of the method, its oracle and its page in a folder of one's own."""
    name = words["name"]
    method, oracle, page = folder / f"{name}.py", folder / f"oracle_{name}.py", folder / f"{name}.md"
    refuse_existing(method, oracle, page)
    return {method: METHOD.format(**words), oracle: ORACLE.format(**words), page: PAGE.format(**words)}


def refuse_existing(*paths: Path) -> None:
    """UserError for the first path that exists."""
    for path in paths:
        if path.exists():
            raise UserError(f"{path}: exists already; choose another name or move it away")


def with_text_before(path: Path, text: str | None, line: str, added: str) -> str:
    """The text (None: what the file holds) with `added` before the first line that begins with `line`."""
    text = path.read_text(encoding="utf-8") if text is None else text
    place = f"\n{text}".find(f"\n{line}")
    if place < 0:
        raise UserError(f"{path}: no line begins with {line.rstrip()!r}, so there is no place for a new method")
    return text[:place] + added + text[place:]


def steps_in_a_checkout(words: Mapping[str, str], texts: Mapping[Path, str]) -> list[str]:
    """What was written, and what is left to do before the method is one of the suite's."""
    name, (method, oracle, page, entry) = words["name"], texts
    return [
        f"wrote {method} and {oracle}, a row and a section of {page}, and an entry of {entry}",
        f"1. write the equation into {method}: it conforms already, keep it so: fspo method check {name}",
        f"2. let somebody else write it into {oracle}, from the paper alone, and the facts below it; then: "
        f"python -m pytest tests/methods -k {name}",
        f"3. rewrite its row and its section in {page}; fspo method card {name} prints the numbers",
        f"4. compare it: fspo compare demo --methods fspo,{name}",
        f"to keep its numbers from moving: a line marked [numbers] in CHANGELOG.md that names {name}, then fspo method "
        "regress --pin",
    ]


def steps_on_ones_own(words: Mapping[str, str], texts: Mapping[Path, str]) -> list[str]:
    """What was written, and what can be done with a method in a folder of one's own."""
    (method, oracle, page), reference = texts, f"{words['name']}:{words['constant']}"
    return [
        f"wrote {method}, {oracle} and {page}",
        f"1. write the equation into {method}: it conforms already, keep it so: fspo method check {reference}",
        f"2. let somebody else write it into {oracle}, from the equation alone (it runs with a checkout's tests)",
        f"3. compare it: fspo compare demo --methods fspo,{reference}",
        f"4. an entry point {words['name']} = {reference!r} in the group fspo.methods of your package offers it to "
        "others",
    ]
