"""What a plan says of memory: published sizes, activations as autograd keeps them, terms by hand, measured peaks."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.memory import Case, measured
from suite.experiments.models import model_folder
from suite.experiments.names import EMBEDDED_MODEL
from suite.planning.devices import DEVICES, device_named
from suite.planning.memory_model import (
    KEPT_FREE,
    LIBRARIES,
    Load,
    activations_per_token,
    sampling,
    standing,
    total_gib,
    updating,
)
from suite.planning.memory_phases import hosting, phases
from suite.planning.model_shapes import PUBLISHED, ModelShape, model_shape
from suite.records.costs import GIB
from suite.types import UserError

PARAMETERS = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
}
"""What the hub's safetensors index of each model says."""
LOAD = Load(prompt=30, response=70, rows=64, mini_batches=4, micro_tokens=800, side_by_side=32, distinct_prompts=8)


@functools.cache
def shape(name: str = "Qwen/Qwen3-1.7B") -> ModelShape:
    return model_shape(name)


def gib_of(terms: list, name: str) -> float:
    return next(term.gib for term in terms if term.name == name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_weights(name: str) -> None:
    assert shape(name).parameters == PARAMETERS[name]


def test_the_embedded_shape_is_that_of_its_weights() -> None:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL)
    found = shape("embedded")
    assert found.parameters == sum(p.numel() for p in model.parameters())
    linear = {m.weight.data_ptr(): m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)}
    assert found.linear == sum(linear.values())
    inside = [m for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    assert found.adapted == sum(m.in_features + m.out_features for m in inside)


def kept_by_autograd(kind: str, layers: int, width: int, half: bool) -> int:
    """Bytes of all tensors that a forward pass of three rows keeps for the backward pass, weights left out."""
    sizes = {
        "hidden_size": 48,
        "intermediate_size": 112,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 64,
        "num_hidden_layers": layers,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes), attn_implementation="sdpa").float()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    context = torch.autocast("cpu", dtype=torch.bfloat16) if half else nullcontext()
    with context, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.ones(3, width, dtype=torch.int64), use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_of_a_layer_are_what_autograd_keeps(kind: str, precision: str) -> None:
    """Two lengths and two depths: what grows with both is one layer's share of one token."""
    half = precision == "bfloat16"
    bytes_of = {(n, w): kept_by_autograd(kind, n, w, half) for n in (1, 2) for w in (16, 32)}
    measured_layer = ((bytes_of[2, 32] - bytes_of[1, 32]) - (bytes_of[2, 16] - bytes_of[1, 16])) / (3 * 16)
    small = replace(
        shape(),
        hidden=48,
        queries=96,
        keys=32,
        heads=6,
        key_value_heads=2,
        feed_forward=112,
        query_norm=kind == "qwen3",
    )
    one, two = (activations_per_token(replace(small, layers=layers), precision)[0] for layers in (1, 2))
    assert two - one == measured_layer


def test_weights_gradients_and_states_are_sixteen_bytes_a_parameter() -> None:
    n = shape().parameters
    found = updating(shape(), LOAD)
    assert gib_of(found, "weights") == gib_of(found, "gradients") == 4 * n / GIB
    assert gib_of(found, "AdamW states") == 8 * n / GIB


def test_a_critic_costs_another_sixteen_bytes_a_parameter_of_its_body() -> None:
    untied = shape("Qwen/Qwen3-8B")
    body = untied.parameters - 151_936 * 4096
    extra = total_gib(updating(untied, replace(LOAD, critic=True))) - total_gib(updating(untied, LOAD))
    assert extra == pytest.approx((1 + KEPT_FREE) * 16 * body / GIB)


def test_only_adapters_have_gradients_and_states() -> None:
    adapters = 3 * shape().adapted
    found = sampling(shape(), replace(LOAD, lora_rank=3))
    assert gib_of(found, "weights") == 4 * shape().parameters / GIB
    assert [gib_of(found, name) for name in ("adapters", "gradients", "AdamW states")] == pytest.approx(
        [4 * adapters / GIB, 4 * adapters / GIB, 8 * adapters / GIB]
    )


def test_the_cache_holds_keys_and_values_of_every_row_and_layer() -> None:
    """Qwen3-1.7B: 28 layers x 2 x 8 heads x 128 x 4 bytes; 32 rows of 100 tokens and 64 to spare."""
    found = sampling(shape(), LOAD)
    assert gib_of(found, "key-value cache") == 32 * 164 * 28 * 2 * 8 * 128 * 4 / GIB


