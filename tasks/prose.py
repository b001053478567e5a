"""What prose ends with: its last number with all that it is a part of, or its last formula.

`2^10` is not 10, `1 / 3` not 3 and `5 million` not 5. Source: ours.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from tasks.labels import is_unsolved, without_rounding
from tasks.spelling import NUMERAL
from tasks.units import UNITS

_FORMULA = re.compile(
    r"\$\$(?P<display>[^$]+)\$\$|\\\[(?P<block>(?:(?!\\\[).)+?)\\\]|\\\((?P<inline>(?:(?!\\\().)+?)\\\)"
    r"|(?<![\\$])\$(?![\s$])(?P<dollars>(?:\\\$|[^$\n])*?)(?<!\\)\$(?![0-9$])"
    r"|(?<![\\$])\$ (?P<spaced>[^$\n]{1,300}) \$(?![0-9$])",
    re.DOTALL,
)
_PROSE_WORD = re.compile(r"(?<=\s)[A-Za-z]{2,}|(?<![\\A-Za-z])[A-Za-z]{2,}(?=\s)")
_NAMED = re.compile(r"\\[A-Za-z]+\s*\{[A-Za-z*,. ]*\}")
_FINAL = re.compile(r"\bfinal answers?\**(?: is|:| =)+:?\**", re.IGNORECASE)
_LABEL = re.compile(r"\b(?:final|correct|the|my|our) answers?\**(?: is|:| =)+:?\**", re.IGNORECASE)
_PERCENT = re.compile(r" ?(?:\\?%|per ?cent\b|percentage\b|pct\b)")

_NUMERAL = rf"[$€£]?{NUMERAL}(?:[eE][+-]?[0-9]+)?"
_BRACED = r"[ \t]*(?:\{[^{}\n]*(?:\{[^{}\n]*\}[^{}\n]*)*\}|[0-9])"
_COMMAND = rf"(?:{NUMERAL})?\\[dt]?(?:frac|sqrt|binom)(?:\[[^\]\n]*\])?{_BRACED}(?:{_BRACED})?|√[0-9]+"
_LETTER = r"(?<![A-Za-z])[xyznkπ](?![A-Za-z])"
_OPENED, _CLOSED = r"(?:[({][ \t]{0,2}){0,5}", r"(?:[ \t]{0,2}[)}]){0,5}"
_TERM = rf"{_OPENED}[+-]?(?:{_COMMAND}|{_NUMERAL}){_CLOSED}"
_TUPLE = rf"[(\[{{][ \t]*[+-]?(?:{_NUMERAL})(?:,[ \t]*[+-]?(?:{_NUMERAL}))+[ \t]*[)\]}}]"
_OPERATOR = (
    r"(?:[ \t]*(?:\*\*|[*/^×÷·]|\\times|\\cdot|\\div)[ \t]*|[ \t]+[+-][ \t]+|[+-](?=[0-9$({])|[:,](?=[0-9])"
    r"|!(?=[ \t]*[*/^+])[ \t]*[*/^+][ \t]*|[ \t]+or[ \t]+(?=[0-9$-])|[ \t](?=[0-9]+/[0-9])|(?<=[)}])(?=[({]))"
)
_SCALE = r"hundred|thousand|million|billion|trillion|dozen|squared|cubed|factorial|and a half|per ?cent|pct"
_AFTER = (
    r"[ \t]*\\?%|[A-Za-z]+[²³]?|!(?=[.,;])|[ \t]+(?:" + _SCALE + r"|sin|cos|tan|log|ln)\b"
    r"|(?:[ \t]*[*/^+×·-][ \t]*)?(?:[xyznkπ](?![A-Za-z])|√[0-9]*|\\(?:pi|sqrt|frac)(?![A-Za-z]))"
)
_UNIT = "(?:" + "|".join(sorted(UNITS, key=len, reverse=True)) + r")\b"
_AFTER_UNIT = re.compile(rf"[ \t]*{_UNIT}", re.IGNORECASE)
_COMPOUND = re.compile(rf"[0-9][ \t]*{_UNIT}(?:,?[ \t]+and)?\Z")
_BOUND = (
    r"at (?:least|most)|(?:more|less|fewer|greater|larger|smaller|higher|lower) than|over|under|above|below|between"
    r"|not(?: equal to)?|cannot be"
)
_PART = (
    r"(?:half|third|quarter|twice|double|multiples?|divisors?|factors?|root|square|cube|power|none|one|some|any|all|out)"
    r" of(?: the)?|twice|half|double|(?:log|ln|sin|cos|tan|sqrt)(?:_\{?[0-9a-z]+\}?)?"
)
_INDEX = "base|step|problem|question|equation"
_RELATION = r"(?:[\s|)}$0-9]|(?<![A-Za-z</])[A-Za-z])[<>]=?|[≤≥≠]|(?<=\s)!=|\\(?:leq?|geq?|neq?|lt|gt)"
_ANOTHER = (
    r"[0-9)}$](?:\\?%)?(?:,|,?[ \t]+(?:to|in|and|of(?: the)?|out of|times|plus|minus|mod|over|by|per|choose"
    r"|(?:divided|multiplied) by))"
)
_LIMITED = re.compile(
    rf"(?:\b(?:{_BOUND}|{_PART}|{_INDEX})|n't(?: be)?|\\(?:log|ln|sin|cos|tan)|{_RELATION}|{_ANOTHER})[ \t]*\(?\Z"
)
_SIDES = re.compile(r"(?:(?<![A-Za-z])[A-Za-z](?![A-Za-z])|[0-9 ^*/+()._=²³-])+=[ \t]*\Z")
_EQUALS = re.compile(r"(?<![<>])(?<!\s!)=")  # 2!=2 is an equation
_STEP = re.compile(
    r"\\\\|[,;&]|\\(?:implies|Rightarrow|Longrightarrow|iff|to|rightarrow|q?quad|therefore)(?![A-Za-z])|[⇒→∴]"
)
LONGEST_LIMIT, LONGEST_SIDE = 24, 60
"""Characters before a number that are looked at for what limits it, and for the other side of its equation."""
_WRITTEN = re.compile(
    rf"(?:{_LETTER}[ \t]*[-+*/^][ \t]*|\b(?:minus|negative)[ \t]+)?(?<![A-Za-z0-9)^_{{\\.])(?<![A-Za-z]\()"
    rf"(?:{_TUPLE}|{_TERM}(?:{_OPERATOR}{_TERM})*(?P<after>{_AFTER})?)",
    re.IGNORECASE,
)


def last_number(text: str) -> str | None:
    """The last number of a text with all that it is a part of: an expression, a scale such as `million`, a formula.

    Where the text says `final answer:` or `final answer is`, it is the last number of that sentence. Of a formula with
    an equals sign it is what stands behind the last one, as in prose.

    >>> [last_number(text) for text in ("4 and then 2^10.", "so $x = \\\\frac{1}{2}$.", "5 million", "3 + 4 = 7")]
    ['2^10', '\\\\frac{1}{2}', '5 million', '7']
    """
    text = text.replace("−", "-")
    labelled = _line_after(_FINAL, text)
    return (_number_in(labelled.split(". ")[0]) if labelled else None) or _number_in(text)


def _number_in(text: str) -> str | None:
    formulas = [found for found in _formulas(text) if any(c.isdigit() for c in found[0])]
    prose, place = [], 0
    for found in formulas:
        prose += [text[place : found.start()], " " * len(found[0])]
        place = found.end()
    last = _last(_WRITTEN.finditer("".join([*prose, text[place:]])))
    if formulas and (last is None or formulas[-1].start() > last.start()):
        percent = _PERCENT.match(text, formulas[-1].end())
        inside = without_rounding(_inside(formulas[-1]))
        limit = "" if "=" in inside else _limit(text, formulas[-1])
        return limit + _stated(inside) + (percent[0] if percent else "")
    if last is None:
        return None
    after = last["after"] or ""
    found = f"{last[0].removesuffix(after)} {after}" if after[-1:] in ("²", "³") else last[0].strip()
    return _limit(text, last) + found


def _limit(text: str, number: re.Match[str]) -> str:
    """What stands before a number that makes it a bound, a part, an index or the side of an unsolved equation."""
    before = text[max(0, number.start() - LONGEST_LIMIT) : number.start()].rstrip(" \t").lower()
    if before.endswith("="):
        sides = _SIDES.search(text, max(0, number.start() - LONGEST_SIDE), number.start())
        return sides[0].lstrip() if sides and sides[0].count("=") == 1 and is_unsolved(sides[0]) else ""
    limit = _LIMITED.search(before) or (_COMPOUND.search(before) if _AFTER_UNIT.match(text, number.end()) else None)
    return f"{limit[0]} " if limit else ""


def _stated(formula: str) -> str:
    """The last side of a formula; its last equation where that is still to be solved, which 2x = 2 * 3 = 6 is not."""
    *sides, value = _EQUALS.split(formula)
    side = _STEP.split("=".join(sides))[-1]
    return f"{side}={value}" if "=" not in side and is_unsolved(side) else value.strip()


def last_formula(text: str) -> str | None:
    """The first formula after the last `answer is` of a text, or the line there; else the text's last formula."""
    labelled = _line_after(_LABEL, text)
    if labelled:
        inside = next(_formulas(labelled), None)
        return _inside(inside) if inside else labelled
    found = _last(_formulas(text))
    return _inside(found) if found else None


def after_label(text: str) -> str | None:
    """What a text that says `final answer` says that it is; None where it says nothing of the kind."""
    return last_formula(text) if _FINAL.search(text) else None


def _line_after(label: re.Pattern[str], text: str) -> str | None:
    """The first line with anything in it behind the last label."""
    found = _last(label.finditer(text))
    return next((line.strip() for line in text[found.end() :].split("\n") if line.strip()), None) if found else None


def _formulas(text: str) -> Iterator[re.Match[str]]:
    """The formulas of a text; two amounts of money on one line are none."""
    place = 0
    while found := _FORMULA.search(text, place):
        spaced = found["spaced"] or ""
        money = _PROSE_WORD.search(_NAMED.sub("", found["dollars"] or spaced)) is not None
        money = money or ("\\" not in spaced and any(c.isalpha() or c in ",.;" for c in spaced))
        place = found.start() + 1 if money else found.end()
        if not money:
            yield found


def _last(found: Iterator[re.Match[str]]) -> re.Match[str] | None:
    kept = deque(found, maxlen=1)
    return kept[0] if kept else None


def _inside(formula: re.Match[str]) -> str:
    return next(part for part in formula.groups() if part is not None).strip()
