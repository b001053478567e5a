"""Golden replays: pinned numbers of every method on a committed rollout set, and what moved since."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from suite.arithmetic import divisor_count
from suite.methods.cards import card_digest
from suite.methods.trial_batches import gradient, judged, other_settings
from suite.records.files import write_atomically
from suite.records.update_log import UpdateLog
from suite.replay.one_method import policy_batch
from suite.types import CreditInput, Level, Method, PolicyBatch, State, UserError

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
ROLLOUTS = "rollouts.safetensors"
PINNED = "pinned.json"
CHANGELOG = "CHANGELOG.md"
TOLERANCE = 1e-10
"""Largest relative difference that is no movement: float64 sums differ in the last digits between machines."""
MAX_NEW_TOKENS = 96
"""The token limit that the rollouts were drawn with; what a constant divisor is made of."""
FAR = 10.0
"""Times the estimates of the golden rollouts: beyond FSPO's cap on the drift."""

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Movement:
    """One number of one method that is not what was pinned."""

    method: str
    number: str
    pinned: Any
    today: Any

    def line(self) -> str:
        """One row of the table: pinned, today, and by how much."""
        change = ""
        if isinstance(self.pinned, float) and isinstance(self.today, float):
            relative = (self.today - self.pinned) / abs(self.pinned) if self.pinned else float("inf")
            change = f"  ({relative:+.3g} relative)"
        return f"{self.method:<16} {self.number:<28} {_shown(self.pinned)} -> {_shown(self.today)}{change}"


class Movements(list[Movement]):
    """What moved, method by method. `not_pinned` names methods of which nothing is pinned yet, so nothing moved;
    `more` counts, for other methods, the numbers that are not pinned yet."""

    def __init__(self, not_pinned: Iterable[str] = ()) -> None:
        super().__init__()
        self.not_pinned = tuple(not_pinned)
        self.more: dict[str, int] = {}

    @property
    def methods(self) -> list[str]:
        """Names of the methods that moved, in order."""
        return list(dict.fromkeys(m.method for m in self))

    def table(self) -> list[str]:
        """One line a number that moved, and one a method that is not pinned yet; empty without either."""
        moved = [f"{'method':<16} {'number':<28} pinned -> today", *(m.line() for m in self)] if self else []
        more = [f"{name:<16} {count} numbers not pinned yet" for name, count in self.more.items()]
        return [*moved, *(f"{name:<16} not pinned yet" for name in self.not_pinned), *more]


