"""`fspo model push` against a small stand-in for the hub: the very files arrive, and nothing else."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from small_world import tiny
from suite.commands import main
from suite.policy.model_folders import CARD, SUMS, save_model
from suite.records.files import file_sha256

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """What the stand-in was told: repositories, tokens, files; `answer` is its status for a new repository."""

    address: str = ""
    answer: int = 200
    repositories: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)

    def reply(self, path: str, body: bytes) -> Any:
        """The answer to a POST, as plain data."""
        if path.endswith("/api/repos/create"):
            self.repositories.append(json.loads(body))
            return {"url": f"{self.address}/mine/model"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"commitUrl": f"{self.address}/mine/model/commit/0", "commitOid": "0" * 40, "success": True}
        return {}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in at which this process looks for the hub, with a token."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.tokens.add(self.headers.get("Authorization"))
            status = state.answer if self.path.endswith("/create") else 200
            self.send(status, state.reply(self.path, body) if status == 200 else {"error": "not for you"})

        def do_GET(self) -> None:
            self.send(404, {"error": f"the stand-in has no {self.path}"})

        def send(self, status: int, content: Any) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", state.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model with a card, and a file that is none of it."""
    place = tmp_path / "model"
    save_model(*tiny(), place)
    (place / CARD).write_text(f"# A card\n\n{file_sha256(place / SUMS)}\n")
    (place / "notes.txt").write_text("private")
    return place


def pushed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Exit code and output of `fspo model push FOLDER`."""
    monkeypatch.setattr(sys, "argv", ["fspo", "model", "push", str(folder), *(words or ("--to", "mine/model"))])
    try:
        main.main()
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    return code, said.out + said.err


def test_the_files_of_the_list_and_the_card_arrive(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = pushed(folder, monkeypatch, capsys, "--to", "mine/model", "--private")
    assert code == 0, said
    assert "/mine/model" in said
    expected = {path.name for path in folder.iterdir()} - {"notes.txt"}
    assert {SUMS, CARD, "model.safetensors", "tokenizer.json"} <= expected
    assert hub.files == {name: (folder / name).read_bytes() for name in expected}
    (made,) = hub.repositories
    assert (made["name"], made["organization"]) == ("model", "mine")
    assert made.get("private") is True or made.get("visibility") == "private"
    assert hub.tokens == {f"Bearer {TOKEN}"}


def no_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "no-token"))


SPOILED = {
    "no token": (no_token, "no token for the hub: set HF_TOKEN"),
    "no card": (lambda folder, _: (folder / CARD).unlink(), "no card (README.md) in it"),
    "another's card": (lambda folder, _: (folder / CARD).write_text("# Of another model"), "not the card of these"),
    "altered weights": (
        lambda folder, _: (folder / "model.safetensors").write_bytes(b"x"),
        "altered since it was saved",
    ),
    "no list of digests": (lambda folder, _: (folder / SUMS).unlink(), "no fspo.sha256 in it"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_not_sound_is_refused_in_one_line_before_anything_is_sent(
    case: str, folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = SPOILED[case]
    spoil(folder, monkeypatch)
    code, said = pushed(folder, monkeypatch, capsys)
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith("fspo: error: ")
    assert expected in said
    assert (hub.repositories, hub.files, hub.tokens) == ([], {}, set())


@pytest.mark.parametrize("name", ["mine", "mine/a/b", "", "--x/y"])
def test_a_name_that_is_no_hub_id_is_refused(
    name: str, folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = pushed(folder, monkeypatch, capsys, f"--to={name}")
    assert code == 2, said
    assert "write it as OWNER/NAME" in said
    assert not hub.repositories


def test_what_the_hub_refuses_is_one_line(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.answer = 403
    code, said = pushed(folder, monkeypatch, capsys)
    assert (code, said.count("\n")) == (2, 1), said
    assert "not pushed to mine/model" in said
    assert not hub.files
