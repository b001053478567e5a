"""lm-eval itself, on the suite's tasks: the same prompts, the same texts and the same verdicts as without it."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.commands.evaluate_lm_eval import NATIVE, agreement_table, asked_through_lm_eval
from suite.config import EvalConfig
from suite.evaluation.evaluate import evaluate, manifest_of
from suite.evaluation.lm_eval_model import Answering, fspo_tasks, model_class, run_lm_eval, settings_from
from suite.evaluation.sample_store import SampleStore, read_frame
from suite.experiments.embedded.tiny_model import TinyShape, character_tokenizer, tiny_qwen3
from suite.experiments.names import EMBEDDED_MODEL, EMBEDDED_TASKS, tasks_named
from suite.policy.loading import LoadedModel, load_model
from suite.policy.sampling import SampleRequest, SamplingSettings, TransformersSampler
from suite.types import FinishReason, Problem, Rollout, Task, UserError, Verdict
from tasks import LM_EVAL_TASKS, TASKS

pytestmark = [
    pytest.mark.lm_eval,
    pytest.mark.slow,
    pytest.mark.xdist_group("lm_eval"),
    pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed: make test-lm-eval brings it"),
]
PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))


@pytest.fixture(scope="module")
def base() -> LoadedModel:
    return load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)


@pytest.fixture(scope="module")
def babbler() -> tuple[Any, Any]:
    """A random model for prompts of some thousand characters; large weights, so that its texts follow the prompt."""
    tokenizer = character_tokenizer(PRINTABLE, 4096)
    shape = TinyShape(width=64, layers=2, heads=2, head_size=32, feed_forward=96, max_positions=4096)
    model = tiny_qwen3(shape, tokenizer, seed=0).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2 and "embed" not in name:
                weights.mul_(25)
    return model, tokenizer


class Scripted:
    """A sampler with prepared texts, by problem and sample, cut after the first stop text as an engine cuts them."""

    engine = "script"

    def __init__(self, tokenizer: Any, text: Callable[[str, int], str]) -> None:
        self.tokenizer, self.text = tokenizer, text

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        return [self._rollout(request, settings) for request in requests]

    def _rollout(self, request: SampleRequest, settings: SamplingSettings) -> Rollout:
        text = self.text(request.problem_id, request.sample_index)
        end = min((text.find(mark) + len(mark) for mark in settings.stop if mark in text), default=len(text))
        ids = tuple(self.tokenizer(text[:end]).input_ids)
        return Rollout(
            request.problem_id,
            request.sample_index,
            request.seed,
            request.prompt_ids,
            ids,
            (0.0,) * len(ids),
            FinishReason.STOP,
        )


def through(
    sampler: Any, tokenizer: Any, tasks: Sequence[Task], config: EvalConfig, data_dir: Path | None = None
) -> tuple[Answering, list[Any]]:
    answering = Answering(sampler, tokenizer, config.seed, config.batch_size, config.chat)
    return answering, asked_through_lm_eval(answering, tasks, config, data_dir)


def test_the_same_samples_and_verdicts_come_out_with_and_without_lm_eval(base: LoadedModel, tmp_path: Path) -> None:
    config = EvalConfig(EMBEDDED_TASKS, samples=3, limit=6, seed=5)
    tasks, sampler = tasks_named(EMBEDDED_TASKS), TransformersSampler(base.model, base.tokenizer)
    store = SampleStore(tmp_path)
    store.claim(manifest_of(base, "transformers", tasks, config, None, {}))
    plain = evaluate(sampler, base.tokenizer, tasks, config, None, store=store)
    answering, found = through(sampler, base.tokenizer, tasks, config)
    assert [each.ours for each in found] == plain
    kept = read_frame(tmp_path)
    for result, each in zip(plain, found, strict=True):
        drawn = [r.response_ids for r in answering.rollouts[f"fspo_{result.task}"]]
        assert drawn == [tuple(ids) for ids in kept[kept["task"] == result.task]["tokens"]]
        verdicts = [v for row in result.verdicts for v in row]
        assert each.lm_eval == pytest.approx(verdicts.count(Verdict.CORRECT) / len(verdicts), abs=1e-12)
        assert (each.same_prompts, each.same_verdicts) == (18, 6)
    assert len({each.lm_eval for each in found}) > 1


def problems(count: int) -> list[Problem]:
    """Word problems of our own with golds 7, 8, ..."""
    return [
        Problem(f"gsm8k/test/{i}", f"Ann has {i} hats and buys 7. How many now?", str(7 + i), "gsm8k", "1")
        for i in range(count)
    ]


@pytest.fixture
def own_gsm8k(monkeypatch: pytest.MonkeyPatch) -> Task:
    """The task gsm8k on six problems of ours: its own files are held to their digests."""
    task = dataclasses.replace(TASKS["gsm8k"], load=lambda split, data_dir: problems(6))
    monkeypatch.setitem(TASKS, "gsm8k", task)
    return task


def planted(problem: str, sample: int) -> str:
    """Right answers in three forms, wrong ones, none and one that nobody decides, by problem and sample."""
    place = int(problem.rpartition("/")[2])
    gold = 7 + place
    kinds = (
        f" She has {place} + 7 = {gold} hats.\n#### {gold}\n\nQuestion: How many are 2 and 2?\nAnswer: 4",
        f" #### {gold}Question: What is 1 + 1?",
        f" The answer is \\boxed{{{gold}.0}}.",
        f" #### {gold + 1}\n\n#### {gold}",
        " I do not know.\n\nThe answer is 7.",
        " \\boxed{9999^{99999}}",
        "",
    )
    return kinds[(place + 2 * sample) % len(kinds)]


def test_planted_answers_get_the_same_verdicts_both_ways(own_gsm8k: Task, babbler: tuple[Any, Any]) -> None:
    tokenizer = babbler[1]
    config = EvalConfig(("gsm8k",), samples=5)
    sampler = Scripted(tokenizer, planted)
    (plain,) = evaluate(sampler, tokenizer, [own_gsm8k], config, None)
    _, (found,) = through(sampler, tokenizer, [own_gsm8k], config)
    assert found.ours == plain
    assert {v for row in plain.verdicts for v in row} == set(Verdict)
    assert (found.same_prompts, found.same_verdicts) == (30, 6)
    right = sum(row.count(Verdict.CORRECT) for row in plain.verdicts)
    assert 0 < right < 30
    assert found.lm_eval == pytest.approx(right / 30, abs=1e-12)
    table = agreement_table([found], config)
    assert list(table["same verdicts"]) == ["6 of 6"]


def test_a_text_that_lm_eval_did_not_get_is_counted(own_gsm8k: Task, babbler: tuple[Any, Any]) -> None:
    """A planted fault: the first problem's answers reach lm-eval with another number, its prompt has another ending."""

    class Garbling(Answering):
        def answers(self, instances: Sequence[Any]) -> list[str]:
            return ["#### 0", *super().answers(instances)[1:]]

        def _requests(self, task: str, instances: Sequence[Any]) -> list[SampleRequest]:
            first, *rest = super()._requests(task, instances)
            return [dataclasses.replace(first, prompt_ids=first.prompt_ids[:-1]), *rest]

    tokenizer = babbler[1]
    sampler = Scripted(tokenizer, lambda problem, sample: f"#### {7 + int(problem.rpartition('/')[2])}")
    answering = Garbling(sampler, tokenizer, 0, 64)
    (found,) = asked_through_lm_eval(answering, [own_gsm8k], EvalConfig(("gsm8k",), samples=1), None)
    assert (found.same_prompts, found.same_verdicts, found.lm_eval) == (5, 5, pytest.approx(5 / 6))
    assert found.ours.verdicts == ((Verdict.CORRECT,),) * 6


