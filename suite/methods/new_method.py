"""The skeleton of a new method: a loss that conforms from the start, its oracle and its page, to be rewritten."""

from __future__ import annotations

import re
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

DIVISOR = "responses"
credit = leave_one_out_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The mean over the response's tokens."""
    low, high, advantage = log(1 - hyper.clip_low), log(1 + hyper.clip_high), row.advantages[0]
    terms = {{t: clip_term(log_ratio(row, t), low, high, None, advantage) for t in counted(row.mask)}}
    return per_token(row, of_tokens(row, terms))
'''

CLOSING = "## Properties every method is held to"
PAGE = """
## {name}

`J_i = 1/L sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A)`, mean over responses.
Source: arXiv id and equation, or ours.

What the clip does to short and to long responses; what other code bases do under the same name.

| hyper-parameter | default | where it comes from |
|---|---|---|
| clip_low | 0.2 | where this value comes from |
| clip_high | 0.2 | where this value comes from |

Departures: none known.
"""


def write_skeleton(name: str, folder: Path) -> list[str]:
    """Write method, oracle and README section, and say what is left to do, a line each.

    In a checkout of the suite they go to their rooms; in any other folder they lie side by side. UserError for a name
    that is no lower-case identifier, and for files that exist; nothing is ever written over.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"method {name!r}: use lower-case letters, digits and underscores, a letter first")
    checkout = (folder / "baselines" / "README.md").is_file() and (folder / "tests" / "methods").is_dir()
    method = folder / "baselines" / f"{name}.py" if checkout else folder / f"{name}.py"
    oracle = folder / "tests" / "methods" / f"{name}.py" if checkout else folder / f"oracle_{name}.py"
    page = folder / "baselines" / "README.md" if checkout else folder / f"{name}.md"
    for path in (method, oracle, *([] if checkout else [page])):
        if path.exists():
            raise UserError(f"{path}: exists already; choose another name or move it away")
    words = {"name": name, "title": "".join(part.capitalize() for part in name.split("_")), "constant": name.upper()}
    write_atomically(method, METHOD.format(**words))
    write_atomically(oracle, ORACLE.format(**words))
    text = page.read_text(encoding="utf-8") if checkout else ""
    before, closing, after = text.partition(CLOSING)
    write_atomically(
        page, before.rstrip("\n") + "\n" * bool(before) + PAGE.format(**words) + "\n" * bool(closing) + closing + after
    )
    module = f"baselines.{name}" if checkout else name
    reference = f"{module}:{words['constant']}"
    own = f"an entry point {name} = {reference!r} in the group fspo.methods of your package offers it to others"
    kept = f'to keep it: an entry "{name}" in baselines/__init__.py, then what CONTRIBUTING says under 4'
    return [
        f"wrote {method}, {oracle} and {'a section of ' if checkout else ''}{page}",
        f"1. write the equation into {method}: it conforms already, keep it so: fspo method check {reference}",
        f"2. let somebody else write it into {oracle}, from the equation alone (it runs with a checkout's tests)",
        f"3. compare it: fspo compare demo --methods fspo,{reference}",
        f"4. {kept if checkout else own}",
    ]
