"""`fspo --help` and the names of commands: no torch, the nearest name suggested, old spellings work."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import tyro

from suite.commands import main
from suite.commands.families import ENTRIES, GROUPS, OLD, Command, Family
from suite.experiments.known import names_of_methods, refuse_unknown_methods
from suite.experiments.names import known_methods
from suite.types import UserError

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    name: command
    for family, entry in ENTRIES.items()
    for name, command in (
        [(f"{family} {member}", one) for member, one in entry.members.items()]
        if isinstance(entry, Family)
        else [(family, entry)]
    )
}


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `fspo WORDS`."""
    monkeypatch.setattr(sys, "argv", ["fspo", *words])
    try:
        main.main()
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["--version"], ["bank", "--help"], ["bank"], ["comapre"], ["bank", "x"]]
)
def test_what_needs_no_command_loads_no_torch(words: list[str]) -> None:
    program = (
        "import sys; from suite.commands.main import main\n"
        f"sys.argv = ['fspo', *{words!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'tyro', 'rich', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    "words",
    [["compare", "smoke", "--methods", "grpo,fpso"], ["train", "smoke", "--method=fpso"], ["status", "no-such-folder"]],
)
def test_a_typo_is_refused_without_torch(words: list[str]) -> None:
    program = (
        "import sys; from suite.commands.main import main\n"
        f"sys.argv = ['fspo', *{words!r}]\n"
        "try: main()\nexcept SystemExit as stopped: assert stopped.code == 2\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ("did you mean fspo?" if "status" not in words else "no such folder") in done.stderr


def test_the_names_of_methods_are_known_without_loading_them() -> None:
    assert names_of_methods() == list(known_methods())
    refuse_unknown_methods(["smoke", "--methods", "fspo, grpo,mine:LOSS", "--set", "fpso.c_low=1"])
    for words in ([], ["--methods"], ["--methods="], ["--methods", "grpo, fspo"], ["--method=grpo"]):
        refuse_unknown_methods(words)
    with pytest.raises(UserError, match="did you mean grpo"):
        refuse_unknown_methods(["--method", "fspo,grpoo"])


def test_the_help_has_every_entry_once_and_few_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, _ = said(monkeypatch, capsys, "--help")
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]
    assert (code, shown) == (0, list(ENTRIES))
    assert len(ENTRIES) <= 15
    assert set(GROUPS) <= set(text.splitlines())
    assert said(monkeypatch, capsys)[1] == text
    assert max(map(len, text.splitlines())) <= 100
    for family, entry in ENTRIES.items():
        if isinstance(entry, Family):
            listed = said(monkeypatch, capsys, family)[1]
            assert all(member in listed and command.does in listed for member, command in entry.members.items())