def by_lm_evals_own_model(model: Any, tokenizer: Any, limit: int, gen_kwargs: Any, metadata: Any) -> Any:
    """What lm-eval's own hf model makes of our gsm8k: its samples and scores."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(LM_EVAL_TASKS), include_defaults=False, metadata=metadata)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=7)
    return simple_evaluate(model=lm, tasks=["fspo_gsm8k"], limit=limit, task_manager=manager, gen_kwargs=gen_kwargs)


def responses(results: Any) -> list[str]:
    return [row["resps"][0][0] for row in results["samples"]["fspo_gsm8k"]]


def test_lm_evals_own_model_writes_our_greedy_texts_on_gsm8k(babbler: tuple[Any, Any], shared: Path) -> None:
    """Twenty problems of the real set, greedy: prompts, texts and verdicts of lm-eval's hf model are ours."""
    model, tokenizer = babbler
    config = EvalConfig(("gsm8k",), samples=1, limit=20, temperature=0.0, batch_size=8)
    task, data = TASKS["gsm8k"], shared / "data"
    answering, (found,) = through(TransformersSampler(model, tokenizer), tokenizer, [task], config, data)
    theirs = by_lm_evals_own_model(model, tokenizer, 20, None, {"data_dir": str(data)})
    drawn = [list(rollout.response_ids) for rollout in answering.rollouts["fspo_gsm8k"]]
    ours = tokenizer.batch_decode(drawn, skip_special_tokens=True)
    assert responses(theirs) == ours
    asked = [row["arguments"][0][0] for row in theirs["samples"]["fspo_gsm8k"]]
    assert asked == [task.render(problem) for problem in task.load("eval", data)[:20]]
    assert theirs["results"]["fspo_gsm8k"]["accuracy,every_sample"] == found.lm_eval
    assert (found.same_prompts, found.same_verdicts) == (20, 20)
    assert len(set(ours)) == 20


