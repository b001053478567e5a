"""Samples on disk: what is drawn is kept, what is kept is not drawn again, and nothing is mixed or read when broken."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from small_world import ODD, tiny
from suite.config import EvalConfig
from suite.evaluation.evaluate import evaluate, manifest_of, sampling_settings_of
from suite.evaluation.sample_store import MANIFEST, SampleStore, read_frame, read_manifest, samples_folder, unfinished
from suite.policy.halving_sampler import NO_CPU_MEMORY, FrugalSampler
from suite.policy.loading import LoadedModel, model_digest, tokenizer_digest
from suite.policy.sampling import SampleRequest, SamplingSettings, TransformersSampler
from suite.types import Problem, Rollout, Task, UserError, Verdict

CONFIG = EvalConfig(("odd", "even"), samples=3, limit=10, batch_size=8)
PARTS = 4  # 30 samples in parts of 8


def even(pairs: Any) -> list[Verdict]:
    return [Verdict.WRONG if len(text) % 2 else Verdict.CORRECT for text, _ in pairs]


EVEN = dataclasses.replace(ODD, name="even", grade=even, stop=("7",), panel={"odd": ODD.grade, "even": even})
TASKS = (ODD, EVEN)


class Killed(Exception):
    """The place of a kill."""


@dataclasses.dataclass
class Counting:
    """The in-process sampler, which keeps what it was asked and dies in its `dies`-th call."""

    inner: TransformersSampler
    dies: int | None = None
    asked: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    calls: int = 0
    engine = "counting"

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        self.calls += 1
        if self.calls == self.dies:
            raise Killed
        self.asked += [(request.problem_id, request.sample_index) for request in requests]
        return self.inner.sample(requests, settings, on_progress)


def loaded() -> LoadedModel:
    model, tokenizer = tiny()
    return LoadedModel(model, tokenizer, "tiny", model_digest(model), tokenizer_digest(tokenizer))


def counting(dies: int | None = None) -> Counting:
    return Counting(TransformersSampler(*tiny()), dies)


def manifest(config: EvalConfig = CONFIG, tasks: Sequence[Task] = TASKS, engine: str = "counting") -> dict[str, Any]:
    return manifest_of(loaded(), engine, tasks, config, None, {"torch": torch.__version__})


def run(folder: Path, sampler: Any, config: EvalConfig = CONFIG, told: Any = None) -> list[Any]:
    store = SampleStore(folder)
    store.claim(manifest(config))
    return evaluate(sampler, sampler.inner.tokenizer, TASKS, config, None, told, store)


def content(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, counting())


@pytest.mark.parametrize("dies", [1, 3, 5, 2 * PARTS])
def test_an_evaluation_goes_on_and_ends_with_the_same_files(
    whole: tuple[Path, list[Any]], tmp_path: Path, dies: int
) -> None:
    first, second = counting(dies), counting()
    with pytest.raises(Killed):
        run(tmp_path, first)
    told: list[tuple[str, int, int]] = []
    assert run(tmp_path, second, told=lambda *what: told.append(what)) == whole[1]
    assert content(tmp_path) == content(whole[0])
    assert second.calls == 2 * PARTS - (dies - 1)
    assert sum(new for _, new, _ in told) == 60
    everything = [(problem, sample) for problem, sample in first.asked + second.asked]
    assert sorted(everything) == sorted(2 * [(f"eval/{i}", s) for i in range(10) for s in range(3)])


def test_a_finished_evaluation_asks_nothing(whole: tuple[Path, list[Any]]) -> None:
    before, sampler = content(whole[0]), counting()
    assert run(whole[0], sampler) == whole[1]
    assert sampler.calls == 0
    assert content(whole[0]) == before


def test_it_goes_on_with_another_batch_size(whole: tuple[Path, list[Any]], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, counting(4))
    assert run(tmp_path, counting(), dataclasses.replace(CONFIG, batch_size=3)) == whole[1]
    assert content(tmp_path) == content(whole[0])


def test_a_store_changes_no_verdict(whole: tuple[Path, list[Any]]) -> None:
    sampler = counting()
    assert evaluate(sampler, sampler.inner.tokenizer, TASKS, CONFIG, None) == whole[1]
    assert whole[1][0].verdicts != whole[1][1].verdicts


def test_a_row_holds_what_was_asked_drawn_and_said(whole: tuple[Path, list[Any]]) -> None:
    frame = read_frame(whole[0])
    assert list(frame["task"]) == 30 * ["odd"] + 30 * ["even"]
    assert list(frame["sample"]) == 20 * [0, 1, 2]
    problems = {p.id: p for p in ODD.load("eval", None)}
    tokenizer, template = tiny()[1], hashlib.sha256(b"{question}").hexdigest()
    for row in frame.to_dict("records"):
        assert row["prompt"] == problems[row["problem"]].prompt
        assert row["template"] == template
        assert row["response"] == tokenizer.decode(list(row["tokens"]), skip_special_tokens=True)
        assert row["length"] == len(row["tokens"])
        assert row["finish"] == (
            "length"
            if tokenizer.eos_token_id not in row["tokens"] and not (row["task"] == "even" and "7" in row["response"])
            else "stop"
        )
        graded = row["response"].partition("7")[0] if row["task"] == "even" else row["response"]  # 7 is a stop text
        odd = bool(len(graded) % 2)
        assert (row["verdict"] == "correct") == (odd if row["task"] == "odd" else not odd)
        if row["task"] == "even":
            assert (row["odd"] == "correct", row["even"] == "correct") == (odd, not odd)
    assert frame.loc[frame["task"] == "odd", "even"].isna().all()
    assert len(set(frame["seed"])) == 60
    assert unfinished(whole[0], frame) == {}
    facts = read_manifest(whole[0])["asked"]["tasks"]["even"]
    assert (facts["template"], facts["template_sha256"]) == ("{question}", template)
    assert (facts["stop"], facts["max_new_tokens"], facts["graders"]) == (["7"], 24, ["verdict", "odd", "even"])


def test_a_result_says_of_every_problem_what_its_rows_say(whole: tuple[Path, list[Any]]) -> None:
    frame = read_frame(whole[0])
    for result in whole[1]:
        rows = frame[frame["task"] == result.task]
        assert list(rows["problem"]) == [problem for problem in result.problem_ids for _ in range(3)]
        assert list(rows["verdict"]) == [verdict for verdicts in result.verdicts for verdict in verdicts]
        assert list(rows["length"]) == [length for lengths in result.lengths for length in lengths]
        assert result.truncated_share == sum(rows["finish"] == "length") / 30 != 0.5


def test_what_is_asked_for_goes_before_what_the_task_says() -> None:
    asked = dataclasses.replace(CONFIG, temperature=0.0, max_new_tokens=5)
    assert sampling_settings_of(EVEN, asked) == SamplingSettings(5, temperature=0.0, batch_size=8, stop=("7",))


def test_the_longest_prompts_are_asked_first() -> None:
    sampler = counting()
    evaluate(sampler, sampler.inner.tokenizer, [ODD], CONFIG, None)
    lengths = {p.id: len(p.prompt) for p in ODD.load("eval", None)}
    asked = [lengths[problem] for problem, _ in sampler.asked]
    parts = [asked[:6], asked[6:14], asked[14:22], asked[22:]]
    assert all(min(part) >= max(following) for part, following in itertools.pairwise(parts))
    assert min(parts[0]) > max(parts[-1])


def reworded(split: str, data_dir: Path | None) -> list[Problem]:
    """The odd task's problems, one of them with another text."""
    first, *others = ODD.load(split, data_dir)
    return [dataclasses.replace(first, prompt="1+1="), *others]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("seed = 0, not 1", manifest(dataclasses.replace(CONFIG, seed=1))),
        ("limit = 10, not 9", manifest(dataclasses.replace(CONFIG, limit=9))),
        ("samples = 3, not 4", manifest(dataclasses.replace(CONFIG, samples=4))),
        ("temperature = 1.0, not 0", manifest(dataclasses.replace(CONFIG, temperature=0))),
        ("max_new_tokens = 24, not 5", manifest(dataclasses.replace(CONFIG, max_new_tokens=5))),
        ("engine = 'counting', not 'vllm 1'", manifest(engine="vllm 1")),
        ("version = '1', not '2'", manifest(tasks=[dataclasses.replace(ODD, version="2"), EVEN])),
        (
            "template = '{question}', not '?{question}'",
            manifest(tasks=[dataclasses.replace(ODD, render=lambda p: "?" + p.prompt), EVEN]),
        ),
        ("tasks.odd.data = ", manifest(tasks=[dataclasses.replace(ODD, load=reworded), EVEN])),
        ("tasks.even", manifest(tasks=[ODD])),
        ("model = ", {**manifest(), "asked": {**manifest()["asked"], "model": "f00"}}),
    ],
)
def test_another_evaluation_is_refused_and_changes_nothing(
    whole: tuple[Path, list[Any]], name: str, other: dict[str, Any]
) -> None:
    before = content(whole[0])
    with pytest.raises(UserError) as refused:
        SampleStore(whole[0]).claim(other)
    assert name in str(refused.value)
    assert "choose another --out" in str(refused.value)
    assert content(whole[0]) == before