def test_micro_batches_hold_whole_rows_and_at_least_one() -> None:
    assert LOAD.micro_rows == 8
    assert replace(LOAD, micro_tokens=99).micro_rows == 1
    assert replace(LOAD, micro_tokens=10**6).micro_rows == 16
    assert LOAD.several
    assert not replace(LOAD, micro_tokens=10**6).several


# --- processes that share a run -------------------------------------------------------------------

LOADS = [
    replace(LOAD, gpu=gpu, precision=precision, critic=critic, lora_rank=rank, start_model=rank > 0, **engine)
    for gpu in (False, True)
    for precision in ("float32", "bfloat16")
    for critic, rank, engine in (
        (False, 0, {}),
        (True, 0, {}),
        (False, 4, {}),
        (False, 0, {"vllm_gib": 9.0, "vllm_kept_gib": 0.5}),
    )
]


def test_what_processes_divide_is_divided_and_nothing_else_is() -> None:
    one, eight = sampling(shape(), LOAD), sampling(shape(), replace(LOAD, processes=8))
    for name in ("weights", "gradients", "AdamW states"):
        assert gib_of(eight, name) == pytest.approx(gib_of(one, name) / 8)
    assert gib_of(eight, "whole model beside its part") == gib_of(one, "weights")
    long, many = replace(LOAD, response=970), replace(LOAD, response=970, processes=8)  # one row a micro-batch
    assert gib_of(updating(shape(), long), "activations") == gib_of(updating(shape(), many), "activations")
    half = replace(LOAD, precision="bfloat16")
    copies = [gib_of(sampling(shape(), replace(half, processes=n)), "sampler's copy") for n in (1, 8)]
    assert copies == [2 * shape().parameters / GIB] * 2


def test_the_root_group_is_what_no_layer_has() -> None:
    """Qwen3-8B: embedding and head of 151,936 x 4,096, and a norm of 4,096; tied ones count once."""
    assert shape("Qwen/Qwen3-8B").outside_layers == 2 * 151_936 * 4096 + 4096
    assert shape().outside_layers == 151_936 * 2048 + 2048
    found = updating(shape("Qwen/Qwen3-8B"), replace(LOAD, processes=8, gpu=True, precision="bfloat16"))
    assert gib_of(found, "root group, gathered") == pytest.approx(4 * (2 * 151_936 * 4096 + 4096) / GIB)


@pytest.mark.parametrize("load", LOADS)
def test_no_number_of_processes_goes_below_what_each_has_whole(load: Load) -> None:
    """The root group, the engine, and the products' weights in bfloat16 or a whole model that draws stay whole."""
    found = shape("Qwen/Qwen3-8B")
    draws = load.precision == "float32" and not (load.gpu and load.vllm_gib)
    halves = 2 * found.linear if load.precision == "bfloat16" else 0
    whole = 4 * found.outside_layers + (4 * found.parameters if draws else halves)
    assert total_gib(updating(found, replace(load, processes=10**6))) > whole / GIB + load.vllm_kept_gib


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_more_processes_never_need_more_memory_each(name: str, load: Load) -> None:
    needs = [
        max(map(total_gib, phases(shape(name), replace(load, processes=count)).values())) for count in range(2, 40)
    ]
    assert needs == sorted(needs, reverse=True)


@pytest.mark.parametrize("load", LOADS)
def test_a_phase_needs_the_sum_of_its_terms_and_never_less_than_what_stands(load: Load) -> None:
    for count in (1, 2, 8):
        here = replace(load, processes=count)
        stands = total_gib(standing(shape(), here, trained=True)) - gib_of(updating(shape(), LOAD), "gradients") / count
        for phase, terms in phases(shape(), here).items():
            assert total_gib(terms) * GIB == pytest.approx(sum(term.bytes for term in terms))
            assert all(term.bytes >= 0 and term.formula for term in terms), phase
            assert phase == "start" or total_gib(terms) >= stands, phase


