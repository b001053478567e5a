"""What we hand to vLLM against what it takes, read from its source text: none is run, and none need fit this machine.

Looks in the installed vLLM, and in every vllm-*.whl of the folder that FSPO_VLLM_WHEELS names.
"""

from __future__ import annotations

import ast
import os
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from suite.config import VllmConfig
from suite.policy.vllm_engine import DISTRIBUTIONS, _surroundings

ROOT = Path(__file__).resolve().parents[2]
Source = Callable[[str], str]
"""The text of one of vLLM's files, by its path in the package."""


def from_wheel(path: Path) -> Source:
    return lambda name: zipfile.ZipFile(path).read(f"vllm/{name}").decode()


def sources() -> Iterator[tuple[str, Source]]:
    """Every vLLM that is at hand, by name and version."""
    for name in DISTRIBUTIONS:
        for found in distributions(name=name):
            folder = Path(str(found.locate_file("vllm")))
            yield f"installed {name} {found.version}", lambda part, folder=folder: (folder / part).read_text()
    if wheels := os.environ.get("FSPO_VLLM_WHEELS"):
        for path in sorted(Path(wheels).glob("vllm-*.whl")):
            yield "-".join(path.name.split("-")[:2]), from_wheel(path)


FOUND = dict(sources())


@pytest.fixture(params=FOUND or ["none"])
def source(request: pytest.FixtureRequest) -> Source:
    if request.param not in FOUND:
        pytest.skip("no vLLM to read: install one, or name a folder of its wheels in FSPO_VLLM_WHEELS")
    return FOUND[request.param]


# --- reading ----------------------------------------------------------------------------------------


def class_in(text: str, name: str) -> ast.ClassDef:
    return next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ClassDef) and n.name == name)


