"""Recipes of one's own, as TOML and as Python: every recipe survives the way out and back, and bad files say where."""

from __future__ import annotations

import dataclasses
import sys
import tomllib
from pathlib import Path

import pytest

from suite.commands import main
from suite.config import CompareConfig, EvalConfig, TrainConfig, VllmConfig
from suite.experiments.names import METHODS
from suite.experiments.recipe_book import RECIPES, provenance
from suite.experiments.recipe_files import as_toml, recipe_in_module, recipe_in_toml
from suite.experiments.recipes import Changes, changed, recipe
from suite.experiments.settings import method_in
from suite.types import UserError

OWN = """
name = "mine"
methods = ["fspo", "rloo"]
seeds = [0, 4]

[train]
tasks = ["equation"]
learning_rate = 1e-4
steps = 2

[evaluation]
tasks = ["equation", "gcd"]

[settings.fspo]
c_low = 0.05
c_dual = "none"
drift = "ema"
"""
PYTHON = """
import dataclasses
from suite.experiments.recipe_book import smoke

def short():
    return dataclasses.replace(smoke(), name="short", seeds=(7,))

VALUE = short()

def broken():
    return {}["no such key"]

def another():
    return 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.toml").write_text(OWN)
    (tmp_path / "my_recipes.py").write_text(PYTHON)
    return tmp_path


def odd() -> CompareConfig:
    """A config in which every field differs from its default."""
    vllm = VllmConfig(prefix_caching=False, compiled=True, kv_cache_gib=3, tensor_parallel_size=2, sleep=False)
    train = TrainConfig(
        tasks=("equation", "gcd"),
        model="some/folder",
        data_dir=Path("data sets"),
        steps=3,
        problems_per_step=4,
        samples_per_problem=6,
        mini_batches=3,
        epochs=2,
        learning_rate=1e-6,
        schedule="cosine",
        warmup_updates=7,
        weight_decay=0.1,
        max_grad_norm=0.5,
        kl_coefficient=1e-3,
        max_new_tokens=40,
        dynamic_sampling=1,
        overlong_buffer=3,
        chat=True,
        sampling_batch_size=12,
        tokens_per_micro_batch=333,
        activation_checkpointing=True,
        precision="bfloat16",
        float32_head=True,
        sampler="vllm",
        vllm=vllm,
        deterministic=True,
        portable=True,
        lora_rank=4,
        lora_alpha=8.0,
        lora_targets="q_proj,v_proj",
        checkpoint_every=2,
        probe_every=3,
        probe_problems=5,
        probe_samples=2,
        overlap="refuse",
        trackers=("wandb", "tensorboard"),
    )
    evaluation = EvalConfig(("gcd",), 3, 5, 9, 0.5, 13, 77, True, ("gcd=2",))
    options = ("fspo.c_low=0.05", "fspo.drift=ema", "grpo.clip_low=0.1", "fspo.c_dual=none", "ppo.whiten=False")
    return CompareConfig('odd "name"', ("fspo", "grpo"), (3, 1), train, evaluation, options, 200, 1, "gcd", "own")


def test_nothing_of_the_odd_config_is_a_default() -> None:
    least = CompareConfig("x", ("a",), (0,), TrainConfig(("a",)), EvalConfig(("a",)))
    for one, other in ((odd(), least), (odd().train, least.train), (odd().evaluation, least.evaluation)):
        same = [f.name for f in dataclasses.fields(one) if getattr(one, f.name) == getattr(other, f.name)]
        assert same == []


@pytest.mark.parametrize("name", [*RECIPES, "odd"])
def test_a_recipe_comes_back_from_toml_as_it_was(name: str, tmp_path: Path) -> None:
    config = odd() if name == "odd" else recipe(name)
    path = tmp_path / "recipe.toml"
    path.write_text(as_toml(config, provenance(config), "a title"))
    back = recipe_in_toml(path)
    assert dataclasses.replace(back, options=()) == dataclasses.replace(config, options=())
    by_method = {o: [x for x in config.options if x.startswith(o)] for o in ("fspo", "grpo", "ppo")}
    assert {o: [x for x in back.options if x.startswith(o)] for o in by_method} == by_method
    assert as_toml(back, provenance(config), "a title") == path.read_text()


def test_a_toml_recipe_sets_what_it_says_and_leaves_the_rest(here: Path) -> None:
    config = recipe("mine.toml")
    assert (config.name, config.methods, config.seeds) == ("mine", ("fspo", "rloo"), (0, 4))
    assert config.options == ("fspo.c_low=0.05", "fspo.c_dual=none", "fspo.drift=ema")
    assert config.train == TrainConfig(("equation",), learning_rate=1e-4, steps=2)
    assert config.evaluation == EvalConfig(("equation", "gcd"))
    later = changed("mine.toml", Changes(steps=5, set=("train.tasks=gcd,equation", "fspo.c_low=0.1")), ["fspo"])
    assert (later.train.steps, later.train.tasks, later.methods) == (5, ("gcd", "equation"), ("fspo",))


WRONG = {
    "no file": (None, "absent.toml: No such file"),
    "no TOML": ("name = ", "not TOML: Invalid value (at "),
    "a misspelt setting": (OWN.replace("steps", "stesp"), "unknown setting train 'stesp'; did you mean steps?"),
    "a misspelt table": (OWN.replace("[train]", "[trian]"), "unknown setting 'trian'; did you mean train?"),
    "a string for a number": (OWN.replace("steps = 2", 'steps = "2"'), "train.steps = '2': must be a whole number"),
    "true for a number": (OWN.replace("steps = 2", "steps = true"), "train.steps = True: must be a whole number"),
    "a float for a count": (OWN.replace("steps = 2", "steps = 2.0"), "train.steps = 2.0: must be a whole number"),
    "a string for an array": (OWN.replace('["equation"]', '"equation"'), "train.tasks = 'equation': must be an array"),
    "an impossible value": (OWN.replace("steps = 2", "steps = 0"), "TrainConfig.steps = 0: must be at least 1"),
    "no such choice": (OWN.replace("steps = 2", 'schedule = "liner"'), "did you mean linear?"),
    "what is missing": (OWN.replace('tasks = ["equation"]\n', ""), "train.tasks is missing"),
    "no name": (OWN.replace('name = "mine"', ""), "name is missing"),
    "no training": (OWN.partition("[train]")[0] + "[evaluation]\ntasks = ['gcd']", "train.tasks is missing"),
    "what follows": (
        OWN.replace("steps = 2", 'vllm.dtype = "float32"'),
        "train.vllm.dtype: it follows train.precision",
    ),
    "options": (OWN.replace('name = "mine"', 'name = "mine"\noptions = ["fspo.c_low=1"]'), "[settings.fspo]"),
    "no such method": (OWN.replace("settings.fspo", "settings.fsop"), "unknown method 'fsop'; did you mean fspo?"),
    "no such hyper-parameter": (OWN.replace("c_low", "c_lwo"), "unknown setting of fspo 'c_lwo'; did you mean c_low?"),
    "a hyper-parameter out of range": (OWN.replace("0.05", "-1"), "FSPOHyper.c_low = -1.0: must be positive"),
    "a string for a hyper-parameter": (
        OWN.replace("0.05", '"0.05"'),
        "settings.fspo.c_low = '0.05': must be written as 0.05",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_toml_recipe_is_one_line_with_the_place(case: str, tmp_path: Path) -> None:
    text, expected = WRONG[case]
    path = tmp_path / "absent.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as refused:
        recipe(str(path))
    assert str(path) in str(refused.value)
    assert expected in str(refused.value)


def test_python_recipes_are_functions_or_values(here: Path) -> None:
    assert recipe("my_recipes.py:short").seeds == (7,)
    assert recipe("my_recipes:short") == recipe("my_recipes.py:VALUE") == recipe(f"{here}/my_recipes.py:short")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("my_recipes.py:shrot", "there is no shrot in it; there is: short, broken, another"),
        ("my_recipes.py:broken", "KeyError: 'no such key' (my_recipes.py, line 11)"),
        ("my_recipes.py:another", "gives an int, not a suite.config.CompareConfig"),
        ("my_recipes.py", "name the function in the file too: my_recipes.py:NAME"),
        ("absent.py:short", "absent.py: no such file"),
        ("absent:short", "ModuleNotFoundError"),
        ("mine", "did you mean the file mine.toml?"),
        (":short", "write it as my_recipe.py:NAME"),
    ],
)
def test_a_bad_python_recipe_is_one_line(reference: str, expected: str, here: Path) -> None:
    with pytest.raises(UserError) as refused:
        recipe(reference)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_changed_copy_needs_a_name_of_its_own(here: Path) -> None:
    (here / "copy.toml").write_text(as_toml(recipe("smoke"), {}))
    assert recipe("copy.toml") == recipe("smoke")
    text = (here / "copy.toml").read_text().replace("steps = 3", "steps = 4")
    (here / "copy.toml").write_text(text)
    with pytest.raises(UserError, match=r"copy.toml: its name 'smoke' is that of a recipe of the suite"):
        recipe("copy.toml")
    with pytest.raises(UserError, match="Is a directory"):
        recipe_in_toml(here)


@pytest.mark.parametrize("reference", ["mine.toml", "my_recipes.py:short"])
def test_commands_take_recipes_of_ones_own(
    reference: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["fspo", *words])
        main.main()
        return capsys.readouterr().out

    name = recipe(reference).name
    assert f"would run {name} in results/runs/{name}" in printed("compare", reference, "--dry-run")
    assert f"in results/runs/{name}-fspo-seed3" in printed(
        "train", reference, "--method", "fspo", "--seed", "3", "--dry-run"
    )
    assert f"fspo compare {reference} --workers" in printed("plan", reference)
    assert "set by this recipe" in printed("recipes", reference)
    assert tomllib.loads(printed("recipes", reference, "--toml"))["name"] == name
    assert not (here / "results").exists()


def test_lists_in_set(here: Path) -> None:
    assert changed("smoke", Changes(set=("evaluation.tasks=gcd, equation",))).evaluation.tasks == ("gcd", "equation")
    with pytest.raises(UserError, match="no empty one"):
        changed("smoke", Changes(set=("train.tasks=gcd,",)))
    with pytest.raises(UserError, match=r"unknown task 'gdc'; did you mean gcd\?"):
        changed("smoke", Changes(set=("train.tasks=gdc",)))


def test_a_function_in_a_module_is_read_once_more_after_an_edit(here: Path) -> None:
    assert recipe_in_module("my_recipes.py:short").seeds == (7,)
    (here / "my_recipes.py").write_text(PYTHON.replace("(7,)", "(8,)"))
    assert recipe_in_module("my_recipes.py:short").seeds == (8,)


def test_a_recipes_settings_of_methods_reach_what_is_run(here: Path) -> None:
    text = as_toml(recipe("smoke"), {}).replace('"smoke"', '"mine"')
    (here / "set.toml").write_text(text + "\n[settings.grpo]\nclip_low = 0.1\nclip_high = 0.3\n")
    config = changed("set.toml", Changes())
    assert method_in(config, "grpo").hyper == dataclasses.replace(METHODS["grpo"].hyper, clip_low=0.1, clip_high=0.3)
    other = changed("set.toml", Changes(set=("grpo.clip_low=0.2", "train.steps=2")))
    assert method_in(other, "grpo").hyper == dataclasses.replace(METHODS["grpo"].hyper, clip_low=0.2, clip_high=0.3)
    assert other.train.steps == 2
    assert changed("set.toml", Changes(), methods=["fspo"]).options == ()
