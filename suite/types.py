"""The records that every room of the suite passes to the next one.

Importing this module loads neither torch nor any task or method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class UserError(Exception):
    """A mistake the user can mend: one line that says what was wrong, where, and what to do.

    The command line prints it as `fspo: error: ...` and exits with code 2.
    """


def require(condition: bool, owner: object, field: str, demand: str) -> None:
    """UserError unless the condition holds: it names the setting, its value and what it must be.

    For the checks of a dataclass's own fields, in `__post_init__` or `check`: `demand` completes "must be ...".

    >>> unnamed = Problem("", "1 + 1 =", "2", task="sums", task_version="1")
    >>> require(unnamed.id != "", unnamed, "id", "a name")
    Traceback (most recent call last):
    suite.types.UserError: Problem.id = '': must be a name
    """
    if not condition:
        raise UserError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: must be {demand}")


def kind_of(value: object) -> str:
    """The type of a value as a message says it.

    >>> kind_of(1), kind_of("1")
    ('an int', 'a str')
    """
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


OWN_PROBLEMS = ".jsonl"
"""How the name of a task ends that is a file of the user's own."""


def task_name(reference: str) -> str:
    """What results call a task: its name, or of a file of problems the file's name without folder and ending.

    >>> task_name("gsm8k"), task_name("data/mine.jsonl@plain")
    ('gsm8k', 'mine')
    """
    file = reference.partition("@")[0]
    return file.rpartition("/")[2].removesuffix(OWN_PROBLEMS) if file.endswith(OWN_PROBLEMS) else reference


def reward_of(reference: str) -> str | None:
    """The reward of the user's own that a task's name asks for, `MODULE:NAME` behind its last @; None without one.

    >>> reward_of("data/mine.jsonl@plain@close:CLOSE"), reward_of("mine.jsonl@plain"), reward_of("gsm8k")
    ('close:CLOSE', None, None)
    """
    before, _, last = reference.rpartition("@")
    return last if before and ":" in last else None


# --- problems and rollouts ------------------------------------------------------------------------


class Verdict(StrEnum):
    """What the grader said of one response. Only `CORRECT` is rewarded, unless a reward is the user's own.

    `NO_ANSWER`: the response holds nothing to compare. `UNDECIDED` is never counted as wrong in silence.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    UNDECIDED = "undecided"


class FinishReason(StrEnum):
    """Why a response ended: `STOP` (end token or stop string) or `LENGTH` (cut at the token limit)."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer. `solution` is a worked answer where the set has one."""

    id: str
    prompt: str
    gold: str
    task: str
    task_version: str
    solution: str | None = None


@dataclass(frozen=True)
class Task:
    """A set of problems as a value: where they come from, how they are asked and how they are graded.

    `load(split, data_dir)` returns the problems of "train" or "eval"; `data_dir` is None for the hub.
    `render(problem)` is the exact text the model continues; `question(problem)` the bare question for chat templates.
    `grade(pairs)` maps (response text, problem) pairs to verdicts, in order, and never raises for a response.
    `answer(response, problem)` is the final answer in one spelling, for votes; None where there is none.
    `panel` holds further graders, which nothing is rewarded by, under their names.
    `kind(problem)` names a problem's kind, by which accuracy is shown too; None where the set has one kind.
    `grader` is the version of a grader that sets share; empty where the set has a rule of its own (`version` tells it).
    `score(pairs)` is a reward of the user's own, a verdict and a number for each pair; `grade` then gives its verdicts.
    """

    name: str
    version: str
    source: str
    load: Callable[[str, Path | None], list[Problem]]
    render: Callable[[Problem], str]
    question: Callable[[Problem], str]
    grade: Callable[[Sequence[tuple[str, Problem]]], list[Verdict]]
    stop: tuple[str, ...]
    max_new_tokens: int
    trainable: bool = True
    answer: Callable[[str, Problem], str | None] = lambda response, problem: response.strip() or None
    panel: Mapping[str, Callable[[Sequence[tuple[str, Problem]]], list[Verdict]]] = field(default_factory=dict)
    kind: Callable[[Problem], str] | None = None
    grader: str = ""
    score: Callable[[Sequence[tuple[str, Problem]]], list[tuple[Verdict, float]]] | None = None

    def scored(self, pairs: Sequence[tuple[str, Problem]]) -> list[tuple[Verdict, float]]:
        """Verdict and reward of each pair: 1 for CORRECT and 0 otherwise, or what a reward of the user's own says."""
        if self.score is not None:
            return self.score(pairs)
        return [(verdict, float(verdict == Verdict.CORRECT)) for verdict in self.grade(pairs)]

    @property
    def judged_version(self) -> str:
        """What a result says that it is about: the set's version and, where sets share a grader, which one it was.

        Results from before graders had versions say the set's alone: theirs is grader 1.
        """
        return f"{self.version}, grader {self.grader}" if self.grader else self.version


