"""Recipes: every setting has a source, nothing of ours is called the paper's, and a dry run says what would happen."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from suite.commands import main
from suite.commands.recipes import NOT_PUBLIC, recipe_card
from suite.config import CHECKPOINT_RULE, CompareConfig, EvalConfig, TrainConfig, VllmConfig, plain_data
from suite.experiments.names import EMBEDDED_MODEL, METHODS, require_sets, tasks_named
from suite.experiments.recipe_book import DEFAULT, PAPER, RECIPES, SOURCES, provenance, published, recipe_settings
from suite.experiments.recipes import Changes, recipe, resolved
from suite.planning import dry_run
from suite.policy import lora, vllm_engine
from suite.records.comparison_folder import holds
from suite.types import UserError
from tasks import REAL_SETS

SHEETS = {module.NAME: module.SHEET for module in REAL_SETS}

OF_THE_PAPER = {"methods", "train.model", "evaluation.tasks"}
"""All that the paper says of its experiment; its data, batch, rate, lengths and samples are not public."""


def defaults() -> dict[str, object]:
    """The default of every setting that has one, by its path."""
    classes = {"": CompareConfig, "train.": TrainConfig, "train.vllm.": VllmConfig, "evaluation.": EvalConfig}
    return {
        prefix + f.name: f.default
        for prefix, config in classes.items()
        for f in dataclasses.fields(config)
        if f.default is not dataclasses.MISSING
    }


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_has_a_source_and_no_source_is_without_its_setting(name: str) -> None:
    config, sources = recipe(name), provenance(recipe(name))
    settings = recipe_settings(config)
    assert config.name == name
    assert SOURCES[name].keys() <= settings.keys(), "a source of a setting that there is not"
    assert sources.keys() == settings.keys()
    assert all(words.strip() for words in sources.values())
    inherited = {path for path, words in sources.items() if words == DEFAULT}
    assert {p for p in inherited if p not in defaults() or settings[p] != defaults()[p]} == set()


def test_a_setting_changed_without_a_source_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("smoke")
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2))
    monkeypatch.setitem(RECIPES, "smoke", lambda: changed)
    with pytest.raises(AssertionError):
        test_every_setting_has_a_source_and_no_source_is_without_its_setting("smoke")


@pytest.mark.parametrize("name", RECIPES)
def test_only_what_the_paper_says_is_called_the_papers(name: str) -> None:
    called = {path for path, words in provenance(recipe(name)).items() if words.startswith("paper")}
    assert called == (OF_THE_PAPER if name.startswith("qwen3") else set())
    if called:
        assert recipe(name).evaluation.tasks == ("math500", "aime24", "aime25")
        assert recipe(name).train.model in ("Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-8B-Base")
        assert PAPER == "paper (arXiv 2509.09177)"


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_methods_and_tasks_that_there_are_and_updates_that_can_clip(name: str) -> None:
    config = recipe(name)
    assert set(config.methods) <= METHODS.keys()
    assert all(task.trainable for task in tasks_named(config.train.tasks))
    tasks_named(config.evaluation.tasks)
    assert config.train.updates_per_rollout >= 4


def test_the_small_budget_study_is_the_one_that_was_published() -> None:
    config = recipe("hispo-1.7b")
    train = config.train
    assert (train.lora_rank, train.updates_per_rollout, train.max_new_tokens) == (1, 4, 4096)
    assert (config.evaluation.samples, config.evaluation.max_new_tokens) == (8, 4096)
    assert provenance(recipe("hispo-1.7b"))["train.tasks"].startswith("ours")


def test_public_numbers_are_of_the_recipes_methods_and_sets() -> None:
    for name in RECIPES:
        for (method, task), (value, source) in published(name).items():
            assert method in recipe(name).methods
            assert task in recipe(name).evaluation.tasks
            assert 0 < value < 100
            assert source
    assert published("hispo-1.7b")
    assert published("no such recipe") == {}


@pytest.mark.external
def test_public_numbers_are_those_of_our_notes_on_the_paper(shared: Path) -> None:
    numbers = published("hispo-1.7b")
    text = re.sub(r"\s+", " ", (shared / "paper" / "fspo.md").read_text(encoding="utf-8"))
    for method in ("grpo", "gspo"):
        row = "/".join(f"{numbers[method, task][0]:.2f}" for task in ("math500", "aime24", "aime25"))
        assert f"{method.upper()} {row}" in text


@pytest.mark.parametrize("name", RECIPES)
def test_a_card_shows_every_setting_with_its_value_and_source(name: str) -> None:
    rows = [tuple(x.strip() for x in line.split("|")[1:-1]) for line in recipe_card(name).splitlines() if "|" in line]
    shown = {row[0]: row[2] for row in rows}
    for path, words in provenance(recipe(name)).items():
        assert shown[path] == words
    values = {row[0]: row[1] for row in rows}
    train = recipe(name).train
    assert values["train.learning_rate"] == str(train.learning_rate)
    assert values["train.steps"] == str(train.steps)
    card = recipe_card(name)
    assert CHECKPOINT_RULE in card
    assert "Primary outcome: avg@" in card
    assert (NOT_PUBLIC in card) == (not published(name))


def test_the_command_prints_a_card(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "recipes", "hispo-1.7b"])
    main.main()
    assert {"train.lora_rank", "65.55", "HISPO"} <= set(re.findall(r"[\w.]+", capsys.readouterr().out))


def test_an_unknown_recipe_gets_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "recipes", "hispo"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    assert "did you mean hispo-1.7b?" in capsys.readouterr().err


def test_the_primary_outcome_is_a_set_of_the_recipe() -> None:
    with pytest.raises(UserError, match=r"CompareConfig.primary = 'gsm8k': must be mean or one of recurrence, "):
        dataclasses.replace(recipe("demo"), primary="gsm8k")


def changed(*options: str, **changes: object) -> CompareConfig:
    """The smoke recipe as the command line would change it."""
    return resolved("smoke", Changes(**changes, set=options))  # type: ignore[arg-type]


def dry(config: CompareConfig, out: Path) -> str:
    return "\n".join(dry_run.dry_run(config, out, {}))


def test_a_dry_run_counts_the_work_and_writes_nothing(tmp_path: Path) -> None:
    config = changed()
    said = dry(config, tmp_path / "out")
    first, later = 8 * 8, 2 * 2 * 8 * 8  # one shared first step, then two methods x two steps
    asked = 3 * 4 * 12 * 2  # the base and two cells, four sets, twelve problems, two samples
    assert f"2 methods x 1 seeds = 2 cells, 3 steps of 4 updates; {first + later:,} responses to train on" in said
    assert f"{asked:,} to evaluate" in said
    limit = max(task.max_new_tokens for task in tasks_named(config.train.tasks))
    assert f"(at most {(first + later) * limit:,} tokens)" in said
    assert said.splitlines()[-1] == f"would run smoke in {tmp_path / 'out'}"
    assert f"model: embedded, on this machine ({EMBEDDED_MODEL})" in said
    assert "evaluate: gcd, 12 problems, the first of 100: evaluation.limit = 12" in said
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_which_limit_cuts_a_set_and_nothing_of_a_whole_one(tmp_path: Path) -> None:
    said = dry(changed("evaluation.limits=gcd=5,equation=100", "evaluation.limit=none"), tmp_path / "out").splitlines()
    assert "evaluate: gcd, 5 problems, the first of 100: evaluation.limits = 5" in said
    assert {"evaluate: equation, 100 problems", "evaluate: recurrence, 100 problems"} <= set(said)


@pytest.mark.parametrize("name", RECIPES)
def test_a_narrow_terminal_shows_every_setting_by_its_whole_name(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["fspo", "recipes", name])
    main.main()
    lines = capsys.readouterr().out.splitlines()
    assert set(recipe_settings(recipe(name))) <= {word for line in lines for word in line.split()}
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_lists_fold_their_last_column_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["fspo", *words])
        main.main()
        return capsys.readouterr().out.splitlines()

    for words in (("recipes",), ("method", "list")):
        monkeypatch.delenv("COLUMNS", raising=False)
        whole = printed(*words)
        monkeypatch.setenv("COLUMNS", "80")
        folded = printed(*words)
        assert max(map(len, folded)) <= 80 < max(map(len, whole))
        assert " ".join(folded).split() == " ".join(whole).split()
        assert [line.split()[0] for line in folded if line[0] != " "] == [line.split()[0] for line in whole]


def test_the_command_of_a_dry_run_ends_without_a_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["fspo", "compare", "smoke", "--dry-run", "--out", str(out)])
    main.main()
    assert capsys.readouterr().out.endswith(f"would run smoke in {out}\n")
    assert not out.exists()


def test_a_dry_run_says_where_the_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path / "cache"))
    assert "not on this machine: will come from the hub" in dry(changed(model="nobody/nothing"), tmp_path / "out")
    assert "size not known here" in dry(changed(model="nobody/nothing"), tmp_path / "out")
    assert "not on this machine: will come out of a PyPI package" in dry(changed(model="smollm2"), tmp_path / "out")
    with pytest.raises(UserError, match="no such model or path"):
        dry(changed(model="./nowhere"), tmp_path / "out")


def test_a_dry_run_counts_parameters_from_the_files() -> None:
    recorded = json.loads((EMBEDDED_MODEL / "base.json").read_text())
    assert dry_run.parameter_count(EMBEDDED_MODEL) == recorded["parameters"]


def test_a_dry_run_misses_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "DISTRIBUTIONS", ())
    with pytest.raises(UserError, match="the engine vllm is not installed"):
        dry(changed("train.sampler=vllm"), tmp_path / "out")


def test_a_recipe_with_adapters_misses_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"peft is not installed; run `pip install .*\[lora\]'`"):
        changed("train.lora_rank=1")


def test_a_dry_run_refuses_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda place: usage(1000))
    with pytest.raises(UserError, match=r"0\.0 GiB free, but 2 trained models of [\d,]+ parameters take"):
        dry(changed(), tmp_path)


def stored(folder: Path, config: CompareConfig, without: tuple[str, ...] = ()) -> None:
    """A folder that claims to hold this comparison, recorded before some of its settings were thought of."""
    content = json.loads(json.dumps(plain_data(config)))
    content["train"] = {name: value for name, value in content["train"].items() if name not in without}
    (folder / "comparison.json").write_text(json.dumps({"protocol": 1, "config": content}))


def test_a_dry_run_knows_its_folder(tmp_path: Path) -> None:
    stored(tmp_path, changed())
    assert dry(changed(), tmp_path).endswith("where it goes on with what is there")
    with pytest.raises(UserError, match=r"train\.steps = 3, not 9"):
        dry(changed(steps=9), tmp_path)


def test_a_folder_older_than_a_setting_holds_its_default(tmp_path: Path) -> None:
    stored(tmp_path, changed(), without=("lora_rank", "lora_alpha"))
    assert holds(changed(), tmp_path, {})
    with pytest.raises(UserError, match=r"train\.lora_alpha = 32\.0, not 8\.0"):
        holds(changed("train.lora_alpha=8"), tmp_path, {})


def test_all_missing_files_of_a_run_are_named_together(tmp_path: Path) -> None:
    asked = {"train": ("dapo_math_17k", "gcd"), "eval": ("math500", "aime24", "gcd", "math500")}
    dapo, maths, aime = (
        SHEETS[name].files[split].where
        for name, split in (("dapo_math_17k", "train"), ("math500", "eval"), ("aime24", "eval"))
    )

    def put(*files: str) -> None:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()

    put(*aime)
    both = ", ".join((*dapo, *maths))
    with pytest.raises(UserError, match=f": {len(dapo + maths)} files that are asked for are missing: {both}; add"):
        require_sets(asked, tmp_path)
    put(*dapo, *maths)
    with pytest.raises(UserError, match=f"{dapo[0]}, line 1: "):  # all are there; the first of them is empty
        require_sets(asked, tmp_path)
    require_sets({"train": ["gcd"], "eval": ["gcd"]}, tmp_path)
    with pytest.raises(UserError, match="aime24: it is for evaluation only"):
        require_sets({"train": ["aime24"]}, tmp_path)
