"""A sampler of the suite as a model of lm-eval. The only module that imports lm_eval, and only inside functions.

lm-eval decides what is asked and scores what comes back; drawing is the suite's own, on either engine. A response's
noise is that of `fspo evaluate`: a function of seed, task, problem and sample. So a set asked through lm-eval has the
very responses that the set has without it.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from suite.policy.sampling import Sampler, SampleRequest, SamplingSettings
from suite.policy.stop_texts import before_stop
from suite.records.installation import pip_install
from suite.seeds import derive
from suite.types import Rollout, UserError

PREFIX = "fspo_"
"""lm-eval knows our task NAME as fspo_NAME."""
DEFAULT_MAX_NEW_TOKENS = 256
"""The limit of lm-eval's own models where a task names none."""
NEUTRAL = {"top_k": (0, -1, None), "top_p": (1, None)}
"""Settings that lm-eval may name as long as they cut nothing off: the suite draws from the whole distribution."""
INSTALL = f"run `make install-lm-eval`, or `{pip_install('lm-eval')}`"


def require_lm_eval() -> None:
    """UserError where lm-eval is not installed, before anything heavy is loaded."""
    if find_spec("lm_eval") is None:
        raise UserError(f"lm-eval is not installed; {INSTALL}")


@dataclass
class Answering:
    """Answers lm-eval's requests with a sampler, and keeps every rollout by task, problem by problem.

    `chat` says that lm-eval's texts come out of the chat template, which holds the special tokens already.
    `told(task, new, total)` hears how many responses were finished.
    """

    sampler: Sampler
    tokenizer: Any
    seed: int
    batch_size: int
    chat: bool = False
    told: Callable[[str, int, int], None] = lambda task, new, total: None
    rollouts: dict[str, list[Rollout]] = field(default_factory=dict)

    def answers(self, instances: Sequence[Any]) -> list[str]:
        """The text of each instance's response before its stop text, as lm-eval's models return it.

        Instances of one task stand together, the samples of a problem side by side: so lm-eval builds them.
        """
        found: list[str] = []
        for task in dict.fromkeys(instance.task_name for instance in instances):
            found += self._of_task(task, [instance for instance in instances if instance.task_name == task])
        return found

    def _of_task(self, task: str, instances: Sequence[Any]) -> list[str]:
        settings = settings_from(instances[0].args[1], self.batch_size)
        requests = self._requests(task, instances)
        drawn = self.sampler.sample(requests, settings, lambda new: self.told(task, new, len(requests)))
        self.rollouts[task] = drawn
        texts = self.tokenizer.batch_decode([list(r.response_ids) for r in drawn], skip_special_tokens=True)
        return [before_stop(text, settings.stop) for text in texts]

    def _requests(self, task: str, instances: Sequence[Any]) -> list[SampleRequest]:
        """One request an instance; lm-eval repeats an instance for each further sample of its problem."""
        ours, seen = task.startswith(PREFIX), Counter()
        requests = []
        for instance in instances:
            problem = instance.doc["id"] if ours else str(instance.doc_id)
            sample = seen[instance.doc_id]
            seen[instance.doc_id] += 1
            key = derive(self.seed, "evaluate", task.removeprefix(PREFIX), problem, sample)
            prompt = self.tokenizer(instance.args[0], add_special_tokens=not self.chat).input_ids
            requests.append(SampleRequest(problem, sample, key, tuple(prompt)))
        return requests


def settings_from(gen_kwargs: Mapping[str, Any], batch_size: int) -> SamplingSettings:
    """lm-eval's generation arguments as settings of a sampler; UserError where it has nothing like them."""
    from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]

    given: dict[str, Any] = {**normalize_gen_kwargs(dict(gen_kwargs), DEFAULT_MAX_NEW_TOKENS)}
    until, limit = given.pop("until"), given.pop("max_gen_toks")
    drawn, temperature = given.pop("do_sample"), given.pop("temperature", 0.0)
    for name, value in given.items():
        if value not in NEUTRAL.get(name, ()):
            raise UserError(
                f"lm-eval asks for {name} = {value!r}, which the suite's samplers do not have; leave it out"
            )
    stop = tuple(dict.fromkeys(text for text in until if text))
    return SamplingSettings(limit, temperature if drawn else 0.0, batch_size, stop)


@functools.cache
def model_class() -> type:
    """The class that lm-eval knows as the model `fspo`, made of an `Answering`; for tasks that generate text."""
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]

    @register_model("fspo")
    class SamplerModel(LM):
        """A sampler of the suite, as lm-eval sees it."""

        def __init__(self, answering: Answering) -> None:
            super().__init__()
            self.answering = answering

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return self.answering.answers(requests)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            raise _only_generates(requests)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            raise _only_generates(requests)

        @property
        def tokenizer_name(self) -> str:
            return str(self.answering.tokenizer.name_or_path)

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return self.answering.tokenizer.apply_chat_template(
                chat_history, tokenize=False, add_generation_prompt=add_generation_prompt
            )

    return SamplerModel


def _only_generates(requests: Sequence[Any]) -> UserError:
    names = ", ".join(sorted({str(request.task_name) for request in requests}))
    return UserError(f"{names}: scores given texts, and the suite's samplers only write; use lm-eval's own hf model")


def fspo_tasks(folder: Path, names: Sequence[str], samples: int, metadata: Mapping[str, Any]) -> list[Any]:
    """lm-eval's tasks for ours of these names, from their files in `folder`, with `samples` responses to a problem."""
    manager = _manager(include_path=str(folder), include_defaults=False, metadata=dict(metadata))
    loaded = manager.load([PREFIX + name for name in names])["tasks"]
    for task in loaded.values():
        task.set_config("repeats", samples)
    return list(loaded.values())


def native_task(name: str) -> Any:
    """A task of lm-eval's own; UserError where its data are neither on this machine nor to be had."""
    import datasets.exceptions

    try:
        return _own_tasks().load(name)["tasks"][name]
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise UserError(
            f"lm-eval's own {name} does not load ({type(error).__name__}: {reason}); it takes its data from the hub: "
            "connect, or copy a cache of the hub that holds them ($HF_HOME)"
        ) from None


@functools.cache
def _own_tasks() -> Any:
    return _manager()


def _manager(**options: Any) -> Any:
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every setting that is not its default
    return TaskManager(**options)


def run_lm_eval(
    answering: Answering, tasks: Sequence[Any], limit: int | None, gen_kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """lm-eval's results on these tasks, with all samples; `gen_kwargs` win over those of every task."""
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]

    ask: Callable[..., Any] = simple_evaluate  # its decorator hides its arguments
    return ask(
        model=model_class()(answering),
        tasks=list(tasks),
        limit=limit,
        gen_kwargs=dict(gen_kwargs) or None,
        apply_chat_template=answering.chat,
        task_manager=_manager(include_defaults=False),
    )