def test_versions_and_machine_are_told_but_not_demanded(whole: tuple[Path, list[Any]]) -> None:
    before = content(whole[0])
    SampleStore(whole[0]).claim({**manifest(), "made_by": {"torch": "another"}, "chunk": 3})
    assert read_manifest(whole[0])["made_by"] == {"torch": torch.__version__}
    assert content(whole[0]) == before


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(UserError, match="not empty and no store of samples"):
        SampleStore(tmp_path).claim(manifest())
    with pytest.raises(UserError, match="no samples here"):
        samples_folder(tmp_path)
    (tmp_path / MANIFEST).write_text('{"schema": 99, "asked": {}}')
    with pytest.raises(UserError, match="schema 99"):
        read_frame(tmp_path)


def test_an_altered_manifest_is_refused(tmp_path: Path) -> None:
    SampleStore(tmp_path).claim(manifest())
    text = (tmp_path / MANIFEST).read_text()
    (tmp_path / MANIFEST).write_text(text.replace('"samples": 3', '"samples": 2'))
    with pytest.raises(UserError, match="altered: its digest differs"):
        read_frame(tmp_path)


def test_every_flipped_or_missing_byte_is_noticed(whole: tuple[Path, list[Any]], tmp_path: Path) -> None:
    run(tmp_path, counting())
    (path,), (verdicts,) = (tmp_path / "odd").glob("part-00001-*"), (tmp_path / "odd").glob("verdicts-*")
    for file in (path, verdicts):
        good = file.read_bytes()
        for at in range(0, len(good), 211):
            file.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
            with pytest.raises(UserError, match=rf"{file.name}.*altered or truncated.*delete it"):
                read_frame(tmp_path)
        file.write_bytes(good[: len(good) // 2])
        with pytest.raises(UserError, match=rf"{file.name}.*altered or truncated.*delete it"):
            run(tmp_path, counting())
        file.unlink()
        run(tmp_path, counting())
    assert content(tmp_path) == content(whole[0])


def test_parts_in_the_wrong_place_are_noticed(tmp_path: Path) -> None:
    run(tmp_path, counting())
    (path,), (other,) = (tmp_path / "odd").glob("part-00001-*"), (tmp_path / "odd").glob("part-00002-*")
    path.unlink()
    assert unfinished(tmp_path, read_frame(tmp_path)) == {"odd": (22, 30)}
    impostor = path.with_name(other.name.replace("00002", "00001"))
    impostor.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="part 1 holds other samples"):
        run(tmp_path, counting())
    with pytest.raises(UserError, match="two parts hold the same sample"):
        read_frame(tmp_path)
    impostor.rename(other.with_name("part-00002-0.parquet"))
    with pytest.raises(UserError, match="part-00002 is there twice"):
        run(tmp_path, counting())


# --- memory ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Small:
    """A model that has no memory for more than `rows` rows: the one thing that cannot be had for real in a test."""

    model: Any
    rows: int
    error: Exception

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, input_ids: torch.Tensor, **options: Any) -> Any:
        if len(input_ids) > self.rows:
            raise self.error
        return self.model(input_ids=input_ids, **options)


