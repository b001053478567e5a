"""README.md and docs/ hold what they say: commands run, links lead somewhere, names and numbers are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from faults.outcomes import forked
from pages import NEEDS, PAGES, ROOT, Fence, anchors, fences, links, spans, text_of, without_fences
from strategies import METHODS
from suite.commands.families import ENTRIES, Command
from suite.commands.main import ALLOW, function_of, main
from suite.experiments.recipe_book import RECIPES
from suite.experiments.recipes import Changes
from suite.experiments.settings import with_options
from suite.planning.plan_text import planned
from tasks import TASKS
from tasks.own_problems import is_own

PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")
"""A word that stands for something of the reader's: RECIPE, FOLDER, METHOD."""
WITH_RECIPE = {"compare", "train", "export", "plan", "recipes", "bank record"}
WRITTEN = [page for page in PAGES if page not in ("docs/commands.md", "docs/data-cards.md")]
"""The pages that people write; the others are made from commands (and say how they were spelled before) and sets."""
RUNNABLE = [page for page in WRITTEN if any(f.commands and not f.needs for f in fences(text_of(page)))]
PLANS = re.findall(
    r"^\| (\S+) \| (\d+) x (\S+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|",
    text_of("docs/reproduce-the-paper.md"),
    re.MULTILINE,
)


# --- what a page says runs --------------------------------------------------------------------------


def environment(folder: Path) -> dict[str, str]:
    """The environment of a reader without a network: `fspo` and this Python first, caches in the folder."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    start = programs / "fspo"
    text = "from suite.commands.main import main\n\nif __name__ == '__main__':\n    main()\n"
    start.write_text(f"#!{sys.executable}\n{text}")
    start.chmod(0o755)
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return (
        os.environ
        | nowhere
        | {
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "COLUMNS": "120",
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE)
def test_every_unmarked_command_of_a_page_runs(page: str, tmp_path: Path) -> None:
    reader, place = environment(tmp_path / "reader"), tmp_path / "place"
    place.mkdir()
    found = list(fences(text_of(page)))
    for fence in found:
        if fence.file:
            (place / fence.file).write_text(fence.body, encoding="utf-8")
    for command in [command for fence in found if not fence.needs for command in fence.commands]:
        code, said = ran(command, place, reader)
        assert code == 0, f"{page}: {command}\n{said[-4000:]}"


def ran(command: str, place: Path, reader: dict[str, str]) -> tuple[int | None, str]:
    """Exit code and output of a reader's command: one of ours in a forked process, any other one in a shell."""
    if command.startswith("fspo ") and not re.search(r"[|>$`;]", command):

        def run() -> None:
            os.environ.update(reader)
            sys.argv = shlex.split(command.replace("\\\n", " "), comments=True)
            main()

        ended = forked(run, place, patience=300)
        return ended.code, ended.said
    shell = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=place, env=reader, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_marks_name_what_is_known_and_stand_above_commands(page: str) -> None:
    text = text_of(page)
    assert text.count("<!-- needs:") == sum(bool(fence.needs) for fence in fences(text)), "a mark without its fence"
    for fence in fences(text):
        assert set(fence.needs) <= set(NEEDS), fence.needs
        assert fence.language != "console" or fence.commands, f"a console fence without a command: {fence.body}"


# --- names ------------------------------------------------------------------------------------------


def commands_of(text: str) -> list[str]:
    """Every fspo command of a page, those of the prose included, torchrun's as the command that it runs."""
    written = [command for fence in fences(text) for command in fence.commands]
    said = [span for span in spans(text) if span.startswith(("fspo ", "torchrun "))]
    found = []
    for command in [*written, *said]:
        command = re.sub(r"^torchrun .*-m suite\.commands\.main ", "fspo ", command.replace("\\\n", " "))
        if command.startswith("fspo "):
            found.append(command)
    return found


def parsed(command: str) -> tuple[str, Command | None, list[str]]:
    """(name, command, words behind it) of an fspo command; no Command for `--help`, `--version` or a bare family."""
    words = shlex.split(re.split(r" [>|] ", command)[0], comments=True)[1:]
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version"), command
        return "", None, []
    assert words[0] in ENTRIES or PLACEHOLDER.fullmatch(words[0]), f"no such command: {command}"
    entry = ENTRIES.get(words[0])
    if isinstance(entry, Command) or entry is None or len(words) == 1:
        return words[0], entry if isinstance(entry, Command) else None, words[1:]
    assert words[1] in entry.members, f"no such command: {command}"
    return " ".join(words[:2]), entry.members[words[1]], words[2:]


