"""Which way an update points: clipped against unclipped, method against method, and how far an unfair clip turns it.

All directions ascend: they are gradients of the step objective, KL penalty aside. A cosine is nan where a vector is 0
(all clipped, or all advantages 0) or not finite (a weight e^S that overflowed).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from suite.arithmetic import divisor_count
from suite.methods.trial_batches import gradient, judged, judged_with_gradients
from suite.policy.scoring import score
from suite.records.update_log import UpdateLog
from suite.replay.one_method import asking, policy_batch
from suite.training.whole_batch import ScoredBatch, whole_batch
from suite.types import Method, Policy, PolicyBatch, State, Surrogate

OWN = "own unclipped"
STEP = ["cell", "seed", "step", "update"]
ROUNDING = 1e-6  # how far below its bound a cosine of float32 gradients must lie to count as a violation
States = Mapping[str, State]
Weights = Callable[[Sequence[int], PolicyBatch], Iterable[Tensor]]  # rows, batch -> d something / d log-probs [n, T]


@dataclass(frozen=True)
class LogProbSpace:
    """One number a response token. No model is needed; contributions of different responses are orthogonal."""

    batch: PolicyBatch

    def vectors(self, weights: Weights, count: int) -> tuple[Tensor, PolicyBatch]:
        """The `count` weights themselves, padding left out, [count, D]; and the batch."""
        rows = weights(range(len(self.batch.lengths)), self.batch)
        return torch.stack([row[self.batch.response_mask] for row in rows]), self.batch


@dataclass(frozen=True)
class ParameterSpace:
    """One number a trainable parameter, in the order of `model.parameters()`; 4 bytes x P a direction.

    `parts` as `suite.training.update.optimizer_step` takes them: micro-batches with old log-probs and advantages.
    """

    model: Policy
    parts: Sequence[ScoredBatch]
    float32_head: bool = False

    def vectors(self, weights: Weights, count: int) -> tuple[Tensor, PolicyBatch]:
        """Weights times d log-probs / d parameters, float32 [count, D]; and all responses with their new log-probs.

        One forward, and a backward (twice a forward) for each weight that is not 0: (1 + 2k) / 3k of k separate passes.
        """
        parameters, scored = [p for p in self.model.parameters() if p.requires_grad], []
        sizes = [p.numel() for p in parameters]
        total = torch.zeros(count, sum(sizes), device=parameters[0].device)
        for part in self.parts:
            log_probs = score(self.model, part.micro, float32_head=self.float32_head)
            scored.append(log_probs.detach())
            rows = list(weights(part.micro.rows, dataclasses.replace(part.batch, log_probs=scored[-1])))
            active = [i for i, row in enumerate(rows) if row.any()]
            for i in active:
                keep = i != active[-1]
                found = torch.autograd.grad(log_probs, parameters, rows[i], retain_graph=keep, materialize_grads=True)
                for place, piece in zip(total[i].split(sizes), found, strict=True):
                    place += piece.flatten()
        return total, whole_batch(self.parts, scored)


Space = LogProbSpace | ParameterSpace


@dataclass(frozen=True)
class Directions:
    """Update directions of the same responses under k methods, clipped and (where asked for) unclipped, [k, D]."""

    names: tuple[str, ...]
    clipped: Tensor
    unclipped: Tensor | None


def directions(
    space: Space, methods: Mapping[str, Method], states: States, *, max_new_tokens: int, unclipped: bool = True
) -> Directions:
    """d (sum_i J_i / count) of one optimizer step for every method, with its own count.

    Methods share the advantages, so that they differ by weight and clip alone. `states` are the running estimates
    that the surrogates see, by method (missing: none); a method that observes first must have seen this very step.
    """
    now = {name: states.get(name, {}) for name in methods}
    columns = ("objective", "unclipped")[: 1 + unclipped]

    def weights(rows: Sequence[int], batch: PolicyBatch) -> Iterator[Tensor]:
        for column in columns:
            yield from (_gradient(method, batch, now[name], column) for name, method in methods.items())

    found, batch = space.vectors(weights, len(columns) * len(methods))
    counted = partial(divisor_count, lengths=batch.lengths, max_new_tokens=max_new_tokens)
    counts = [counted(_judged(method, batch, now[name]).divisor) for name, method in methods.items()]
    clipped, *rest = found.unflatten(0, (len(columns), -1)).div_(found.new_tensor(counts)[:, None])
    return Directions(tuple(methods), clipped, rest[0] if rest else None)


def gram(*vectors: Tensor) -> np.ndarray:
    """Inner products of the rows of all matrices, [n, n], summed in float64; the matrices are never copied whole."""
    pieces = zip(*(one.split(1 << 20, dim=1) for one in vectors), strict=True)
    blocks = (torch.cat(piece).double() for piece in pieces)
    return torch.stack([block @ block.T for block in blocks]).sum(0).cpu().numpy()


def cosines(found: Directions) -> pd.DataFrame:
    """Columns method, against (OWN, or another method clipped as well), cosine."""
    products = gram(*(rows for rows in (found.clipped, found.unclipped) if rows is not None))
    norms, rows = np.sqrt(np.diag(products)), []
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = products / np.outer(norms, norms)
    for i, name in enumerate(found.names):
        rows += [] if found.unclipped is None else [(name, OWN, matrix[i, len(found.names) + i])]
        rows += [(name, other, matrix[i, j]) for j, other in enumerate(found.names) if j != i]
    return pd.DataFrame(rows, columns=["method", "against", "cosine"])


def log_prob_cosines(methods: Mapping[str, Method], log: UpdateLog, states: States) -> pd.DataFrame:
    """`cosines` in log-prob space at every optimizer step with update > 0: STEP, method, against, cosine.

    Advantages are the group-centred rewards; every run starts from `states`; both as in
    `suite.replay.one_method.replay`.
    """
    found = partial(directions, methods=methods, max_new_tokens=1)  # a count turns nothing
    return _every_step(methods, log, states, lambda _, batch, now: cosines(found(LogProbSpace(batch), states=now)))


def cosine_summary(frame: pd.DataFrame, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> pd.DataFrame:
    """Over the optimizer steps: method, against, steps (where the cosine is defined), mean, q0.05, ..."""
    groups = frame.groupby(["method", "against"], sort=False)["cosine"]
    columns = {"steps": groups.count(), "mean": groups.mean()} | {f"q{q:g}": groups.quantile(q) for q in quantiles}
    return pd.DataFrame(columns).reset_index()


def _gradient(method: Method, batch: PolicyBatch, state: State, column: str = "objective") -> Tensor:
    with asking(method):
        return gradient(method, batch, state, column)


def _judged(method: Method, batch: PolicyBatch, state: State) -> Surrogate:
    with asking(method):
        return judged(method, batch, state)


def _estimates(method: Method, batch: PolicyBatch, state: State) -> tuple[State, State]:
    """The running estimates that the surrogate sees at this optimizer step, and those after it."""
    if method.observe is None or not method.reads_state(method.hyper):
        return state, state
    with asking(method):
        after = method.observe(batch, method.hyper, state)
    return (after if method.observe_first(method.hyper) else state), after


def _every_step(methods: Mapping[str, Method], log: UpdateLog, states: States, measure: Any) -> pd.DataFrame:
    """measure(rows, batch, what the surrogates see) of every optimizer step; update 0 is observed only."""
    keys = pd.DataFrame({"cell": log.cells, "seed": log.seed, "step": log.step, "update": log.update})
    groups: dict[Any, np.ndarray] = dict(keys.groupby(STEP).indices)
    run, now, frames = None, states, [pd.DataFrame(columns=STEP)]
    for key in sorted(groups):
        run, now = key[:2], now if key[:2] == run else states
        batch = policy_batch(log, groups[key])
        found = {name: _estimates(method, batch, now.get(name, {})) for name, method in methods.items()}
        if key[3] > 0:
            table = measure(groups[key], batch, {name: seen for name, (seen, _) in found.items()})
            frames.append(pd.DataFrame(dict(zip(STEP, key, strict=True)), index=table.index).join(table))
        now = {name: after for name, (_, after) in found.items()}
    return pd.concat(frames[1:] or frames, ignore_index=True)


@dataclass(frozen=True)
class Adam:
    """AdamW's running means of the loss's gradient and of its square, flat; `max_grad_norm` cuts a gradient first."""

    first: Tensor | float
    second: Tensor | float
    steps: int
    betas: tuple[float, float]
    eps: float
    max_grad_norm: float = math.inf

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, max_grad_norm: float = math.inf) -> Self:
        """The memory of an AdamW over one group of parameters; ValueError where they took unequal numbers of steps."""
        (group,) = optimizer.param_groups
        parameters = [p for p in group["params"] if p.requires_grad]
        kept = [optimizer.state.get(p) or {"step": 0, "exp_avg": 0 * p, "exp_avg_sq": 0 * p} for p in parameters]
        (steps,) = {int(entry["step"]) for entry in kept}
        first, second = (torch.cat([e[name].detach().flatten() for e in kept]) for name in ("exp_avg", "exp_avg_sq"))
        return cls(first, second, steps, group["betas"], group["eps"], max_grad_norm)

    def direction(self, gradients: Tensor) -> Tensor:
        """What a step adds to the parameters per unit of learning rate, weight decay aside; gradients ascend, [k, P].

            m = b1 m + (1 - b1) h,  v = b2 v + (1 - b2) h^2,  -(m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

        with h = -gradient. Without memory this is the gradient's sign (less where it is as small as eps), so a cosine
        counts parameters; with memory the shared momentum pulls methods together. Source: arXiv 1711.05101, alg. 2.
        """
        cut = (self.max_grad_norm / (gradients.norm(dim=-1, keepdim=True) + 1e-6)).clamp(max=1.0)
        h, (b1, b2), t = -gradients * cut, self.betas, self.steps + 1
        mean = (b1 * self.first + (1 - b1) * h) / (1 - b1**t)
        return -mean / (((b2 * self.second + (1 - b2) * h**2) / (1 - b2**t)).sqrt() + self.eps)

    def after(self, found: Directions) -> Directions:
        """Directions in parameter space as steps of this optimizer, each method's on its own.

        They replace what was found, row by row: of a large model memory holds one set of directions, not two.
        """
        for rows in (found.clipped, found.unclipped):
            for row in [] if rows is None else rows:
                row.copy_(self.direction(row))
        return found


@dataclass(frozen=True)
class LengthUpdates:
    """What every length bin adds to one method's update: row l of `unclipped` [B, D] is p(l) g(l), up to one factor.

    responses [B] with a gradient (advantage not 0); acceptance [B], nan in an empty bin; clipped [D], the whole update.
    """

    responses: np.ndarray
    acceptance: np.ndarray
    unclipped: Tensor
    clipped: Tensor


def per_length_updates(space: Space, method: Method, state: State, bins: Tensor) -> LengthUpdates:
    """The update by length: bins [N] holds every response's bin number, by row. B + 1 vectors, undivided.

    Every response that teaches must be in a bin (a truncated one in a bin of its own): the bound is about their sum.
    """
    count, order = int(bins.max()) + 1, []

    def weights(rows: Sequence[int], batch: PolicyBatch) -> Iterator[Tensor]:
        order.extend(rows)
        mine, whole = bins[list(rows)].to(batch.lengths.device), _gradient(method, batch, state, "unclipped")
        yield from (whole * (mine == i)[:, None] for i in range(count))
        yield _gradient(method, batch, state)

    found, batch = space.vectors(weights, count + 1)
    responses, acceptance = _acceptance(_judged(method, batch, state).clipped, batch, bins[order], count)
    return LengthUpdates(responses, acceptance, found[:-1], found[-1])


def _acceptance(clipped: Tensor, batch: PolicyBatch, bins: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`responses` and `acceptance` of `LengthUpdates`; bins [n] of the batch's responses, clipped as in `Surrogate`."""
    share = clipped.sum(dim=1) / (1 if clipped.shape[1] == 1 else batch.lengths)
    teaches = ((batch.advantages != 0) & batch.response_mask).any(dim=1).cpu().numpy()
    where = bins.numpy()[teaches]
    responses = np.bincount(where, minlength=count)
    with np.errstate(invalid="ignore"):
        return responses, np.bincount(where, 1 - share.double().cpu().numpy()[teaches], count) / responses


def length_statement(updates: LengthUpdates) -> dict[str, float]:
    """The cosine that LRE guarantees beside the ones measured.

        u = sum_l p(l) g(l)     s = sum_l p(l) (a(l) / abar) g(l)     |s - u| <= LRE sum_l p(l) |g(l)| = K LRE |u|

    so cos(s, u) >= sqrt(1 - (K LRE)^2) if K LRE < 1 (any abar > 0 would do); `scaled` is cos(s, u), and never below
    `bound`. `cosine` is that of the method's own update c and may be: a clip picks responses within a bin by ratio and
    sign of A. `departure` = |c - abar s| / |abar s| is 0 where it does not; `violated` is whether c lies below the
    bound, nan where there is none.
    `orthogonal_bound` = sqrt(1 - LRE^2) holds in log-prob space only: bins share no token there, so that
    |s - u|^2 = sum_l (a(l) / abar - 1)^2 |p(l) g(l)|^2 <= LRE^2 |u|^2, while 1 <= K <= sqrt(B) (K = sqrt(B) for equal
    norms) and `bound` is nan from LRE = 1 / K on: .35 with 8 bins, 1 / sqrt(N) with a bin for each response.

    `concentration` is K, how much the updates of different lengths cancel: 1 when they all point one way, inf when
    their sum is 0. LRE is the largest form of `suite.replay.fairness.length_reweighting_error`.

    Source: arXiv 2509.09177 states that a small LRE bounds the cosine; these bounds are ours.
    """
    return _statement(updates.responses, updates.acceptance, gram(updates.unclipped, updates.clipped[None]))


def _statement(responses: np.ndarray, acceptance: np.ndarray, products: np.ndarray) -> dict[str, float]:
    """`length_statement` from the inner products [B + 1, B + 1] of the updates of the bins and, last, the whole one."""
    used = np.flatnonzero(responses)
    share, a = responses[used] / responses.sum(), acceptance[used]
    kept = np.append(used, len(responses))
    products = products[np.ix_(kept, kept)]
    bins, own = products[:-1, :-1], products[-1, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        lre = np.abs(a / (share @ a) - 1).max() if len(used) else np.nan
        norm, scaled, norms = np.sqrt(bins.sum()), a @ bins @ a, np.sqrt(np.diag(bins))
        numbers = {
            "lre": lre,
            "concentration": norms.sum() / norm,
            "bound": np.sqrt(1 - (norms.sum() / norm * lre) ** 2),
            "orthogonal_bound": np.sqrt(1 - lre**2),
            "scaled": (a @ bins).sum() / (norm * np.sqrt(scaled)),
            "cosine": products[-1, :-1].sum() / (norm * np.sqrt(own)),
            "departure": np.sqrt(max(own - 2 * a @ products[-1, :-1] + scaled, 0.0) / scaled),
        }
    below = numbers["cosine"] < numbers["bound"] - ROUNDING
    numbers["violated"] = np.nan if np.isnan(numbers["bound"]) else below
    return {name: float(x) for name, x in numbers.items()}


def log_prob_bounds(methods: Mapping[str, Method], log: UpdateLog, states: States, edges: np.ndarray) -> pd.DataFrame:
    """`length_statement` in log-prob space at every optimizer step: STEP, method, its numbers.

    Bin i is edges[i] <= L < edges[i + 1], truncated responses apart. With few responses a step, LRE is mostly noise.
    """
    where = np.searchsorted(edges, log.lengths, side="right") - 1
    if np.any((where < 0) | (where > len(edges) - 2)):
        raise ValueError(f"bin edges {list(edges)} do not cover every length")
    bins = torch.from_numpy(np.where(log.truncated, len(edges) - 1, where))

    def measure(rows: np.ndarray, batch: PolicyBatch, now: States) -> pd.DataFrame:
        mine = bins[rows]
        of = {name: log_prob_products(method, batch, now[name], mine) for name, method in methods.items()}
        return pd.DataFrame([{"method": name} | _statement(*parts) for name, parts in of.items()])

    return _every_step(methods, log, states, measure)


def log_prob_products(
    method: Method, batch: PolicyBatch, state: State, bins: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses and acceptance by length bin, and the inner products [B + 1, B + 1] that a statement is made of.

    The same as `per_length_updates` in log-prob space, without its vectors: bins share no token there, so that the
    product of two bins is 0, and the others are sums over responses.
    """
    count = int(bins.max()) + 1
    with asking(method):
        said, gradients = judged_with_gradients(method, batch, state, ["unclipped", "objective"])
    whole, clipped = (found.double() for found in gradients)
    by_row = torch.stack([(whole * whole).sum(1), (whole * clipped).sum(1), (clipped * clipped).sum(1)])
    squares, across, own = torch.zeros(3, count, dtype=torch.float64).index_add_(1, bins, by_row)
    products = torch.zeros(count + 1, count + 1, dtype=torch.float64)
    products[range(count), range(count)] = squares
    products[-1, :-1] = products[:-1, -1] = across
    products[-1, -1] = own.sum()
    return *_acceptance(said.clipped, batch, bins, count), products.numpy()
