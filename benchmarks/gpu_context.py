"""What the phases of the benchmark on a GPU work with: the models, one at a time, rollouts, settings, a clock."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from suite.config import TrainConfig
from suite.experiments.models import is_smollm2, load_named, model_folder
from suite.experiments.names import EMBEDDED_MODEL, tasks_named
from suite.experiments.recipe_book import TRAINED
from suite.planning.devices import Device
from suite.planning.model_shapes import PUBLISHED, ModelShape, model_shape
from suite.policy import vocabulary_tiles
from suite.policy.packed_attention import PACKED
from suite.policy.prompting import encode
from suite.policy.sampling import SampleRequest
from suite.records.costs import PEAK, SECONDS, Clock
from suite.seeds import derive
from suite.types import FinishReason, Rollout, UserError

GPU_MODELS = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "smollm2")
CPU_MODELS = ("embedded",)


@dataclass(frozen=True)
class Work:
    """How much of everything."""

    problems: int = 32
    samples: int = 8
    prompt: int = 100
    """Tokens of the prompts that are trained on."""
    response: int = 512
    """Most tokens of a response that is trained on; they have from an eighth of it to all."""
    micro_tokens: int = 16384
    mini_batches: int = 2
    drawn: int = 192
    """Tokens of a response that is drawn."""
    eval_problems: int = 32
    decoded: int = 128
    """Tokens of a prompt, and tokens behind it, where a decoding step is timed alone."""
    rounds: int = 2
    """Times that a phase runs before the clock's eye, after one run unseen."""
    head: tuple[int, int, int] = (16384, 1024, 151936)
    """Rows, width and vocabulary of the head that is walked in tiles: those of Qwen3-0.6B."""
    tiles: tuple[int, ...] = (20, 22, 24, 26, 27, 28)
    """Powers of two: logits of a tile."""
    profiled: int = 64
    """Responses in the update that is profiled."""


SMALL = Work(2, 4, 20, 16, 512, 2, 8, 2, 8, 1, (64, 32, 4096), (12, 14, 16), 4)


@dataclass(frozen=True)
class Loaded:
    """A model in float32 with its tokenizer and shape, and whether its weights are random."""

    model: Any
    tokenizer: Any
    is_random: bool
    shape: ModelShape


@dataclass
class Context:
    """The device, the work, and the model of the phase that runs: `reference`, loaded when it is first asked for."""

    device: str
    work: Work
    peak: Device | None = None
    precision: Any = "bfloat16"
    reference: str | None = None
    drawn: dict[str, list[Rollout]] = field(default_factory=dict)
    """What was drawn for a model in this process, kept for the phases behind."""
    _kept: tuple[str, Loaded] | None = None

    def loaded(self) -> Loaded:
        """The phase's model; another one that is loaded goes first."""
        reference = self.reference or "embedded"
        if self._kept is None or self._kept[0] != reference:
            self.drop()
            self._kept = reference, load(reference, self.device)
        return self._kept[1]

    def drop(self) -> None:
        """Forget the loaded model and give its memory back."""
        self._kept = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def config(self, **changes: Any) -> TrainConfig:
        """The settings of a training run with the work's sizes."""
        work = self.work
        plain = {
            "problems_per_step": work.problems,
            "samples_per_problem": work.samples,
            "mini_batches": work.mini_batches,
            "max_new_tokens": work.response,
            "tokens_per_micro_batch": work.micro_tokens,
            "learning_rate": 1e-6,
            "precision": self.precision,
        }
        return TrainConfig(TRAINED, **{**plain, **changes})

    def mfu(self, flops: float, seconds: float) -> float | None:
        """Share of the device's peak in the precision of training; None where the peak is not known."""
        return flops / seconds / self.peak.peak(self.precision) if self.peak else None

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def lap(self, run: Callable[[], Any], rounds: int | None = None) -> dict[str, float]:
        """Median seconds and largest GiB of a program, after one run unseen."""
        clocks = []
        for _ in range(1 + (rounds or self.work.rounds)):
            self.wait()
            clock = Clock()
            run()
            self.wait()
            clock.lap("phase")
            clocks.append(clock.costs)
        return {
            "seconds": statistics.median(one[f"{SECONDS}phase"] for one in clocks[1:]),
            "peak_gib": max(one[f"{PEAK}phase"] for one in clocks[1:]),
        }


def load(reference: str, device: str) -> Loaded:
    """A model in float32; the published shapes get random weights. UserError where smollm2 was not fetched."""
    if is_smollm2(reference) and model_folder(reference) is None:
        raise UserError("smollm2 is not here: fspo model fetch smollm2")
    shape = model_shape(reference)
    if reference not in PUBLISHED:
        found = load_named(reference, torch.float32, device)
        return Loaded(found.model, found.tokenizer, False, shape)
    kind, sizes, _ = PUBLISHED[reference]
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL, local_files_only=True)
    config = AutoConfig.for_model(kind, **sizes, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=PACKED)
    return Loaded(model.eval(), tokenizer, True, shape)


def requests(tokenizer: Any, problems: int, samples: int) -> list[SampleRequest]:
    """Prompts of the tasks that the demo trains on, so many responses to each."""
    asked = [(task, p) for task in tasks_named(TRAINED) for p in task.load("train", None)[:problems]][:problems]
    return [
        SampleRequest(p.id, i, derive(0, "sample", 0, p.id, i), encode(tokenizer, task, p))
        for task, p in asked
        for i in range(samples)
    ]


def invented(vocabulary: int, problems: int, samples: int, prompt: int, response: int) -> list[Rollout]:
    """Rollouts of random tokens, the same for the same sizes, of which every second one was right.

    A problem's responses share its prompt; lengths go from an eighth of `response` to all of it, in turn.
    """
    noise = torch.Generator().manual_seed(0)
    prompts = torch.randint(vocabulary, (problems, prompt), generator=noise).tolist()
    texts = torch.randint(vocabulary, (problems * samples, response), generator=noise).tolist()
    whole = [
        Rollout(
            f"p{i // samples}",
            i % samples,
            i,
            tuple(prompts[i // samples]),
            tuple(text),
            (0.0,) * response,
            FinishReason.LENGTH,
        )
        for i, text in enumerate(texts)
    ]
    return ragged(whole)


def ragged(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Responses cut to an eighth, two eighths ... all of their length, in turn; every second one is right."""
    found = []
    for i, r in enumerate(rollouts):
        keep = max(1, len(r.response_ids) * (i % 8 + 1) // 8)
        found.append(
            replace(
                r, response_ids=r.response_ids[:keep], sampler_log_probs=r.sampler_log_probs[:keep], reward=float(i % 2)
            )
        )
    return found


# --- the head's tile ------------------------------------------------------------------------------


def head_tile(device: str) -> int:
    """Logits of a tile of the head on a device, as the suite chooses them."""
    return vocabulary_tiles.of_device(vocabulary_tiles.TILE, device)


@contextmanager
def head_in_tiles_of(logits: int) -> Iterator[None]:
    """The head walked in tiles of so many logits inside the block, whatever the device."""
    before = dict(vocabulary_tiles.TILE)
    vocabulary_tiles.TILE.update(dict.fromkeys(before, logits))
    try:
        yield
    finally:
        vocabulary_tiles.TILE.update(before)
