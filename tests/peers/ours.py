"""Our side of a comparison: the method's loss as the trainer forms it, the named corrections, and the differences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import baselines
import fspo
from peers.batches import MAX_NEW_TOKENS, Batch
from peers.pairings import ADVANTAGE, VALUE, Pairing
from suite.types import CreditInput, Method, PolicyBatch, Surrogate

METHODS: dict[str, Method] = {**baselines.METHODS, **fspo.METHODS}


def _tensor(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def policy_batch(batch: Batch, per_token: bool = False) -> PolicyBatch:
    """The numbers of a batch as a method reads them, in float64; log_probs and values carry gradients."""
    mask = torch.tensor(batch.mask).bool()
    return PolicyBatch(
        log_probs=_tensor(batch.log_probs).requires_grad_(True),
        old_log_probs=_tensor(batch.old_log_probs),
        advantages=_tensor(batch.token_advantages) if per_token else _tensor(batch.advantages)[:, None],
        response_mask=mask,
        lengths=mask.sum(1).double(),
        values=_tensor(batch.values).requires_grad_(True),
        old_values=_tensor(batch.old_values),
        returns=_tensor(batch.returns),
    )


# --- corrections: one named departure each ----------------------------------------------------------


def _log_ratio(seen: PolicyBatch) -> Tensor:
    return torch.where(seen.response_mask, seen.log_probs - seen.old_log_probs, 0.0)


def _token_clamp(seen: PolicyBatch) -> PolicyBatch:
    """Token log ratios within [-20, 20], no gradient beyond (verl)."""
    log_ratio = torch.clamp(seen.log_probs - seen.old_log_probs, -20.0, 20.0)
    return dataclasses.replace(seen, log_probs=seen.old_log_probs + log_ratio)


def _mean_ceiling(seen: PolicyBatch) -> PolicyBatch:
    """Responses whose mean log ratio exceeds 10 are scaled down to 10 and carry no gradient (verl's gspo)."""
    mean = (_log_ratio(seen).sum(1) / seen.lengths).detach()[:, None]
    held = seen.old_log_probs + (seen.log_probs - seen.old_log_probs).detach() * 10.0 / mean
    return dataclasses.replace(seen, log_probs=torch.where(mean > 10.0, held, seen.log_probs))


def _weight_floor(seen: PolicyBatch) -> PolicyBatch:
    """Token weights of at least .8 (verl's cispo): the old log-probs move, for the weight is data there."""
    log_ratio = (seen.log_probs - seen.old_log_probs).detach()
    return dataclasses.replace(seen, old_log_probs=seen.log_probs.detach() - log_ratio.clamp(min=math.log(0.8)))


def _sequence_floor(seen: PolicyBatch) -> PolicyBatch:
    """S of at least log 1e-8 (TRL's vespo): the old log-probs move, for phi is data there."""
    log_ratio = _log_ratio(seen).detach()
    total = log_ratio.sum(1, keepdim=True)
    scaled = log_ratio * (total.clamp(min=math.log(1e-8)) / total)
    return dataclasses.replace(seen, old_log_probs=seen.log_probs.detach() - scaled)


def _unbiased(advantages: Tensor, batch: Batch) -> Tensor:
    """Advantages whitened with the population's variance, as if with the unbiased one (verl's gae)."""
    tokens = sum(map(sum, batch.mask))
    return advantages * math.sqrt((tokens - 1) / tokens)


def _lone_reward(advantages: Tensor, batch: Batch) -> Tensor:
    """Groups of one keep their reward, divided by a standard deviation of 1 plus 1e-6 (verl's grpo)."""
    lone = torch.tensor([[batch.groups.count(g) == 1] for g in batch.groups])
    return torch.where(lone, _tensor(batch.rewards)[:, None] / (1 + 1e-6), advantages)


INPUTS: Mapping[str, Callable[[PolicyBatch], PolicyBatch]] = {
    "token_clamp": _token_clamp,
    "mean_ceiling": _mean_ceiling,
    "weight_floor": _weight_floor,
    "sequence_floor": _sequence_floor,
}
OUTPUTS: Mapping[str, Callable[[Tensor, Batch], Tensor]] = {"unbiased": _unbiased, "lone_reward": _lone_reward}


# --- our numbers ------------------------------------------------------------------------------------


def method_of(pairing: Pairing, corrected: bool = False) -> Method:
    """The method with the comparison's hyper-parameters, and with those of the correction if there is one."""
    method, changes = METHODS[pairing.method], dict(pairing.hyper)
    if corrected and pairing.departure:
        changes |= pairing.departure.hyper
        method = METHODS[pairing.departure.method or pairing.method]
    return dataclasses.replace(method, hyper=dataclasses.replace(method.hyper, **changes)) if changes else method


def divisors(batch: PolicyBatch) -> dict[str, float]:
    """What a sum of objectives may be divided by: our three divisors, and two that only a peer has."""
    rows, width = batch.response_mask.shape
    return {
        "responses": rows,
        "tokens": float(batch.lengths.sum()),
        "constant": rows * MAX_NEW_TOKENS,
        "nonempty": int((batch.lengths > 0).sum()),
        "width": rows * width,
    }


def judged(pairing: Pairing, batch: Batch) -> tuple[Surrogate, PolicyBatch]:
    """What our method says of the batch, without correction."""
    method, seen = method_of(pairing), policy_batch(batch, pairing.per_token)
    return method.surrogate(seen, method.hyper, {}), seen


def _policy(pairing: Pairing, batch: Batch, corrected: bool) -> dict[str, Any]:
    method, plain = method_of(pairing, corrected), policy_batch(batch, pairing.per_token)
    departure = pairing.departure if corrected else None
    seen = INPUTS[departure.inputs](plain) if departure and departure.inputs else plain
    surrogate = method.surrogate(seen, method.hyper, {})
    objective = surrogate.objective * plain.lengths if departure and departure.weights else surrogate.objective
    divisor = departure.divisor if departure and departure.divisor else surrogate.divisor
    loss = -objective.sum() / divisors(plain)[str(divisor)]
    (gradient,) = torch.autograd.grad(loss, plain.log_probs)
    return {"loss": loss.item(), "gradient": gradient.tolist()}


def _value(pairing: Pairing, batch: Batch) -> dict[str, Any]:
    method, seen = method_of(pairing), policy_batch(batch)
    assert method.value_loss is not None
    loss = method.value_loss(seen, method.hyper).sum() / divisors(seen)["tokens"]
    (gradient,) = torch.autograd.grad(loss, seen.values)
    return {"loss": loss.item(), "gradient": gradient.tolist()}


def _advantage(pairing: Pairing, batch: Batch, corrected: bool) -> dict[str, Any]:
    method, mask = method_of(pairing, corrected), torch.tensor(batch.mask).bool()
    seen = CreditInput(_tensor(batch.rewards), torch.tensor(batch.groups), mask, _tensor(batch.values))
    credit = method.credit(seen, method.hyper)
    wanted = credit.returns if pairing.variant.endswith("returns") else credit.advantages
    if corrected and pairing.departure and pairing.departure.outputs:
        wanted = OUTPUTS[pairing.departure.outputs](wanted, batch)
    return {"advantage": (wanted * mask).tolist()}


def run(pairing: Pairing, batch: Batch, corrected: bool = False) -> dict[str, Any]:
    """Our loss and gradient, or advantages, of one batch; `corrected` follows the peer's named departure."""
    if pairing.target == ADVANTAGE:
        return _advantage(pairing, batch, corrected)
    return _value(pairing, batch) if pairing.target == VALUE else _policy(pairing, batch, corrected)


# --- differences ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Largest relative difference of the loss (or of the advantages), and of the gradient where there is one."""

    loss: float
    gradient: float | None

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return self.loss if self.gradient is None else max(self.loss, self.gradient)


def relative(ours: Any, theirs: Any) -> float:
    """max |ours - theirs| / max |theirs|; the plain max |ours| where theirs is 0 everywhere. NaN never agrees."""
    mine, peers = _tensor(ours), _tensor(theirs)
    scale = float(peers.abs().max())
    difference = float((mine - peers).abs().max()) / (scale or 1.0)
    return difference if math.isfinite(difference) else math.inf


def difference(pairing: Pairing, said: Mapping[str, Any], batches: Mapping[str, Batch], corrected: bool) -> Difference:
    """The largest differences over a comparison's batches, `said` being the peer's results by batch."""
    mine = {name: run(pairing, batches[name], corrected) for name in pairing.batches}
    if pairing.target == ADVANTAGE:
        return Difference(max(relative(mine[n]["advantage"], said[n]["advantage"]) for n in pairing.batches), None)
    by_part = [max(relative(mine[n][part], said[n][part]) for n in pairing.batches) for part in ("loss", "gradient")]
    return Difference(*by_part)