def _shown(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def golden_batch(method: Method, log: UpdateLog) -> PolicyBatch:
    """The golden rollouts in float64 with the method's own advantages, and a made-up critic where it needs one."""
    batch = policy_batch(log, np.arange(len(log)))
    batch = dataclasses.replace(
        batch,
        log_probs=batch.log_probs.double(),
        old_log_probs=batch.old_log_probs.double(),
        lengths=batch.lengths.double(),
    )
    place = torch.arange(batch.response_mask.shape[1], dtype=torch.float64).expand(batch.response_mask.shape)
    values = 0.5 - 0.01 * place
    groups = torch.from_numpy(np.unique(log.problem_ids, return_inverse=True)[1])
    seen = CreditInput(torch.from_numpy(log.reward).double(), groups, batch.response_mask, values)
    credit = method.credit(seen, method.hyper)
    return dataclasses.replace(
        batch,
        advantages=credit.advantages,
        returns=credit.returns,
        values=values,
        old_values=values + 0.3 * torch.sin(place),
    )


def numbers_of_method(method: Method, log: UpdateLog) -> Numbers:
    """What is pinned of one method: its card, its numbers, and those under the other settings that its knobs name."""
    others = {label: numbers_of_setting(changed, log) for label, changed in other_settings(method)}
    return {
        "card": card_digest(method),
        "hyper": dataclasses.asdict(method.hyper),
        **numbers_of_setting(method, log),
        **({"settings": others} if others else {}),
    }


def numbers_of_setting(method: Method, log: UpdateLog) -> dict[str, Any]:
    """The numbers of a method as it is set: of one optimizer step, and its estimates after one step and after two.

    The second step sees every other response. Where the surrogate reads the estimates, what it makes of the last ones,
    and of ones so large that a bound on them acts.
    """
    batch = golden_batch(method, log)
    numbers = numbers_of_step(method, batch, {})
    if method.value_loss is not None:
        numbers["value_loss"] = float(method.value_loss(batch, method.hyper).sum() / batch.response_mask.sum())
    if method.observe is not None:
        once = method.observe(batch, method.hyper, {})
        twice = method.observe(batch.rows(slice(None, None, 2)), method.hyper, once)
        numbers |= {f"observed_{k}": v for k, v in once.items()}
        numbers |= {f"observed_twice_{k}": v for k, v in twice.items()}
        if method.reads_state(method.hyper):
            far = {k: FAR * v for k, v in twice.items()}
            for label, state in (("after_two", twice), ("far", far)):
                numbers |= {f"{label}_{k}": v for k, v in numbers_of_step(method, batch, state).items()}
    return numbers


def numbers_of_step(method: Method, batch: PolicyBatch, state: State) -> dict[str, Any]:
    """What one optimizer step on the whole batch makes of it: objective, gradient and shares."""
    found, slope = judged(method, batch, state), gradient(method, batch, state)
    weights = batch.response_mask.sum() if method.level == Level.TOKEN else torch.tensor(len(batch.lengths))
    count = divisor_count(found.divisor, batch.lengths, MAX_NEW_TOKENS)
    return {
        "objective": float(found.objective.sum() / count),
        "unclipped": float(found.unclipped.sum() / count),
        "gradient_norm": float(slope.norm() / count),
        "outside_band_fraction": float(found.outside_band.sum() / weights),
        "clipped_fraction": float(found.clipped.sum() / weights),
    }


def numbers_today(methods: Mapping[str, Method], folder: Path) -> dict[str, Numbers]:
    """Today's numbers of all methods on the folder's rollouts."""
    log = UpdateLog.load(folder / ROLLOUTS)
    return {name: numbers_of_method(method, log) for name, method in methods.items()}


def read_pinned(folder: Path) -> dict[str, Numbers]:
    """The pinned numbers. UserError where there are none: outside a checkout, say."""
    try:
        return json.loads((folder / PINNED).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / PINNED}: no pinned numbers ({error}); use a checkout or give --golden") from error


def differences(pinned: Mapping[str, Numbers], today: Mapping[str, Numbers]) -> Movements:
    """Every number that is not what was pinned. A method that vanished is one movement.

    A new method, or a new number of a pinned one, has not moved: it is not pinned yet.
    """
    moved = Movements(not_pinned=[name for name in today if name not in pinned])
    for name in pinned:
        if name not in today:
            moved.append(Movement(name, "method", "pinned", "absent"))
            continue
        was, now = _flat(pinned[name]), _flat(today[name])
        if new := len(now.keys() - was.keys()):
            moved.more[name] = new
        for number, a in was.items():
            b = now.get(number)
            if a != b and not (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= TOLERANCE * abs(a)):
                moved.append(Movement(name, number, a, b))
    return moved


def _flat(numbers: Numbers) -> dict[str, Any]:
    hyper = {f"hyper.{key}": value for key, value in numbers.get("hyper", {}).items()}
    others = {f"{label} {k}": v for label, found in numbers.get("settings", {}).items() for k, v in found.items()}
    return {key: value for key, value in numbers.items() if key not in ("hyper", "settings")} | hyper | others


def pin_numbers(folder: Path, today: Mapping[str, Numbers], moved: Movements, changelog: Path | None = None) -> None:
    """Pin today's numbers. UserError, and nothing written, unless the newest CHANGELOG section has a line marked
    [numbers] that names every method that moved or is new."""
    path = changelog or GOLDEN.parent.parent / CHANGELOG
    sections = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = [entry for entry in re.split(r"^- ", sections[1], flags=re.MULTILINE) if "[numbers]" in entry]
    named = set(re.findall(r"\w+", " ".join(entries)))
    if missing := [name for name in (*moved.methods, *moved.not_pinned) if name not in named]:
        raise UserError(
            f"{path.name}: no entry marked [numbers] in its newest section names {', '.join(missing)}; say there what "
            "moved or is new, and why, then pin again"
        )
    write_atomically(folder / PINNED, json.dumps(today, indent=1, sort_keys=True) + "\n")