def test_phases_are_compared_after_they_were_divided() -> None:
    """AdamW's step is the peak of one device, and of eight devices the pass over a micro-batch."""
    load = replace(LOAD, gpu=True, micro_tokens=512)
    one, eight = (updating(shape(), replace(load, processes=count)) for count in (1, 8))
    assert "AdamW's step" in {term.name for term in one}
    assert "activations" not in {term.name for term in one}
    assert "AdamW's step" not in {term.name for term in eight}
    assert "activations" in {term.name for term in eight}


def test_adapters_share_the_frozen_weights_with_the_start_model_of_one_process() -> None:
    names = [
        {term.name for term in sampling(shape(), replace(LOAD, start_model=True, lora_rank=rank, processes=count))}
        for rank, count in ((0, 1), (2, 1), (2, 2))
    ]
    assert ["start model" in found for found in names] == [True, False, True]


def test_the_host_counts_some_things_a_process_and_others_once() -> None:
    """In bfloat16 vLLM's processes read one model of 4 N bytes, and those that draw by themselves have one each; a
    checkpoint is 36 N bytes, written by one; each process has 8 N while its copy is cut.
    """
    n = shape().parameters
    alone = replace(LOAD, gpu=True, precision="bfloat16")
    engine = replace(alone, vllm_gib=9.0, vllm_kept_gib=0.5)
    kept, written, cut = "whole model, which hands weights over", "checkpoint", "copies that are cut"
    for count in (2, 3):
        found = hosting(shape(), replace(engine, processes=count), 1)
        assert (gib_of(found, kept), gib_of(found, written)) == (4 * n / GIB, 36 * n / GIB)
    assert gib_of(hosting(shape(), replace(alone, processes=3), 1), kept) == 3 * 4 * n / GIB
    for load in (alone, engine):
        many = hosting(shape(), replace(load, processes=16), 1)
        assert gib_of(many, cut) == gib_of(many, "weights while they are loaded") == 16 * 4 * n / GIB
    assert gib_of(hosting(shape(), engine, 3), written) == 3 * 36 * n / GIB
    adapted = replace(engine, lora_rank=1)  # little to write: loading is the peak
    assert gib_of(hosting(shape(), adapted, 3), "weights while they are loaded") == 3 * 4 * n / GIB


@pytest.mark.parametrize("name", DEVICES)
def test_devices_have_a_source_and_bfloat16_is_faster(name: str) -> None:
    device = device_named(name)
    assert device.source
    assert device.peak("bfloat16") > device.peak("float32") > 0


def test_unknown_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="there are: h100-80gb"):
        device_named("h100")
    with pytest.raises(UserError, match="Qwen/Qwen3-8B"):
        shape("some/model")


SLOW_CASES = (
    Case("embedded", "sample", 40, 88, 512),
    Case("embedded", "update", 40, 88, 128, 1024),
    Case("embedded", "update", 40, 88, 128, 8192),
    Case("embedded", "update", 40, 88, 128, 8192, checkpointed=True),
)


def with_usual_libraries(case: Case) -> float:
    """The measured peak, as if only what the suite needs were installed: vLLM and lm-eval bring Triton and
    scikit-learn, which transformers then imports.
    """
    peaks = measured(case)
    return peaks["peak"] - peaks["libraries"] + LIBRARIES[False]


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_CASES, ids=lambda case: f"{case.phase}-{case.micro_tokens}-{case.checkpointed}")
def test_the_embedded_model_needs_what_is_predicted(case: Case) -> None:
    assert case.predicted_gib() > 1.03 * LIBRARIES[False]
    assert case.predicted_gib() == pytest.approx(with_usual_libraries(case), rel=0.15)


@pytest.mark.slow
@pytest.mark.external
def test_an_update_of_smollm2_needs_what_is_predicted() -> None:
    if model_folder("smollm2") is None:
        pytest.skip("SmolLM2 is not fetched: fspo model fetch smollm2")
    case = Case("smollm2", "update", 128, 128, 4, 256)
    assert case.predicted_gib() == pytest.approx(with_usual_libraries(case), rel=0.15)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.external
@pytest.mark.xdist_group("torchrun")
def test_two_processes_that_share_an_update_of_smollm2_need_what_is_predicted() -> None:
    if model_folder("smollm2") is None:
        pytest.skip("SmolLM2 is not fetched: fspo model fetch smollm2")
    case = Case("smollm2", "update", 128, 128, 8, 256, processes=2)
    assert case.predicted_gib() == pytest.approx(with_usual_libraries(case), rel=0.1)