ERRORS = {"device": torch.OutOfMemoryError("CUDA out of memory"), "cpu": RuntimeError(f"{NO_CPU_MEMORY}: you tried")}


def frugal(rows: int, error: Exception) -> tuple[FrugalSampler, list[str]]:
    model, tokenizer = tiny()
    lines: list[str] = []
    return FrugalSampler(TransformersSampler(Small(model, rows, error), tokenizer), lines.append), lines


@pytest.mark.parametrize("kind", ERRORS)
def test_the_batch_is_halved_until_it_fits_and_nothing_else_changes(kind: str, tmp_path: Path) -> None:
    roomy = run(tmp_path / "roomy", counting(), dataclasses.replace(CONFIG, batch_size=16))
    sampler, lines = frugal(3, ERRORS[kind])
    store = SampleStore(tmp_path / "small")
    tight = evaluate(
        sampler, tiny()[1], TASKS, dataclasses.replace(CONFIG, batch_size=16), None, store=store
    )  # 14 and 16 samples a chunk, three of a problem share their prompt's row until they part
    assert tight == roomy
    assert sampler.batch_size in (2, 3)
    assert lines
    assert all(line.startswith("out of memory with ") for line in lines)
    assert len(lines) == len(set(lines))
    assert content(tmp_path / "small") == {p: d for p, d in content(tmp_path / "roomy").items() if p != MANIFEST}


def test_a_single_response_that_does_not_fit_is_one_clear_error(tmp_path: Path) -> None:
    sampler, _ = frugal(0, ERRORS["cpu"])
    with pytest.raises(UserError, match="out of memory with a single response; lower --max-new-tokens"):
        evaluate(sampler, tiny()[1], TASKS, CONFIG, None, store=SampleStore(tmp_path))


def test_other_errors_are_not_taken_for_memory() -> None:
    sampler, lines = frugal(0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        evaluate(sampler, tiny()[1], TASKS, CONFIG, None)
    assert lines == []
