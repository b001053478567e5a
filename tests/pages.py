"""README.md and docs/*.md taken apart: their fences, the files and commands in them, their headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
"""The pages for users, by their path in the checkout."""
NEEDS = ("gpu", "hub", "vllm", "trl", "time", "data")
"""What a mark above a fence may name: a GPU, the hub or another network, vLLM, TRL, a long time, a data folder."""
_FENCE = re.compile(
    r"^(?:<!-- needs: (?P<needs>[^\n]*?) -->\n+)?```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """One fenced block: what it needs, its language, the file that it is (or none), its text."""

    needs: tuple[str, ...]
    language: str
    file: str | None
    body: str

    @property
    def commands(self) -> list[str]:
        """The commands of a console fence: lines behind a `$ `, with the lines that a backslash continues."""
        if self.language != "console":
            return []
        found: list[str] = []
        for line in self.body.splitlines():
            if found and found[-1].endswith("\\"):
                found[-1] += "\n" + line
            elif line.startswith("$ "):
                found.append(line[2:])
        return found


def text_of(page: str) -> str:
    """The page as it stands in the checkout."""
    return (ROOT / page).read_text(encoding="utf-8")


def fences(text: str) -> Iterator[Fence]:
    """The fenced blocks of a page, in order."""
    for found in _FENCE.finditer(text):
        language, _, file = found["info"].strip().partition(" ")
        needs = tuple(word.strip() for word in (found["needs"] or "").split(",") if word.strip())
        yield Fence(needs, language, file.strip() or None, found["body"])


def without_fences(text: str) -> str:
    """A page's prose: no fenced block."""
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """The code spans of a page's prose, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", without_fences(text))]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and most renderers make them."""
    found: set[str] = set()
    for heading in _HEADING.findall(without_fences(text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while (anchor := slug if number == 0 else f"{slug}-{number}") in found:
            number += 1
        found.add(anchor)
    return found


def links(text: str) -> list[str]:
    """The targets of all links and pictures of a page's prose."""
    return re.findall(r"\]\(([^)\s]+)\)", without_fences(text))