def options_of(words: list[str]) -> dict[str, list[str]]:
    """Each `--option` with the words that follow it; the words before the first one under ""."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found[name] = [value] if value else []
        else:
            found[name].append(word)
    return found


def unknown_names(text: str, command: str) -> list[str]:
    """The methods, tasks, recipes and settings of a command that the suite does not have, nor the page's own files."""
    name, _, words = parsed(command)
    given = options_of(words)
    own = {Path(fence.file).stem for fence in fences(text) if fence.file} | set(
        re.findall(r"fspo method new (\w+)", text)
    )
    listed = [
        item for option in ("--methods", "--method", "--pair") for item in ",".join(given.get(option, [])).split(",")
    ]
    listed += given[""] if name in ("method card", "method check") else []
    settings = [word for word in given.get("--set", []) if not PLACEHOLDER.fullmatch(word.split(".")[0])]
    missing = [
        method
        for method in filter(None, listed)
        if method not in (*METHODS, "none", "base")
        and method.partition(":")[0] not in own
        and not PLACEHOLDER.fullmatch(method.partition(":")[2] or method)
    ]
    tasks = [*given.get("--tasks", []), *given.get("--task", [])]
    tasks += [word.partition("=")[2] for word in settings if word.split("=")[0].endswith(".tasks")]
    missing += [task for task in ",".join(tasks).split(",") if task and not is_own(task) and task not in TASKS]
    if name in WITH_RECIPE and "--rates" not in given:
        recipes = [word for word in given[""][:1] if not PLACEHOLDER.fullmatch(word)]
        missing += [r for r in recipes if r not in RECIPES and Path(r.partition(":")[0]).stem not in (*own, "recipe")]
    try:
        suites = [word for word in settings if word.partition(":")[0].split(".")[0] not in own]
        uses_vllm = ["train.sampler=vllm"] if any(word.startswith("train.vllm.") for word in suites) else []
        with_options(RECIPES["demo"](), [word for word in (*uses_vllm, *suites) if "FIELD" not in word])
    except Exception as error:
        missing.append(str(error))
    return missing


@pytest.mark.parametrize("page", WRITTEN)
def test_every_name_in_a_command_is_known(page: str) -> None:
    text = text_of(page)
    assert {command: names for command in commands_of(text) if (names := unknown_names(text, command))} == {}


def test_an_unknown_name_is_noticed() -> None:
    wrong = {
        "fspo compare dmeo": "dmeo",
        "fspo compare demo --methods fspo,gspoo": "gspoo",
        "fspo compare demo --set train.tasks=gcd,gsm": "gsm",
        "fspo method card fsp": "fsp",
        "fspo train demo --method fspo --set fspo.c_lo=1": "c_lo",
    }
    for command, name in wrong.items():
        assert any(name in missing for missing in unknown_names("", command)), command
    for command in ("fspo comprae demo", "fspo method lst"):
        with pytest.raises(AssertionError, match="no such command"):
            parsed(command)


@pytest.mark.parametrize("page", WRITTEN)
def test_every_option_in_a_command_is_known(page: str) -> None:
    helped: dict[str, str] = {}
    for command in commands_of(text_of(page)):
        name, found, words = parsed(command)
        if found is None:
            continue
        if name not in helped:
            helped[name] = tyro.extras.get_parser(function_of(found)).format_help()
        for option in options_of(words):
            assert option in ("", "--help", ALLOW) or re.search(rf"{option}\b", helped[name]), f"{option} in: {command}"


# --- links ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md"])
def test_every_link_and_anchor_is_there(page: str) -> None:
    for target in links(text_of(page)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {target}"


def test_the_readme_leads_to_every_page_and_names_every_room() -> None:
    readme = text_of("README.md")
    assert set(PAGES) - {"README.md"} <= set(links(readme))
    rooms = {path.parent.name for path in (ROOT / "suite").glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/ ", readme, re.MULTILINE)) == rooms


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").split()) <= 1000


# --- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", WRITTEN)
def test_every_number_with_an_interval_is_a_committed_one(page: str) -> None:
    committed = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "results").glob("**/*.md"))
    prose = " ".join(without_fences(text_of(page)).split())
    for number in re.findall(r"[+-]?\d+\.\d+ \[[+-]?\d+\.\d+, [+-]?\d+\.\d+\]", prose):
        assert number in committed, number


@pytest.mark.parametrize("row", PLANS, ids=lambda row: f"{row[0]}-{row[1]}x{row[2]}")
def test_the_planned_hours_are_todays(row: tuple[str, ...]) -> None:
    recipe, count, device, cells, memory, hours = row
    said = [line for _, _, lines in planned(recipe, Changes(), device, int(count), None) for line in lines]
    assert any(line.startswith(f"All {cells} cells take {hours} hours") for line in said), said
    assert any(f" needs {memory} GiB on " in line for line in said), said


def test_a_page_is_taken_apart() -> None:
    block = "<!-- needs: gpu, time -->\n```console\n$ one \\\n    two\nsaid\n$ three\n```\n"
    text = f"# A b, c\n\n{block}\n```toml x.toml\na=1\n```\n## A b, c\n"
    assert list(fences(text)) == [
        Fence(("gpu", "time"), "console", None, "$ one \\\n    two\nsaid\n$ three\n"),
        Fence((), "toml", "x.toml", "a=1\n"),
    ]
    assert next(fences(text)).commands == ["one \\\n    two", "three"]
    assert anchors(text) == {"a-b-c", "a-b-c-1"}
