"""Peak memory of one cell before it starts: term by term, each with its formula, for sampling and for updates.

Letters: N parameters, A trained ones (N, or a LoRA's), l layers, d hidden size, q and k heads and key-value heads times
the head size, h and g their counts, f feed-forward size, V vocabulary; n tokens of a micro-batch, K those
of its responses, B responses drawn side by side, T tokens of prompt and response. Weights are float32, bfloat16 is
autocast; updates keep all activations unless layers are checkpointed, and logits for at most 2^25 / V tokens.

Source: ours; what autograd keeps was read off transformers' Llama and Qwen3 (tests count it again), and the whole is
held against measured peaks by `benchmarks/memory.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from suite.devices import GIB
from suite.kv_cache import SPARE
from suite.log_probs import LOGITS_AT_ONCE, TILE
from suite.model_shapes import ModelShape

LIBRARIES = {False: 0.5, True: 0.5}
"""GiB before any weight: on a CPU the interpreter with its libraries, on a GPU (assumed) context and kernels."""
KEPT_FREE = 0.12
"""Share that allocators keep in pieces while updates free and take: measured on a CPU with glibc, assumed on a GPU."""
GRADIENTS, KEPT = "gradients", "kept by the allocator"
RECORD_BYTES = 100
"""Bytes that a rollout step keeps for a token of its responses: ids, masks, places, log-probs, and Python's lists."""


@dataclass(frozen=True)
class Term:
    """One addend: what it is, its formula, bytes, and whether sharding would divide it by the devices."""

    name: str
    formula: str
    bytes: float
    sharded: bool = False

    @property
    def gib(self) -> float:
        """The size in GiB."""
        return self.bytes / GIB