@pytest.mark.usefixtures("own_gsm8k")
def test_lm_evals_own_model_stops_where_our_sampler_does(babbler: tuple[Any, Any]) -> None:
    """Stop texts that the random model writes: both ways cut its texts at the same places."""
    model, tokenizer = babbler
    gen_kwargs = {"until": ["GG", "Ee", "oEJ"], "max_gen_toks": 48}
    answering = Answering(TransformersSampler(model, tokenizer), tokenizer, 0, 8)
    ours = run_lm_eval(answering, fspo_tasks(LM_EVAL_TASKS, ["gsm8k"], 1, {}), None, gen_kwargs)
    assert responses(ours) == responses(by_lm_evals_own_model(model, tokenizer, 6, gen_kwargs, {}))
    finished = [rollout.finish_reason for rollout in answering.rollouts["fspo_gsm8k"]]
    assert finished.count(FinishReason.STOP) >= 3


def test_the_command_line_of_lm_eval_gives_our_accuracy(base: LoadedModel, tmp_path: Path) -> None:
    """`lm_eval --include_path ... --tasks fspo_gcd --model hf`, offline, against `fspo evaluate`, both greedy."""
    words = [
        "--include_path",
        str(LM_EVAL_TASKS),
        "--tasks",
        "fspo_gcd",
        "--model",
        "hf",
        "--device",
        "cpu",
        "--model_args",
        f"pretrained={EMBEDDED_MODEL},dtype=float32",
        "--batch_size",
        "16",
        "--limit",
        "40",
        "--output_path",
        str(tmp_path),
    ]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    subprocess.run([sys.executable, "-m", "lm_eval", *words], env=offline, capture_output=True, check=True)
    (written,) = tmp_path.rglob("results_*.json")
    theirs = json.loads(written.read_text())["results"]["fspo_gcd"]
    config = EvalConfig(("gcd",), samples=1, limit=40, temperature=0.0)
    sampler = TransformersSampler(base.model, base.tokenizer)
    (ours,) = evaluate(sampler, base.tokenizer, tasks_named(["gcd"]), config, None)
    right = sum(row == (Verdict.CORRECT,) for row in ours.verdicts)
    assert 0 < right < 40
    assert theirs["accuracy,every_sample"] == right / 40