def methods_of(found: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {n.name: n for n in found.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def fields_of(found: ast.ClassDef) -> set[str]:
    """Annotated names in the body of a dataclass or struct."""
    return {n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}


def refusal(call: ast.Call, taken: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Why a method does not take the arguments of a call; empty where it does."""
    positional = [a.arg for a in (*taken.args.posonlyargs, *taken.args.args)][1:]
    named = {*positional, *(a.arg for a in taken.args.kwonlyargs)}
    unknown = {k.arg for k in call.keywords if k.arg} - named
    if unknown and taken.args.kwarg is None:
        return f"{taken.name} knows no {', '.join(sorted(unknown))}"
    if len(call.args) > len(positional) and taken.args.vararg is None:
        return f"{taken.name} takes {len(positional)} positional arguments"
    given = {*positional[: len(call.args)], *(k.arg for k in call.keywords)}
    missing = [name for name in positional[: len(positional) - len(taken.args.defaults)] if name not in given]
    return f"{taken.name} wants {', '.join(missing)}" if missing else ""


def ours(path: str) -> list[ast.Call]:
    """All calls in one of our files."""
    return [n for n in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(n, ast.Call)]


def made(name: str) -> ast.Call:
    """Our one call of a class of vLLM's."""
    (call,) = (c for c in ours("suite/policy/vllm_engine.py") if isinstance(c.func, ast.Name) and c.func.id == name)
    return call


def asked_of_llm() -> dict[str, ast.Call]:
    """Our calls of an LLM's methods."""
    calls = [c for c in ours("suite/policy/vllm_sampler.py") if ast.unparse(c.func).startswith("self.llm.")]
    return {c.func.attr: c for c in calls if isinstance(c.func, ast.Attribute)}


def keywords(call: ast.Call) -> set[str]:
    return {k.arg for k in call.keywords if k.arg}


# --- what is taken ----------------------------------------------------------------------------------


def test_an_engine_takes_what_it_is_started_with(source: Source) -> None:
    fields = fields_of(class_in(source("engine/arg_utils.py"), "EngineArgs"))
    llm = methods_of(class_in(source("entrypoints/llm.py"), "LLM"))["__init__"]
    named = {a.arg for a in (*llm.args.args, *llm.args.kwonlyargs)}
    given = keywords(made("LLM"))
    assert len(given) > 12
    assert given <= fields
    assert given <= named or llm.args.kwarg is not None


def test_a_request_takes_what_it_is_told(source: Source) -> None:
    fields = fields_of(class_in(source("sampling_params.py"), "SamplingParams"))
    given = keywords(made("SamplingParams"))
    assert len(given) > 10
    assert given | {"min_tokens"} <= fields, "min_tokens: planned lengths of benchmarks"


def test_an_engines_methods_take_our_calls(source: Source) -> None:
    llm = class_in(source("entrypoints/llm.py"), "LLM")
    calls = asked_of_llm()
    assert calls.keys() >= {"generate", "collective_rpc", "sleep", "wake_up", "reset_prefix_cache"}
    taken = methods_of(llm)
    for base in llm.bases:  # newer versions spread it over several files
        name = ast.unparse(base)
        for module in ("entrypoints/offline_utils.py", "entrypoints/pooling/offline.py"):
            try:
                taken = methods_of(class_in(source(module), name)) | taken
            except (FileNotFoundError, KeyError, StopIteration):
                assert name, "not in this file"
    assert {name: refusal(call, taken[name]) for name, call in calls.items()} == dict.fromkeys(calls, "")


def test_weights_are_reloaded_from_a_folder(source: Source) -> None:
    call = asked_of_llm()["collective_rpc"]
    assert ast.literal_eval(call.args[0]) == "reload_weights"
    told = next(k.value for k in call.keywords if k.arg == "kwargs")
    assert isinstance(told, ast.Dict)
    given = {ast.literal_eval(key) for key in told.keys if key is not None}
    assert given == {"weights_path"}
    runner = methods_of(class_in(source("v1/worker/gpu_model_runner.py"), "GPUModelRunner"))["reload_weights"]
    assert given <= {a.arg for a in runner.args.args}
    worker = methods_of(class_in(source("v1/worker/gpu_worker.py"), "Worker"))["reload_weights"]
    assert worker.args.kwarg is not None, "and hands on what it is given"
    newer = methods_of(class_in(source("v1/worker/gpu/model_runner.py"), "GPUModelRunner"))["reload_weights"]
    assert newer.args.kwarg is not None or given <= {a.arg for a in newer.args.args}


def test_level_2_keeps_buffers_and_wakes_in_two_parts(source: Source) -> None:
    worker = methods_of(class_in(source("v1/worker/gpu_worker.py"), "Worker"))
    assert "level == 2" in ast.unparse(worker["sleep"])
    assert "named_buffers" in ast.unparse(worker["sleep"])
    assert "named_buffers" in ast.unparse(worker["wake_up"])
    core = methods_of(class_in(source("v1/engine/core.py"), "EngineCore"))
    assert "resume_scheduler" in ast.unparse(core["wake_up"])
    executor = source("v1/executor/abstract.py")
    assert '"weights"' in executor
    assert '"kv_cache"' in executor


def test_the_log_probs_are_there_that_we_ask_for(source: Source) -> None:
    assigned = [n for n in ast.parse(source("config/model.py")).body if isinstance(n, ast.Assign | ast.AnnAssign)]
    modes = next(n for n in assigned if "LogprobsMode" in ast.unparse(n).partition("=")[0])
    mode = next(k.value for k in made("LLM").keywords if k.arg == "logprobs_mode")
    assert repr(ast.literal_eval(mode)) in ast.unparse(modes)
    answer = fields_of(class_in(source("outputs.py"), "CompletionOutput"))
    assert {"token_ids", "logprobs", "finish_reason"} <= answer


def test_seeds_are_kept_as_signed_numbers_and_minus_one_is_none(source: Source) -> None:
    """Why `vllm_seed` is as it is."""
    states = source("v1/worker/gpu/sample/states.py")
    assert "self.seeds = UvaBackedTensor(max_num_reqs, dtype=torch.int64)" in states
    text = ast.unparse(methods_of(class_in(source("sampling_params.py"), "SamplingParams"))["__post_init__"])
    assert "self.seed == -1" in text


def test_every_environment_variable_is_known(source: Source) -> None:
    known = source("envs.py")
    ours_of_vllm = [name for name in _surroundings(VllmConfig(), None) if name.startswith("VLLM_")]
    assert len(ours_of_vllm) > 4
    assert [name for name in ours_of_vllm if f'"{name}"' not in known] == []


def test_the_engine_of_this_process_can_be_ended_without_the_runs_process_group(source: Source) -> None:
    """The parts that `end_vllm` ends, and why it does not call the engine's own `shutdown`."""
    core = source("v1/engine/core.py")
    assert "self.engine_core = EngineCore(" in source("v1/engine/core_client.py")
    assert "self.model_executor = " in core
    assert "self.scheduler" in core
    assert "cleanup_dist_env_and_memory()" in ast.unparse(methods_of(class_in(core, "EngineCore"))["shutdown"])
    executor = class_in(source("v1/executor/multiproc_executor.py"), "MultiprocExecutor")
    assert "self.is_failed = " in ast.unparse(executor)
    (end,) = (c for c in ours("suite/policy/vllm_engine.py") if ast.unparse(c.func) == "core.model_executor.shutdown")
    assert refusal(end, methods_of(executor)["shutdown"]) == ""
    (end,) = (c for c in ours("suite/policy/vllm_engine.py") if ast.unparse(c.func) == "core.scheduler.shutdown")
    assert refusal(end, methods_of(class_in(source("v1/core/sched/scheduler.py"), "Scheduler"))["shutdown"]) == ""


# --- the reader itself ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "taken", "told"),
    [
        ("f(1, b=2)", "def f(self, a, b=0): ...", ""),
        ("f(1, c=2)", "def f(self, a, b=0): ...", "f knows no c"),
        ("f(1, c=2)", "def f(self, a, **more): ...", ""),
        ("f(1, 2)", "def f(self, a, *, b=0): ...", "f takes 1 positional arguments"),
        ("f(b=2)", "def f(self, a, b=0): ...", "f wants a"),
        ("f()", "def f(self, a=1): ...", ""),
    ],
)
def test_a_call_that_does_not_fit_is_told(call: str, taken: str, told: str) -> None:
    parsed, defined = ast.parse(call, mode="eval").body, ast.parse(taken).body[0]
    assert isinstance(parsed, ast.Call)
    assert isinstance(defined, ast.FunctionDef)
    assert refusal(parsed, defined) == told
