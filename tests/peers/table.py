"""The table that `pytest -m external` ends with: method x peer, the largest differences, and the named departures."""

from __future__ import annotations

from typing import Any

from peers.cases import PAIRINGS
from peers.ours import Difference
from peers.pairings import ADVANTAGE, POLICY, VALUE

KINDS = {POLICY: "", VALUE: " (value loss)", ADVANTAGE: " (advantage)"}


def _figure(x: float | None) -> str:
    return "" if x is None else f"{x:.1e}"


class Table:
    """Collects (comparison, without correction, with correction) and prints them in pytest's terminal summary."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Difference, Difference]] = {}

    def add(self, pairing_id: str, plain: Difference, corrected: Difference) -> None:
        """One comparison's differences; both are the same where no departure is named."""
        self.rows[pairing_id] = plain, corrected

    def lines(self) -> list[str]:
        """The table and the list of departures, ready to print."""
        seen = [(PAIRINGS[i], *both) for i, both in self.rows.items()]
        peers = list(dict.fromkeys(p.peer for p, _, _ in seen))
        cells: dict[str, dict[str, list[Difference]]] = {}
        for pairing, _, corrected in seen:
            label = pairing.method + KINDS[pairing.target]
            cells.setdefault(label, {}).setdefault(pairing.peer, []).append(corrected)
        head = ["method", *(f"{peer}: {what}" for peer in peers for what in ("loss", "gradient", "comparisons"))]
        body = []
        for label, by_peer in cells.items():
            body.append([label])
            for peer in peers:
                found = by_peer.get(peer, [])
                gradients = [d.gradient for d in found if d.gradient is not None]
                loss = max((d.loss for d in found), default=None)
                body[-1] += [_figure(loss), _figure(max(gradients, default=None)), str(len(found) or "")]
        departures = [
            f"{p.id}: {p.departure.sentence} [{_figure(plain.largest)}, corrected {_figure(corrected.largest)}]"
            for p, plain, corrected in seen
            if p.departure
        ]
        return [*_aligned([head, *body]), "", f"named departures ({len(departures)}):", *departures]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """pytest's hook: runs once, after the last test."""
        if self.rows:
            terminalreporter.section("largest relative difference between our methods and their peers, float64")
            for line in self.lines():
                terminalreporter.write_line(line)


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows as a Markdown table with columns of equal width."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return [text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]]
