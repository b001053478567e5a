"""From problems to graded rollout sets: the order of problems, the noise of samples, rewards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from suite.config import TrainConfig
from suite.policy.prompting import data_digest, encode, with_verdicts
from suite.policy.sampling import Sampler, SampleRequest, SamplingSettings
from suite.records.provenance import versions
from suite.records.rollout_set import RolloutSet
from suite.seeds import derive, generator
from suite.types import FinishReason, Problem, Rollout, Task, UserError


def overlong_penalty(length: int, limit: int, buffer: int) -> float:
    """What is added to the reward of a response of `length` tokens: 0, falling over the last `buffer` tokens to -1.

    0 for length <= limit - buffer, else (limit - buffer - length) / buffer.

    >>> [overlong_penalty(length, 100, 20) for length in (80, 90, 100)]
    [0.0, -0.5, -1.0]

    Source: arXiv 2503.14476 eq. 13.
    """
    return min(0, limit - buffer - length) / buffer


@dataclass(frozen=True)
class RolloutSource:
    """Draws the rollouts of a training run. Which problems, in what order, with what noise depends on the run seed
    and the step alone, so every method meets the same ones (common random numbers)."""

    model: Any
    tokenizer: Any
    sampler: Sampler
    tasks: Mapping[str, Task]
    problems: Sequence[Problem]
    config: TrainConfig
    run_seed: int
    digests: Mapping[str, str]

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        sampler: Sampler,
        tasks: Sequence[Task],
        config: TrainConfig,
        run_seed: int,
        digests: Mapping[str, str],
        left_out: Collection[str] = (),
    ) -> RolloutSource:
        """Load the tasks' train splits without the ids `left_out`; refuses a task that is for evaluation only."""
        for task in tasks:
            if not task.trainable:
                raise UserError(f"task {task.name}: for evaluation only; take it out of --tasks")
        problems = [p for task in tasks for p in task.load("train", config.data_dir) if p.id not in left_out]
        if len(problems) < config.problems_per_step:
            raise UserError(
                f"{len(problems)} training problems for problems_per_step = {config.problems_per_step}; "
                "add a task or lower problems_per_step"
            )
        return cls(
            model,
            tokenizer,
            sampler,
            {t.name: t for t in tasks},
            problems,
            config,
            run_seed,
            {**digests, "data": data_digest(problems)},
        )

    @property
    def settings(self) -> SamplingSettings:
        """Training draws at temperature 1, without top-k or top-p."""
        limit = self.config.max_new_tokens or max(t.max_new_tokens for t in self.tasks.values())
        stops = dict.fromkeys(s for t in self.tasks.values() for s in t.stop)
        return SamplingSettings(limit, batch_size=self.config.sampling_batch_size, stop=tuple(stops))

    def problems_of(self, step: int, attempt: int = 0) -> list[Problem]:
        """The step's problems: consecutive entries of one shuffled epoch after another; a further attempt's follow."""
        count, total = self.config.problems_per_step, len(self.problems)
        start = (step * (1 + self.config.dynamic_sampling) + attempt) * count
        orders: dict[int, list[int]] = {}
        chosen = []
        for index in range(start, start + count):
            epoch, place = divmod(index, total)
            if epoch not in orders:
                orders[epoch] = torch.randperm(total, generator=generator(self.run_seed, "problems", epoch)).tolist()
            chosen.append(self.problems[orders[epoch][place]])
        return chosen

    def record(self, step: int, on_progress: Callable[[int], None] | None = None) -> RolloutSet:
        """Sample and grade the rollouts of one step, samples of a problem side by side.

        With dynamic sampling, problems whose responses all got one reward are replaced by fresh ones, up to that many
        times; what is then still missing is filled with the first of those set aside. The penalty comes after that.
        Source: arXiv 2503.14476 sec. 3.2 (the limit on attempts is ours).
        """
        if not self.config.dynamic_sampling:
            return self._set(step, self._groups(self.problems_of(step), step, on_progress))
        wanted, mixed, uniform = self.config.problems_per_step, [], []
        for attempt in range(1 + self.config.dynamic_sampling):
            fresh = self.problems_of(step, attempt)[: wanted - len(mixed)]
            for group in self._groups(fresh, step, on_progress):
                (uniform if len({r.reward for r in group}) == 1 else mixed).append(group)
            if len(mixed) == wanted:
                break
        return self._set(step, [*mixed, *uniform][:wanted])

    def probe(self) -> dict[str, float]:
        """How the policy of now answers the fixed problems of a probe: mean reward, mean tokens, share cut.

        Problems and noise are the same for every method, seed and step.
        """
        count = self.config.probe_samples
        stride = max(1, len(self.problems) // self.config.probe_problems)
        chosen = list(self.problems)[::stride][: self.config.probe_problems]
        requests = []
        for problem in chosen:
            prompt = encode(self.tokenizer, self.tasks[problem.task], problem, self.config.chat)
            keys = [derive(0, "probe", problem.id, sample) for sample in range(count)]
            requests += [SampleRequest(problem.id, sample, key, prompt) for sample, key in enumerate(keys)]
        problems = [problem for problem in chosen for _ in range(count)]
        drawn = self.sampler.sample(requests, self.settings, None)
        answers = with_verdicts(self.tokenizer, self.tasks, problems, drawn)
        lengths = [len(answer.response_ids) for answer in answers]
        return {
            "probe/reward": sum(answer.reward or 0.0 for answer in answers) / len(answers),
            "probe/length": sum(lengths) / len(lengths),
            "probe/truncated": sum(answer.finish_reason == FinishReason.LENGTH for answer in answers) / len(answers),
        }

    def _groups(
        self, asked: Sequence[Problem], step: int, on_progress: Callable[[int], None] | None
    ) -> list[list[Rollout]]:
        """The graded responses to each problem."""
        count = self.config.samples_per_problem
        problems = [p for p in asked for _ in range(count)]
        requests = []
        for problem in asked:
            prompt = encode(self.tokenizer, self.tasks[problem.task], problem, self.config.chat)
            for sample in range(count):
                key = derive(self.run_seed, "sample", step, problem.id, sample)
                requests.append(SampleRequest(problem.id, sample, key, prompt))
        rollouts = with_verdicts(
            self.tokenizer, self.tasks, problems, self.sampler.sample(requests, self.settings, on_progress)
        )
        return [rollouts[i : i + count] for i in range(0, len(rollouts), count)]

    def _set(self, step: int, groups: Sequence[Sequence[Rollout]]) -> RolloutSet:
        """The rollout set of a step, with the penalty for responses that were too long."""
        rollouts = [rollout for group in groups for rollout in group]
        limit, buffer = self.settings.max_new_tokens, self.config.overlong_buffer
        if buffer:
            rollouts = [
                replace(r, reward=(r.reward or 0.0) + overlong_penalty(len(r.response_ids), limit, buffer))
                for r in rollouts
            ]
        return RolloutSet(self._header(step), tuple(rollouts))

    def _header(self, step: int) -> dict[str, Any]:
        return {
            "run_seed": self.run_seed,
            "step": step,
            "tasks": {name: task.version for name, task in self.tasks.items()},
            "digests": dict(self.digests),
            "sampling": {**asdict(self.settings), "batch_size": None, "engine": self.sampler.engine},
            "versions": versions(),
        }
