"""What may stand around a value: math-mode signs, labels, full stops, and the name that an equation gives it to.

Source: ours.
"""

from __future__ import annotations

import re

LETTERS = r"(?:[A-Za-z]|\\[A-Za-z]+)"
SUBSCRIPT = r"(?:_ ?(?:\{[^{}=]*\}|[A-Za-z0-9]))?'*"
_ARGUMENT = r"(?: ?\([A-Za-z0-9, ]{1,9}\))?"
_ONE_NAME = (
    rf"{LETTERS}{SUBSCRIPT}(?: ?: ?{LETTERS}{SUBSCRIPT})?{_ARGUMENT}"
    rf"|(?:m ?)?\\angle ?[A-Z]+|\\overline ?\{{[A-Z]{{1,3}}\}}|\|[A-Z]{{1,2}}\|"
    r"|\\text ?\{[^{}]*\}|[A-Za-z][A-Za-z ]+"
)
_NAME = re.compile(rf"{_ONE_NAME}|\((?:{LETTERS}{SUBSCRIPT})(?: ?, ?{LETTERS}{SUBSCRIPT})+\)")
_LABEL = re.compile(
    r"(?:so,? |thus,? |hence,? |therefore,? )?(?:the |our |my )?(?:final |correct )?(?:answer|result|solution)s?"
    r" ?(?::? ?is|are|:|=)+:? ?(?!=)",
    re.IGNORECASE,
)
_LABELS = (
    "(?:final |correct |total )?(?:answer|ans|result|solution|total|sum|final|value|area|volume|distance|length"
    "|perimeter|probability|cost|price|profit|time|speed|age|number of [a-z ]{1,30})"
)
_COLON = re.compile(rf"(?:\\text ?\{{ ?)?(?:the )?(?:{_LABELS}): ?(?:\}} ?(?=.)|(?=[^ }}]))(?![0-9]+:)", re.IGNORECASE)
_NEARLY = re.compile(r" ?\\approx(?![A-Za-z])")
FUNCTIONS = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infty|max|min|gcd|lcm)\b")
_NOT_A_NAME = re.compile(
    r"\b(?:not|twice|half|double|triple|minus|squared|cubed|times|of x|true|false)\b", re.IGNORECASE
)


def bare(text: str) -> str:
    """Without math-mode signs, a label before it and a full stop after it."""
    before = None
    while before != text:
        before, text = text, text.strip()
        if text.count("$") % 2 == 0:
            text = text.replace("$", "")
        elif not re.match(r"\$ ?[0-9.]", text):  # which is money
            text = text.strip("$")
        text = text.strip()
        for left, right in ((r"\(", r"\)"), (r"\[", r"\]")):
            if text.startswith(left) and text.endswith(right):
                text = text[2:-2].strip()
        text = text.removesuffix(".").strip("*")
        text = re.sub(r"^(?:=|\\approx(?![A-Za-z])|\\implies(?![A-Za-z]))", "", text)
        text = text.removeprefix(found[0]) if (found := _LABEL.match(text)) else text
        text = text.removeprefix(found[0]) if (found := _COLON.match(text)) else text
        text = re.sub(r"[,;]$|\\\\$", "", text)
    return text


def without_rounding(text: str) -> str:
    """What stands before an approximation sign; what stands behind it where there is but a name before."""
    first, *rest = (part.strip() for part in _NEARLY.split(text))
    return (rest[0] or first) if rest and (not first or _NAME.fullmatch(first)) else first


def is_name(text: str) -> bool:
    """Whether a text may be what a value is given to: a letter, a point pair, words that say nothing of the value."""
    if not _NAME.fullmatch(text) or FUNCTIONS.search(text.replace("\\", " ")) or _NOT_A_NAME.search(text):
        return False
    words = text.split()
    return len(words) < 2 or "\\" in text or "(" in text or any(len(word) > 2 for word in words)