@dataclass(frozen=True)
class Load:
    """What a cell asks of memory, apart from the model's shape.

    prompt and response are tokens of the longest rows. rows and mini_batches shape an update; side_by_side and
    distinct_prompts a call of the sampler. critic, start_model and lora_rank say what is held beside the policy,
    checkpointed that of activations only the layers' inputs are.
    vllm_gib is what an engine of vLLM takes, 0 where this process draws; on a GPU it sleeps during updates.
    """

    prompt: int
    response: int
    rows: int
    mini_batches: int
    micro_tokens: int
    side_by_side: int
    distinct_prompts: int
    precision: str = "float32"
    critic: bool = False
    start_model: bool = False
    lora_rank: int = 0
    checkpointed: bool = False
    gpu: bool = False
    vllm_gib: float = 0.0

    @property
    def micro_rows(self) -> int:
        """Rows of the largest micro-batch: as many of the longest as the token budget takes, at least one."""
        most = -(-self.rows // self.mini_batches)
        return max(1, min(most, self.micro_tokens // (self.prompt + self.response)))

    @property
    def several(self) -> bool:
        """Whether an update has more than one micro-batch, so that gradients stand beside activations."""
        return -(-self.rows // self.mini_batches) > self.micro_rows


def total_gib(terms: Sequence[Term], devices: int = 1) -> float:
    """The sum in GiB a device, with weights, gradients and states divided by `devices`."""
    return sum(term.gib / (devices if term.sharded else 1) for term in terms)


def standing(shape: ModelShape, load: Load, *, trained: bool) -> list[Term]:
    """What is held in every phase; with `trained`, also what the first update leaves behind until the end."""
    n, body = shape.parameters, shape.parameters - (0 if shape.tied else shape.vocabulary * shape.hidden)
    adapters = load.lora_rank * shape.adapted
    moving, letter = (adapters, "A") if load.lora_rank else (n, "N")
    terms = [
        Term("libraries", "measured constant", LIBRARIES[load.gpu] * GIB),
        Term("weights", "4 N", 4 * n, True),
    ]
    if adapters:
        terms.append(Term("adapters", "4 A, A = rank x (inputs + outputs)", 4 * adapters, True))
    if load.precision == "bfloat16" and not load.vllm_gib:
        terms.append(Term("sampler's copy", "2 N", 2 * n, True))
    if load.start_model:
        terms.append(Term("start model", "4 N", 4 * n, True))
    if load.critic:
        terms.append(Term("critic", "4 N (its body)", 4 * body, True))
    if trained:
        terms.append(Term(GRADIENTS, f"4 {letter}", 4 * moving, True))
        terms.append(Term("AdamW states", f"8 {letter}", 8 * moving, True))
        if load.critic:
            terms.append(Term("critic's gradients and states", "12 N (its body)", 12 * body, True))
    terms.append(Term("records", f"{RECORD_BYTES} bytes a token of a step", RECORD_BYTES * load.rows * (
        load.prompt + load.response
    )))  # fmt: skip
    return terms


def activations_per_token(shape: ModelShape, precision: str, checkpointed: bool = False) -> tuple[int, str]:
    """Bytes that autograd keeps for one token of a micro-batch, without logits, and their formula.

    Checkpointed layers keep their input; one at a time has its activations, while they are computed again.
    """
    d, q, k, f = shape.hidden, shape.queries, shape.keys, shape.feed_forward
    h, g = shape.heads, shape.key_value_heads
    if precision == "bfloat16":
        layer, formula = 26 * d + 4 * q + 4 * k + 8 * f + 4 * h + 8, "26d + 4q + 4k + 8f + 4h + 8"
        extra, more = 6 * (q + k) + 4 * (h + g), " + 6(q + k) + 4(h + g)"
    else:
        layer, formula = 4 * (6 * d + 2 * q + 2 * k + 4 * f + h + 2), "4(6d + 2q + 2k + 4f + h + 2)"
        extra, more = 4 * (2 * q + 2 * k + h + g), " + 4(2q + 2k + h + g)"
    if shape.query_norm:
        layer, formula = layer + extra, formula + more
    if checkpointed:
        return shape.layers * 4 * d + layer + 12 * d + 12, f"l 4d + {formula} + 12d + 12"
    return shape.layers * layer + 12 * d + 12, f"l ({formula}) + 12d + 12"


def updating(shape: ModelShape, load: Load) -> list[Term]:
    """The peak of an optimizer step, from the second on: the largest micro-batch, or AdamW's own step on a GPU.

    With one micro-batch an update, gradients appear while activations go: the larger of the two counts.
    """
    each, formula = activations_per_token(shape, load.precision, load.checkpointed)
    n, k = load.micro_rows * (load.prompt + load.response), load.micro_rows * load.response
    logits, logits_formula = _logits(shape, load, k)
    layer = 12 * n * shape.feed_forward
    passing = [Term("activations", f"n ({formula}), n = {n:,}", n * each)]
    if logits > layer:
        passing.append(Term("logits", f"{logits_formula}, K = {k:,}", logits))
    else:
        passing.append(Term("backward of a layer", "12 n f", layer))
    if load.precision == "bfloat16":
        passing.append(Term("weights of products in bfloat16", "2 bytes each", 2 * shape.linear))
    terms = standing(shape, load, trained=True)
    engine = [] if load.gpu else _engine(load)
    gradients = next(term for term in terms if term.name == GRADIENTS)
    if not load.lora_rank:
        embedding = 4 * shape.vocabulary * shape.hidden
        passing.append(Term("gradient of the head", "4 V d, until it is added", embedding))
    if load.gpu and gradients.bytes > sum(term.bytes for term in passing):
        terms.append(Term("AdamW's step", f"{gradients.formula}: all parameters at once", gradients.bytes, True))
    elif load.several:
        terms += passing
    elif gradients.bytes < sum(term.bytes for term in passing):
        terms = [term for term in terms if term is not gradients] + passing
    for divided, which in ((True, "weights and states"), (False, "the rest")):
        kept = KEPT_FREE * sum(term.bytes for term in terms if term.sharded == divided and term.name != KEPT)
        terms.append(Term(KEPT, f"{KEPT_FREE:g} of {which}", kept, divided))
    return terms + engine


def _logits(shape: ModelShape, load: Load, k: int) -> tuple[float, str]:
    """Bytes of the K x V logits of a micro-batch, and their formula: those that are kept, and a tile's working memory.

    On a CPU a tile is small, and 20 bytes a kept logit were measured to cover both.
    """
    kept = LOGITS_AT_ONCE["cuda" if load.gpu else "cpu"]
    if not load.gpu:
        return 20 * min(k, max(1, kept // shape.vocabulary)) * shape.vocabulary, "20 V min(K, 2^25 / V)"
    size = 2 if load.precision == "bfloat16" else 4
    return size * min(k * shape.vocabulary, kept) + 20 * TILE["cuda"], f"{size} min(K V, 2^28) + 20 x 2^26"


def _engine(load: Load) -> list[Term]:
    """What vLLM holds, where it draws."""
    formula = "its share of the device" if load.gpu else "its weights, and room for keys and values"
    return [Term("vLLM", formula, load.vllm_gib * GIB)] if load.vllm_gib else []


def sampling(shape: ModelShape, load: Load, *, trained: bool = True) -> list[Term]:
    """The peak of drawing responses, all of them up to the limit; `trained` as in `standing`."""
    if load.vllm_gib:
        return standing(shape, load, trained=trained) + _engine(load)
    size = 2 if load.precision == "bfloat16" else 4
    total, rows = load.prompt + load.response, load.side_by_side
    terms = standing(shape, load, trained=trained)
    cache = rows * (total + SPARE) * shape.layers * 2 * shape.keys * size
    terms.append(Term("key-value cache", f"B (T + {SPARE}) 2 l k {size}, B = {rows}, T = {total:,}", cache))
    noise = 40 if load.gpu else 20
    step = noise * rows * shape.vocabulary
    if shape.heads != shape.key_value_heads:
        step = max(step, 2 * rows * total * shape.queries * size)
    terms.append(Term("a decoding step", f"max({noise} B V, 2 B T q {size} where keys are shared)", step))
    prefill = load.distinct_prompts * load.prompt * (4 * shape.feed_forward + 4 * shape.hidden) * size
    spare = step + cache
    return terms if prefill <= spare else [*terms[:-2], Term("prefill", f"prompts x tokens (4f + 4d) {size}", prefill)]
