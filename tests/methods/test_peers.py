"""Loss and gradient against TRL's and verl's own code: stored results in every run, the packages where installed.

`pytest -m external tests/methods/test_peers.py` runs the packages themselves and ends with a table (see tests/peers/).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest

from methods.checks import oracle_of
from peers import ours, storage
from peers.batches import BATCHES
from peers.cases import PAIRINGS, PEERS, of_peer
from peers.pairings import ORDINARY, POLICY, Pairing
from peers.table import Table
from strategies import BANDED

TOLERANCE = 1e-6
VISIBLE = 5e-7  # a departure that shifts the numbers by less than this would not need a name
SAME_CODE = 1e-12  # the same package on another machine: the order of a sum may differ

ALL = [pytest.param(p, id=p.id) for p in PAIRINGS.values()]
EQUAL = [pytest.param(p, id=p.id) for p in PAIRINGS.values() if p.departure is None]
DEPARTING = [pytest.param(p, id=p.id) for p in PAIRINGS.values() if p.departure]
CLIPPED = [
    pytest.param(p, id=p.id)
    for p in PAIRINGS.values()
    if p.target == POLICY and set(ORDINARY) <= set(p.batches) and p.method in BANDED
]


@pytest.fixture(scope="module")
def stored() -> dict[str, dict[str, Any]]:
    """What each peer said when it was recorded."""
    return {peer: storage.load(peer) for peer in PEERS}


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Table:
    """Collects the differences and prints them at the end of the run."""
    result = Table()
    request.config.pluginmanager.register(result, "table of the peers")
    return result


@pytest.fixture(scope="session")
def live() -> Any:
    """What an installed peer says now, computed once; skips without the package."""
    said: dict[str, dict[str, Any]] = {}

    def ask(peer: str) -> dict[str, Any]:
        package = storage.runner(peer).PACKAGE
        pytest.importorskip(package, reason=f"{package} is not installed here (README: Parity with peers)")
        if peer not in said:
            said[peer] = storage.compute(peer)
        return said[peer]

    return ask


def check(pairing: Pairing, results: dict[str, Any]) -> tuple[ours.Difference, ours.Difference]:
    """The comparison agrees; with a named departure it agrees with the correction, and only with it."""
    plain = ours.difference(pairing, results[pairing.id], BATCHES, corrected=False)
    corrected = ours.difference(pairing, results[pairing.id], BATCHES, corrected=True) if pairing.departure else plain
    assert corrected.largest <= TOLERANCE, f"{pairing.id}: {corrected}"
    if pairing.departure:
        assert plain.largest > VISIBLE, f"{pairing.id}: the named departure is nowhere to be seen, {plain}"
    return plain, corrected


# --- every run: the stored results ------------------------------------------------------------------


@pytest.mark.parametrize("pairing", EQUAL)
def test_equals_the_peer(pairing: Pairing, stored: dict[str, Any]):
    check(pairing, stored[pairing.peer]["results"])


@pytest.mark.parametrize("pairing", DEPARTING)
def test_the_named_departure_is_the_only_one(pairing: Pairing, stored: dict[str, Any]):
    check(pairing, stored[pairing.peer]["results"])


@pytest.mark.parametrize("peer", PEERS)
def test_the_fixture_belongs_to_these_batches_and_settings(peer: str, stored: dict[str, Any]):
    fixture, pairings = stored[peer], of_peer(peer)
    assert {name: dataclasses.asdict(BATCHES[name]) for name in fixture["batches"]} == fixture["batches"]
    assert {p.id: {"entry": p.entry, **p.settings} for p in pairings} == fixture["settings"]
    assert {p.id: sorted(p.batches) for p in pairings} == {i: sorted(r) for i, r in fixture["results"].items()}


@pytest.mark.parametrize("peer", PEERS)
def test_a_peers_gradient_is_zero_at_padding(peer: str, stored: dict[str, Any]):
    for by_batch in stored[peer]["results"].values():
        for name, said in by_batch.items():
            for row, mask in zip(said.get("gradient", said.get("advantage")), BATCHES[name].mask, strict=True):
                assert all(x == 0 for x, counts in zip(row, mask, strict=True) if not counts)


@pytest.mark.parametrize("name", ours.METHODS)
def test_every_method_is_compared_or_says_why_not(name: str):
    module = oracle_of(name)
    stated, reason = getattr(module, "PAIRINGS", []), getattr(module, "WITHOUT_PEER", "")
    assert bool(stated) != bool(reason), f"tests/methods/{name}.py: either PAIRINGS or WITHOUT_PEER"
    assert {pairing.method for pairing in stated} <= {name}
    assert stated == [pairing for pairing in PAIRINGS.values() if pairing.method == name]


@pytest.mark.parametrize("pairing", CLIPPED)
def test_the_batches_reach_both_sides_of_the_clip(pairing: Pairing):
    cut = {1: False, -1: False}
    spared = False
    for name in pairing.batches:
        surrogate, seen = ours.judged(pairing, BATCHES[name])
        advantages, mask = seen.advantages.expand_as(seen.log_probs), seen.response_mask
        clipped = surrogate.clipped.expand_as(mask) & mask
        for sign in cut:
            cut[sign] |= bool((clipped & (advantages.sign() == sign)).any())
        spared |= bool((~clipped & mask & (advantages != 0)).any())
    assert spared
    assert cut[1]
    assert cut[-1]


def test_a_change_in_the_sixth_digit_is_noticed(stored: dict[str, Any]):
    pairing, results = PAIRINGS["gspo-trl"], copy.deepcopy(stored["trl"]["results"])
    row = results["gspo-trl"]["wild"]["gradient"]
    row[:] = [[x * (1 + 5e-6) for x in tokens] for tokens in row]
    with pytest.raises(AssertionError, match="gspo-trl"):
        check(pairing, results)


def test_relative_difference():
    assert ours.relative([[2.0, -4.0]], [[2.0, -4.1]]) == pytest.approx(0.1 / 4.1)
    assert ours.relative(0.5, 0.0) == 0.5
    assert ours.relative([math.nan], [1.0]) == math.inf


# --- where the packages are installed ---------------------------------------------------------------


@pytest.mark.external
@pytest.mark.parametrize("peer", PEERS)
def test_the_package_still_says_what_is_stored(peer: str, stored: dict[str, Any], live: Any):
    said, fixture = live(peer), stored[peer]
    assert said["versions"][peer] == fixture["versions"][peer], (
        "another version: record it anew (tests/peers/record.py)"
    )
    for pairing in of_peer(peer):
        for name, now in said["results"][pairing.id].items():
            for part, value in fixture["results"][pairing.id][name].items():
                assert ours.relative(now[part], value) <= SAME_CODE, (pairing.id, name, part)


@pytest.mark.external
@pytest.mark.parametrize("pairing", ALL)
def test_equals_the_installed_package(pairing: Pairing, live: Any, table: Table):
    table.add(pairing.id, *check(pairing, live(pairing.peer)["results"]))