@dataclass(frozen=True)
class Rollout:
    """One sampled response. `sampler_log_probs` are the sampler's own, one per response token, in nats.

    `response_ids` includes the end token when the model produced one. `seed` is the row's 64-bit noise key.
    """

    problem_id: str
    sample_index: int
    seed: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    sampler_log_probs: tuple[float, ...]
    finish_reason: FinishReason
    verdict: Verdict | None = None
    reward: float | None = None


class Policy(Protocol):
    """What drawing and scoring ask of a causal language model; a plain decoder of transformers has all of it.

    Its logits are the output embedding of the body's last hidden state: `load_model` refuses a model where they are
    not. Calling it as a whole is for drawing; scoring asks the body, then the head for response positions alone.
    """

    @property
    def base_model(self) -> Any: ...
    @property
    def config(self) -> Any: ...
    @property
    def generation_config(self) -> Any: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def get_output_embeddings(self) -> Any: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


# --- what a method sees ---------------------------------------------------------------------------


class Divisor(StrEnum):
    """What the trainer divides the summed objectives of one optimizer step by.

    `CONSTANT` is responses x the run's token limit, whatever the lengths were.
    """

    RESPONSES = "responses"
    TOKENS = "tokens"
    CONSTANT = "constant"


class Level(StrEnum):
    """What a method weighs: every token (`log_weight` [N, T]) or the whole response ([N, 1])."""

    TOKEN = "token"
    SEQUENCE = "sequence"


class Clip(StrEnum):
    """How a method keeps weights near 1. The properties that `fspo method check` demands follow from it.

    MIN: min(w A, clip(w) A), never better than without clip, no gradient where the min picks the clip.
    CAP: the weight is data, cut at a maximum; the gradient stays. MASK: the gradient is dropped beyond a bound.
    GATE: a smooth function of the weight. NONE: nothing.
    """

    MIN = "min"
    CAP = "cap"
    MASK = "mask"
    GATE = "gate"
    NONE = "none"


class Growth(StrEnum):
    """How the band on a response's (for token methods: a token's) log ratio widens with the number of tokens.

    Measured with the whole log ratio in the last token, so that a prefix product and a sum are held to the same rule.
    """

    CONSTANT = "constant"
    ROOT = "sqrt(L)"
    LINEAR = "L"
    NONE = "no band"


@dataclass(frozen=True)
class CreditInput:
    """What an advantage rule may look at: one whole rollout step, never a micro-batch.

    rewards [N]; group_ids [N] integer, equal for the samples of one prompt; response_mask [N, T] bool;
    values [N, T] the critic's estimates, only for methods that need "values".
    """

    rewards: Tensor
    group_ids: Tensor
    response_mask: Tensor
    values: Tensor | None = None


@dataclass(frozen=True)
class Credit:
    """advantages [N, 1] (sequence-level) or [N, T]; returns [N, T] only for methods with a critic."""

    advantages: Tensor
    returns: Tensor | None = None


@dataclass(frozen=True)
class PolicyBatch:
    """Log-probabilities of N responses padded to T tokens. Padding holds arbitrary numbers: only the mask counts.

    log_probs, old_log_probs, sampler_log_probs [N, T] in nats; advantages [N, 1] or [N, T]; response_mask [N, T]
    bool, True = counts; lengths [N] = response_mask.sum(1) in the dtype of log_probs; 0 is an empty response, which
    teaches nothing: every mean over its tokens is 0.
    """

    log_probs: Tensor
    old_log_probs: Tensor
    advantages: Tensor
    response_mask: Tensor
    lengths: Tensor
    sampler_log_probs: Tensor | None = None
    ref_log_probs: Tensor | None = None
    values: Tensor | None = None
    old_values: Tensor | None = None
    returns: Tensor | None = None

    def rows(self, index: Any) -> PolicyBatch:
        """The same batch restricted to the given rows (slice, index list or boolean mask)."""
        present = {f.name: x for f in dataclasses.fields(self) if (x := getattr(self, f.name)) is not None}
        return dataclasses.replace(self, **{name: x[index] for name, x in present.items()})