def test_the_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, line, _ = said(monkeypatch, capsys, "--version")
    number, _, commit = line.removeprefix("fspo ").strip().partition(", commit ")
    assert (code, number) == (0, version("fspo-suite"))
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    in_checkout = (ROOT / ".git").exists() and asked.returncode == 0
    assert commit.removesuffix("+changes") == (asked.stdout[:12] if in_checkout else "")


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["comapre", "demo"], "did you mean: fspo compare?"),
        (["bnak"], "did you mean: fspo bank?"),
        (["bank", "recrod"], "did you mean: fspo bank record?"),
        (["method", "lits"], "did you mean: fspo method list?"),
        (["card", "fspo"], "did you mean: fspo method card?"),
        (["calibarte"], "did you mean: fspo bank calibrate?"),
        (["zzz"], "unknown command 'zzz'; fspo --help lists them"),
        (["model", "zzz"], "there are: model fetch, model build-embedded"),
    ],
)
def test_an_unknown_command_is_one_line_with_the_nearest(
    words: list[str], nearest: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, line = said(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert line.startswith("fspo: error: unknown command")
    assert line.count("\n") == 1
    assert nearest in line


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("sweep F --rates 1e-4", "compare F --rates 1e-4"),
        ("claims F", "report F --claims"),
        ("methods", "method list"),
        ("methods gspo", "method card gspo"),
        ("methods --help", "method list --help"),
        ("check", "method check"),
        ("check --method a:B", "method check a:B"),
        ("check --method=a:B", "method check a:B"),
        ("new-method mine --folder x", "method new mine --folder x"),
        ("regress --pin", "method regress --pin"),
        ("record smoke --out B", "bank record smoke --out B"),
        ("replay B", "bank replay B"),
        ("lab B --no-model", "bank lab B --no-model"),
        ("calibrate B", "bank calibrate B"),
        ("theory --out t", "bank theory --out t"),
        ("export-verl demo", "export demo"),
        ("fetch smollm2", "model fetch smollm2"),
        ("build-base --seed 1", "model build-embedded --seed 1"),
    ],
)
def test_an_old_spelling_does_the_same_and_says_the_new_one(
    before: str, now: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(main, "run", lambda names, command, rest: ran.append([*names, *rest]))
    code, _, line = said(monkeypatch, capsys, *before.split())
    assert (code, ran) == (0, [now.split()])
    assert line == f"fspo: {before.split()[0]!r} is now: fspo {now}\n"


def test_bash_completes_commands_families_and_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, script, _ = said(monkeypatch, capsys, "--completion", "bash")
    assert code == 0
    (tmp_path / "fspo.bash").write_text(script, encoding="utf-8")
    asked = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
        'spec=$(complete -p fspo); function=${spec#*-F }; "${function%% *}"; echo "${COMPREPLY[@]}"'
    )

    def offered(*words: str) -> set[str]:
        command = ["bash", "-c", asked, str(tmp_path / "fspo.bash"), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert offered("fspo", "comp") == {"compare"}
    family = ENTRIES["bank"]
    assert isinstance(family, Family)
    assert {word for word in offered("fspo", "bank", "") if word[0] != "-"} == set(family.members)
    assert offered("fspo", "compare", "--dr") == {"--dry-run"}


@pytest.mark.parametrize("words", [["--completion"], ["--completion", "fish"], ["--completion", "bash", "zsh"]])
def test_completion_is_for_one_known_shell(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, line = said(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert line == "fspo: error: --completion takes one shell; there are: bash, zsh, tcsh\n"


def test_every_old_spelling_is_tried_above_and_none_is_a_command_of_today() -> None:
    marks = test_an_old_spelling_does_the_same_and_says_the_new_one.pytestmark
    tried = {before.split()[0] for mark in marks for before, _ in mark.args[1]}
    assert tried == set(OLD)
    assert not set(OLD) & set(ENTRIES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_function_with_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command: Command = COMMANDS[name]
    assert main.function_of(command).__doc__
    code, text, _ = said(monkeypatch, capsys, *name.split(), "--help")
    assert code == 0
    assert text.startswith(f"usage: fspo {name} ")


def test_the_page_of_commands_is_made_from_the_commands() -> None:
    import tyro

    from suite.commands.reference import reference

    pins = dict(line.split("==") for line in (ROOT / "constraints-cpu.txt").read_text().split() if "==" in line)
    if tyro.__version__ != pins["tyro"]:
        pytest.skip(f"tyro {tyro.__version__} lays out help in its own way; the page was made with {pins['tyro']}")
    assert (ROOT / "docs/commands.md").read_text(encoding="utf-8") == reference()


def test_a_file_of_the_users_named_like_a_package_of_ours_does_no_harm(tmp_path: Path) -> None:
    """With -m, Python puts the current folder first: a `tasks.py` there is not the suite's package `tasks`."""
    (tmp_path / "tasks.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "my_loss.py").write_text("from baselines import METHODS\n\nMINE = METHODS['rloo']\n")
    for words in (["train", "smoke", "--method", "fspo", "--dry-run"], ["method", "check", "my_loss:MINE"]):
        done = subprocess.run(
            [sys.executable, "-m", "suite.commands.main", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_switch_is_one_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(main.typed(COMMANDS[name]), prog="fspo", args=["--help"])
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert not options & {f"--no-{option[2:]}" for option in options}
