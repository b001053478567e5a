"""Gradients, weights and shared clips of logged responses, against loops over floats, and what must hold of them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import baselines
import fspo
import suite.replay.one_method
from suite.records.update_log import UpdateLog
from suite.replay.gradient_shares import clip_overlap, clip_overlap_by_length, response_gradients, weight_summary
from suite.replay.one_method import replay
from suite.replay.resampling import bin_labels, quantile_edges
from suite.types import Clip, Level, Method

METHODS: dict[str, Method] = {**baselines.METHODS, **fspo.METHODS}
GOLDEN = UpdateLog.load(Path(__file__).parents[1] / "golden" / "rollouts.safetensors")
EDGES = (1, 3, 10)
NUMBERS = ["objective", "unclipped", "clipped", "gradient_norm", "unclipped_gradient_norm", "gradient_sum"]
NUMBERS += ["log_weight"]

# Log ratios and advantage of four responses: one in a band of +-0.2 a token, one clipped from above in two of three
# tokens, one clipped from below as a whole, one without a gradient.
FOUR = [
    ([0.01, -0.02], 0.5),
    ([0.5, -0.1, 0.3], 0.25),
    ([-0.4], -0.5),
    ([0.3, 0.1, -0.2, 0.4], 0.0),
]


def log_of(responses: list[tuple[list[float], float]], **columns: object) -> UpdateLog:
    """The log of the responses, in the order given; every old token has log-probability -1.5."""
    n, flat = len(responses), np.array([x for ratios, _ in responses for x in ratios])
    given = {
        "problem_ids": np.array([f"p{i}" for i in range(n)]),
        "seed": 0,
        "step": 0,
        "update": 1,
        "reward": np.zeros(n),
        "truncated": np.zeros(n, bool),
    }
    return UpdateLog(
        advantage=np.array([a for _, a in responses]),
        lengths=np.array([len(ratios) for ratios, _ in responses]),
        log_probs=flat - 1.5,
        old_log_probs=np.full(len(flat), -1.5),
        **(given | columns),
    )


def random_log(seed: int = 0, rows: int = 60, updates: int = 3) -> UpdateLog:
    """Both signs, zero advantages, truncation, and ratios that leave every method's band at times."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, rows)
    scales = rng.choice([2e-3, 0.05, 0.6], rows)
    responses = [
        (rng.normal(0, s, n).tolist(), a)
        for n, s, a in zip(lengths, scales, rng.choice([-0.5, 0.0, 0.5], rows), strict=True)
    ]
    return log_of(responses, update=np.sort(np.arange(rows) % updates), truncated=lengths == 8)


# --- gradients, by hand ---------------------------------------------------------------------------


def by_hand(name: str, ratios: list[float], advantage: float) -> dict[str, float]:
    """One response's row by the equations of grpo, cispo (capped at 1.2), rloo, gspo or fspo, with loops."""
    total, length = math.fsum(ratios), len(ratios)
    if name in ("grpo", "cispo"):
        weights, divisor = ratios, length if name == "grpo" else 1
        low, high = (math.log(0.8), math.log(1.2)) if name == "grpo" else (-math.inf, math.log(1.2))
    else:
        weights, divisor = [total / length if name == "gspo" else total], 1
        low, high = (math.log(1 - 3e-4), math.log(1 + 4e-4)) if name == "gspo" else (math.log(0.8), math.log(1.2))
        if name == "fspo":
            low, high = -0.03 * math.sqrt(length), 0.03 * math.sqrt(length)
    kept, free, value, bare, hits = [], [], 0.0, 0.0, 0
    for i, w in enumerate(weights):
        hit = (advantage > 0 and w > high) or (advantage < 0 and w < low)
        held = min(max(w, low), high) if hit else w
        reach = math.exp(w) * advantage / (length if name == "gspo" else divisor)
        stays = math.exp(held) * advantage if name == "cispo" else (0.0 if hit else reach)
        copies = length if len(weights) == 1 and name not in ("grpo", "cispo") else 1
        kept += [stays] * copies
        free += [reach] * copies
        log_prob = ratios[i] - 1.5 if name == "cispo" else 1.0
        value += math.exp(held) * advantage * log_prob / divisor
        bare += math.exp(w) * advantage * log_prob / divisor
        hits += hit
    return {
        "objective": value,
        "unclipped": bare,
        "clipped": hits / len(weights),
        "gradient_norm": math.sqrt(math.fsum(g * g for g in kept)),
        "unclipped_gradient_norm": math.sqrt(math.fsum(g * g for g in free)),
        "gradient_sum": math.fsum(kept),
        "log_weight": math.fsum(weights) / len(weights),
    }