def test_the_chat_template_is_asked_as_the_suite_asks_it(own_gsm8k: Task, babbler: tuple[Any, Any]) -> None:
    tokenizer = copy.deepcopy(babbler[1])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    sampler = Scripted(tokenizer, planted)
    config = EvalConfig(("gsm8k",), samples=1, chat=True)
    answering, (found,) = through(sampler, tokenizer, [own_gsm8k], config)
    assert found.same_prompts == 6
    first = tokenizer.decode(list(answering.rollouts["fspo_gsm8k"][0].prompt_ids))
    assert first.endswith("user: Ann has 0 hats and buys 7. How many now?\nassistant:")
    assert first.count("user:") == 1


def test_lm_evals_own_task_runs_on_our_sampler(babbler: tuple[Any, Any], tmp_path: Path) -> None:
    """lm-eval's gsm8k, with its prompt and its grader, on rows of ours."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    rows = [{"question": p.prompt, "answer": f"So it is.\n#### {p.gold}"} for p in problems(8)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = load_yaml(Path(lm_eval.tasks.__file__).parent / "gsm8k" / "gsm8k.yaml")
    files = {"data_files": {"train": str(file), "test": str(file)}, "cache_dir": str(tmp_path)}
    here = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": files}
    (task,) = lm_eval.tasks.TaskManager(include_defaults=False).load([own | here])["tasks"].values()
    tokenizer = babbler[1]
    sampler = Scripted(tokenizer, lambda problem, sample: f" It is #### {7 + int(problem) // 2 * 2}")
    found = run_lm_eval(Answering(sampler, tokenizer, 0, 8), [task], None, {})
    assert found["results"]["gsm8k"]["exact_match,strict-match"] == 0.5


def test_lm_eval_has_the_tasks_that_are_run_beside_ours() -> None:
    from lm_eval.tasks import TaskManager

    assert set(NATIVE.values()) <= set(TaskManager().all_subtasks)
    assert set(NATIVE) <= set(TASKS)


def test_without_the_hub_a_task_of_lm_eval_says_what_it_needs(tmp_path: Path) -> None:
    code = (
        "from suite.evaluation.lm_eval_model import native_task\n"
        "try: native_task('gsm8k')\nexcept Exception as e: print(repr(e))"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UserError")
    assert done.stdout.count("\n") == 1
    assert "lm-eval's own gsm8k" in done.stdout
    assert "HF_HOME" in done.stdout


def test_what_the_samplers_do_not_have_is_refused() -> None:
    assert settings_from({"until": ["\n\n", "", "\n\n"], "top_k": 0, "top_p": 1.0}, 4) == SamplingSettings(
        256, temperature=0.0, batch_size=4, stop=("\n\n",)
    )
    greedy = {"until": [], "do_sample": False, "temperature": 0.0}
    assert settings_from(greedy, 4) == SamplingSettings(256, temperature=0.0, batch_size=4)
    drawn = settings_from({"until": [], "do_sample": True, "temperature": 0.7, "max_gen_toks": 9}, 4)
    assert drawn == SamplingSettings(9, temperature=0.7, batch_size=4)
    for name, value in (("top_p", 0.9), ("top_k", 50), ("num_beams", 4)):
        with pytest.raises(UserError, match=f"{name} = {value}"):
            settings_from({"until": [], name: value}, 4)


def test_scoring_given_texts_is_refused_in_one_line() -> None:
    model = model_class()(Answering(Scripted(None, planted), None, 0, 8))
    asked = [type("Asked", (), {"task_name": "hellaswag"})()]
    for ask in (model.loglikelihood, model.loglikelihood_rolling):
        with pytest.raises(UserError, match="hellaswag: scores given texts"):
            ask(asked)


def test_the_model_is_registered() -> None:
    from lm_eval.api.registry import get_model

    assert model_class() is get_model("fspo")