@dataclass(frozen=True)
class Surrogate:
    """One number per response, before any division.

    objective [N] is maximised; unclipped [N] is the same without any clip. log_weight is the log ratio that the
    method weighs a response or token by, [N, 1] or [N, T]; outside_band and clipped are bool of the same shape
    (False at padding). outside_band: log_weight left the band. clipped: the clip acts on the gradient there, i.e. on
    the side that the `min` makes active (gradient cut), under a mask (dropped) or above a maximum weight (capped).
    """

    objective: Tensor
    unclipped: Tensor
    log_weight: Tensor
    outside_band: Tensor
    clipped: Tensor
    divisor: Divisor


State = Mapping[str, float]
"""Running estimates of a method (drift, sigma): plain floats, so they fit into a checkpoint and a log line."""


FACTS = ("ratio", "band", "aggregation", "advantage", "kl", "dual clip", "departures")
"""The lines that every method's card has."""


def knob(default: Any, provenance: str, also: Callable[[Any], Sequence[Any]] = lambda hyper: ()) -> Any:
    """A hyper-parameter field that carries where its default comes from (shown on the method's card).

    `also(hyper)`: other values that switch on what the default leaves out, each sound beside the other fields of
    `hyper`; `fspo method check` and `regress` try them, too.
    """
    return field(default=default, metadata={"provenance": provenance, "also": also})


@dataclass(frozen=True)
class Method:
    """A policy-gradient method as a value, not a trainer.

    surrogate(batch, hyper, state) is a pure function of one micro-batch. `observe(batch, hyper, state)` returns new
    running estimates from the whole mini-batch of one optimizer step (gradients detached); it is called after the
    update, or before it when `observe_first(hyper)` says that the estimate must come from the same mini-batch.
    `reads_state(hyper)` says whether the surrogate depends on the estimates at all.
    `level`, `clip` and `growth` are what `fspo method check` holds the surrogate to. `detached` says that weights are
    data: the gradient is that of the log-probabilities with weights frozen, not the derivative of the value.
    `keeps_credit` says that `credit` is what the method is: with advantages of another rule, of a comparison or of
    another trainer, nothing would be left of it but its name.
    `facts` are the lines of the card that are no numbers, under the names of FACTS; `elsewhere` says how to set the
    same thing in other trainers.
    """

    name: str
    title: str
    source: str
    hyper: Any
    credit: Callable[[CreditInput, Any], Credit]
    surrogate: Callable[[PolicyBatch, Any, State], Surrogate]
    facts: Mapping[str, str]
    level: Level
    clip: Clip
    growth: Growth
    detached: bool = False
    keeps_credit: bool = False
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    value_loss: Callable[[PolicyBatch, Any], Tensor] | None = None
    observe: Callable[[PolicyBatch, Any, State], State] | None = None
    observe_first: Callable[[Any], bool] = lambda hyper: False
    reads_state: Callable[[Any], bool] = lambda hyper: False

    def scaled(self, factor: float) -> Method:
        """The same method with every clip width multiplied by `factor`, in log-ratio space where it is a ratio's.

        UserError where there is no width: nothing to match, nothing to switch off.
        """
        if not hasattr(self.hyper, "scaled"):
            raise UserError(f"{self.name} has no clip range to scale")
        return dataclasses.replace(self, hyper=self.hyper.scaled(factor))


# --- what a finished cell leaves ------------------------------------------------------------------


@dataclass(frozen=True)
class EvalResult:
    """Verdicts of one model on one evaluation set: problem ids, and per problem the k verdicts and lengths."""

    task: str
    task_version: str
    data_digest: str
    problem_ids: tuple[str, ...]
    verdicts: tuple[tuple[Verdict, ...], ...]
    lengths: tuple[tuple[int, ...], ...]
    truncated_share: float


@dataclass(frozen=True)
class RunResult:
    """One cell (method x seed) of a comparison. `costs` and `environment` stay outside the digest."""

    protocol: int
    method: str
    seed: int
    config: Mapping[str, Any]
    evals: tuple[EvalResult, ...]
    curves: Mapping[str, Sequence[float | None]]
    digests: Mapping[str, str]
    costs: Mapping[str, float]
    environment: Mapping[str, str]