def hand_method(name: str) -> Method:
    capped = dataclasses.replace(METHODS["cispo"].hyper, max_weight=1.2)
    return dataclasses.replace(METHODS[name], hyper=capped) if name == "cispo" else METHODS[name]


@pytest.mark.parametrize("name", ["grpo", "cispo", "rloo", "gspo", "fspo"])
def test_every_column_is_the_equation(name: str) -> None:
    frame = response_gradients(hand_method(name), log_of(FOUR), {})
    expected = [by_hand(name, *response) for response in FOUR]
    assert 0 < sum(row["clipped"] for row in expected) < len(FOUR)
    for row, wanted in zip(frame.to_dict("records"), expected, strict=True):
        assert {key: row[key] for key in wanted} == pytest.approx(wanted, rel=2e-5, abs=2e-6)
    assert frame["sign"].tolist() == [1, 1, -1, 0]
    assert frame["length"].tolist() == [2, 3, 1, 4]


def test_a_token_weight_is_averaged_over_its_own_tokens() -> None:
    """CTPO's prefix sum does not vanish in the padding: a mean over the padded row would show it."""
    ratios = [0.1, -0.3, 0.2]
    frame = response_gradients(METHODS["ctpo"], log_of([(ratios, 0.5), ([0.0] * 9, 0.5)]), {})
    assert frame["log_weight"][0] == pytest.approx((0.1 - 0.2 + 0.0) / 3, abs=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_rows_and_clip_are_those_of_the_replay(name: str) -> None:
    log = random_log(4)
    frame, known = response_gradients(METHODS[name], log, {}), replay(METHODS[name], log, {})
    shared = ["cell", "seed", "step", "update", "problem_id", "length", "truncated", "sign", "clipped"]
    pd.testing.assert_frame_equal(frame[shared], known[shared])
    assert np.isfinite(frame[NUMBERS].to_numpy()).all()
    assert (frame.loc[frame["sign"] == 0, ["gradient_norm", "gradient_sum"]] == 0).all(axis=None)
    if METHODS[name].level == Level.SEQUENCE and METHODS[name].clip == Clip.MIN:
        assert ((frame["gradient_norm"] == 0) == ((frame["clipped"] == 1) | (frame["sign"] == 0))).all()


@pytest.mark.parametrize("name", METHODS)
def test_chunks_and_row_order_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = random_log(5)
    together = response_gradients(METHODS[name], log, {})
    monkeypatch.setattr(suite.replay.one_method, "CHUNK_TOKENS", 20)
    pieces = response_gradients(METHODS[name], log, {})
    np.testing.assert_allclose(together[NUMBERS], pieces[NUMBERS], rtol=1e-5, atol=1e-7)
    order = np.random.default_rng(0).permutation(len(log))
    kept = order[log.update[order] > 0]
    shuffled = response_gradients(METHODS[name], log.rows(order), {})
    expected = together.take(kept - np.count_nonzero(log.update == 0))
    np.testing.assert_allclose(shuffled[NUMBERS], expected[NUMBERS], rtol=1e-5, atol=1e-7)
    one, other = weight_summary(together, EDGES), weight_summary(shuffled, EDGES)
    pd.testing.assert_frame_equal(one, other, rtol=1e-5, atol=1e-7)


def test_running_estimates_go_along() -> None:
    """With drift "batch", FSPO's band is centred on its optimizer step: the clip must be that of the replay."""
    method = dataclasses.replace(fspo.FSPO, hyper=dataclasses.replace(fspo.FSPO.hyper, drift="batch"))
    log = dataclasses.replace(random_log(6), log_probs=random_log(6).log_probs - 0.2)
    frame = response_gradients(method, log, {})
    np.testing.assert_array_equal(frame["clipped"], replay(method, log, {})["clipped"])
    assert (frame["clipped"] != response_gradients(fspo.FSPO, log, {})["clipped"]).any()


def test_an_empty_log_gives_the_same_columns() -> None:
    log = log_of(FOUR)
    for name in ("fspo", "grpo"):
        full = response_gradients(METHODS[name], log, {})
        empty = response_gradients(METHODS[name], dataclasses.replace(log, update=0), {})
        assert empty.empty
        assert list(empty.columns) == list(full.columns)
    assert response_gradients(fspo.FSPO, log.rows(np.zeros(4, bool)), {}).empty


# --- the summary ----------------------------------------------------------------------------------


def made_frame() -> pd.DataFrame:
    """Five responses with numbers that are easy to add up; the last one truncated."""
    return pd.DataFrame(
        {
            "cell": "",
            "seed": 0,
            "step": 0,
            "update": 1,
            "problem_id": list("abcde"),
            "length": [1, 2, 5, 9, 9],
            "truncated": [False, False, False, False, True],
            "sign": [1, -1, 1, 0, 1],
            "clipped": [0.0, 0.0, 0.5, 0.0, 1.0],
            "gradient_norm": [1.0, 2.0, 3.0, 0.0, 0.0],
            "unclipped_gradient_norm": [1.0, 2.0, 5.0, 0.0, 8.0],
            "log_weight": np.log([1.0, 2.0, 4.0, 0.5, 8.0]),
        }
    )


def row_of(table: pd.DataFrame, sign: str, label: str) -> dict[str, float]:
    (row,) = table[(table["sign"] == sign) & (table["bin"] == label)].to_dict("records")
    return row


def kish(weights: list[float]) -> float:
    return sum(weights) ** 2 / (len(weights) * sum(w * w for w in weights))


def test_summary_by_hand() -> None:
    table = weight_summary(made_frame(), EDGES)
    everything = row_of(table, "all", "all")
    assert (everything["responses"], everything["with_gradient"]) == (5, 4)
    assert everything["ess_weight"] == pytest.approx(kish([1, 2, 4, 0.5, 8]))
    assert everything["ess_gradient"] == pytest.approx(kish([1, 2, 3, 0]))
    assert everything["mean_weight"] == pytest.approx(15.5 / 5)
    assert everything["weight_q50"] == pytest.approx(2)
    assert everything["weight_q25"] == pytest.approx(1)
    assert everything["weight_q99"] == pytest.approx(4 * 2**0.96)
    assert everything["loss_scale"] == pytest.approx(6 / 16)
    assert everything["mean_length"] == pytest.approx(26 / 5)
    short, long, cut = (row_of(table, "all", label) for label in ("1–2", "3–9", "truncated"))
    assert [r["responses"] for r in (short, long, cut)] == [2, 2, 1]
    assert [r["gradient_share"] for r in (short, long, cut)] == pytest.approx([3 / 6, 3 / 6, 0])
    assert [r["unclipped_gradient_share"] for r in (short, long, cut)] == pytest.approx([3 / 16, 5 / 16, 8 / 16])
    assert [r["loss_scale"] for r in (short, long, cut)] == pytest.approx([1, 3 / 5, 0])
    assert [r["truncated"] for r in (short, long, cut)] == [False, False, True]
    assert long["ess_gradient"] == 1  # the response with A = 0 has no gradient to spread
    assert math.isnan(cut["ess_gradient"])
    assert row_of(table, "A > 0", "1–2")["gradient_share"] == pytest.approx(1 / 4)
    assert row_of(table, "A < 0", "1–2")["gradient_share"] == 1
    assert table[(table["sign"] == "A < 0") & (table["bin"] == "3–9")].empty


def test_responses_are_counted_not_tokens() -> None:
    """Planted bug: repeated once a token, the same responses give other numbers."""
    frame = made_frame()
    by_token = frame.loc[frame.index.repeat(frame["length"])]
    right, wrong = (row_of(weight_summary(f, EDGES), "all", "all") for f in (frame, by_token))
    for name in ("responses", "ess_weight", "ess_gradient", "mean_weight", "weight_q25", "loss_scale"):
        assert right[name] != pytest.approx(wrong[name], rel=1e-3), name
    shares = [row_of(weight_summary(f, EDGES), "all", "1–2")["gradient_share"] for f in (frame, by_token)]
    assert shares[0] != pytest.approx(shares[1], rel=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_what_holds_of_every_method(name: str) -> None:
    method = METHODS[name]
    table = weight_summary(response_gradients(method, random_log(8), {}), (1, 3, 6, 9))
    for _, rows in table.groupby("sign"):
        total, parts = rows[rows["bin"] == "all"].iloc[0], rows[rows["bin"] != "all"]
        assert parts["responses"].sum() == total["responses"]
        assert parts["gradient_share"].sum() == pytest.approx(1)
        assert parts["unclipped_gradient_share"].sum() == pytest.approx(1)
        assert total["gradient_share"] == total["unclipped_gradient_share"] == 1
    assert table["ess_weight"].between(0, 1 + 1e-12).all()
    assert (table["ess_weight"] * table["responses"] >= 1 - 1e-12).all()
    assert table["ess_gradient"].dropna().between(0, 1 + 1e-12).all()
    assert (np.diff(table[[c for c in table if c.startswith("weight_q")]], axis=1) >= 0).all()
    if method.clip == Clip.NONE:
        assert table["loss_scale"].dropna().to_numpy() == pytest.approx(1)
        np.testing.assert_array_equal(table["gradient_share"], table["unclipped_gradient_share"])
    elif method.clip == Clip.MIN and name != "gmpo":
        assert (table["loss_scale"].dropna() <= 1 + 1e-6).all()
        assert table["loss_scale"].min() < 1


@pytest.mark.parametrize("name", ["fspo", "grpo", "cispo"])
def test_a_band_that_nothing_leaves_is_no_clip(name: str) -> None:
    frame = response_gradients(METHODS[name].scaled(1e5), random_log(2), {})
    table = weight_summary(frame, EDGES)
    assert table["loss_scale"].dropna().to_numpy() == pytest.approx(1)
    np.testing.assert_allclose(table["gradient_share"], table["unclipped_gradient_share"], rtol=1e-12)


def test_equal_weights_are_fully_effective() -> None:
    frame = made_frame().assign(log_weight=0.7, gradient_norm=2.0, sign=1)
    table = weight_summary(frame, EDGES)
    assert table["ess_weight"].to_numpy() == pytest.approx(1)
    assert table["ess_gradient"].to_numpy() == pytest.approx(1)
    one_carries_all = made_frame().assign(log_weight=[0.0, 0.0, 900.0, 0.0, 0.0])
    everything = row_of(weight_summary(one_carries_all, EDGES), "all", "all")
    assert everything["ess_weight"] == pytest.approx(1 / 5)
    assert everything["mean_weight"] == math.inf
    assert everything["weight_q50"] == 1


def test_a_number_that_overflowed_is_not_left_out() -> None:
    for broken in (math.inf, math.nan):
        frame = made_frame()
        frame.loc[0, ["gradient_norm", "unclipped_gradient_norm"]] = broken
        row = row_of(weight_summary(frame, EDGES), "all", "1–2")
        assert all(math.isnan(row[name]) for name in ("gradient_share", "loss_scale", "ess_gradient"))


def test_bins_are_those_of_the_fairness_tables() -> None:
    frame = response_gradients(fspo.FSPO, GOLDEN, {})
    edges = quantile_edges(frame.loc[~frame["truncated"], "length"].to_numpy(), 4)
    table = weight_summary(frame, edges)
    assert table.loc[table["sign"] == "all", "bin"].tolist() == ["all", *bin_labels(edges), "truncated"]
    one_length = weight_summary(made_frame(), (1, 2, 10))
    assert one_length["bin"].unique().tolist() == ["all", "1", "2–9", "truncated"]


def test_bad_edges_and_empty_frames_are_named() -> None:
    frame = made_frame()
    for edges in ((1,), (3, 3, 10), (10, 1)):
        with pytest.raises(ValueError, match="must rise"):
            weight_summary(frame, edges)
    for edges in ((2, 10), (1, 9)):
        with pytest.raises(ValueError, match="do not cover"):
            weight_summary(frame, edges)
    weight_summary(frame[frame["length"] < 9], (1, 9))
    weight_summary(frame[frame["truncated"]], (1, 2))
    with pytest.raises(ValueError, match="no responses"):
        weight_summary(frame[:0], EDGES)


# --- shared clips ---------------------------------------------------------------------------------


def clipping(*shares: float) -> pd.DataFrame:
    return made_frame().assign(clipped=shares, sign=[1, -1, 1, 0, 1])


def test_overlap_by_hand() -> None:
    frames = {
        "a": clipping(1, 1, 0, 0, 0),
        "b": clipping(0, 0.2, 0.7, 0, 0.1),  # a token method: one clipped token is enough
        "none": clipping(0, 0, 0, 1, 0),  # the row has A = 0: nothing to clip
        "other": clipping(0, 0, 0, 0, 0),
    }
    table = clip_overlap(frames)
    assert list(table.index) == list(table.columns) == list(frames)
    expected = {("a", "a"): 1, ("b", "b"): 1, ("a", "b"): 1 / 4, ("a", "none"): 0, ("b", "none"): 0}
    for (one, two), value in expected.items():
        assert table.loc[one, two] == table.loc[two, one] == pytest.approx(value)
    assert table.loc[["none", "other"], ["none", "other"]].isna().all(axis=None)


def test_overlap_of_all_methods_is_what_sets_say() -> None:
    log = random_log(9)
    frames = {name: response_gradients(method, log, {}) for name, method in METHODS.items()}
    table = clip_overlap(frames)
    sets = {name: set(np.flatnonzero(frame["clipped"] > 0)) for name, frame in frames.items()}
    for one, two in itertools.product(METHODS, METHODS):
        either = sets[one] | sets[two]
        wanted = len(sets[one] & sets[two]) / len(either) if either else math.nan
        assert table.loc[one, two] == pytest.approx(wanted, nan_ok=True)
    clips = [name for name in METHODS if sets[name]]
    assert len(clips) >= 15
    assert (np.diag(table.loc[clips, clips]) == 1).all()
    order = np.random.default_rng(1).permutation(len(frames["fspo"]))
    pd.testing.assert_frame_equal(table, clip_overlap({name: frame.take(order) for name, frame in frames.items()}))
    pd.testing.assert_frame_equal(table, clip_overlap({name: replay(m, log, {}) for name, m in METHODS.items()}))


def test_overlap_by_length_is_overlap_of_the_part() -> None:
    log, names = random_log(10), ("fspo", "gspo", "grpo")
    frames = {name: response_gradients(METHODS[name], log, {}) for name in names}
    table = clip_overlap_by_length(frames, EDGES)
    assert len(table.drop_duplicates(["sign", "bin", "method", "other"])) == len(table) == 3 * 3 * 4
    first = frames["fspo"]
    parts = {
        ("all", "all"): first["sign"] > -2,
        ("A < 0", "1–2"): (first["sign"] < 0) & (first["length"] < 3),
        ("A > 0", "truncated"): (first["sign"] > 0) & first["truncated"],
    }
    for (sign, label), here in parts.items():
        wanted = clip_overlap({name: frame[here] for name, frame in frames.items()})
        for row in table[(table["sign"] == sign) & (table["bin"] == label)].itertuples(index=False):
            assert row.jaccard == pytest.approx(wanted.loc[row.method, row.other], nan_ok=True)
            assert row.responses == here.sum()
            either = (frames[row.method]["clipped"] > 0) | (frames[row.other]["clipped"] > 0)
            assert row.clipped_by_either == (either & here).sum()


def test_overlap_of_nothing_and_of_different_responses() -> None:
    frame = made_frame()
    assert clip_overlap({}).shape == (0, 0)
    assert clip_overlap({"a": frame[:0], "b": frame[:0]}).isna().all(axis=None)
    assert clip_overlap_by_length({}, EDGES).empty
    assert clip_overlap_by_length({"a": frame}, EDGES).empty
    for other in (frame[::-1], frame[:-1], frame.assign(seed=1)):
        with pytest.raises(ValueError, match="same responses"):
            clip_overlap({"a": frame, "b": other})
