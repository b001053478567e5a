"""What may stand around a value: math-mode signs, labels, full stops, and the name that an equation gives it to.

Source: ours.
"""

from __future__ import annotations

import re

from tasks.units import is_word

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
_COLON = re.compile(rf"(?:the )?(?:{_LABELS}): ?(?![0-9]+:)", re.IGNORECASE)
_EXACTLY = re.compile(r"(?:exactly|approximately|approx|about|roughly|around)(?![A-Za-z])\.? ?", re.IGNORECASE)
_TEXT_FIRST = re.compile(r"\\text[a-z]* ?\{([^{}]*)\} ?(?=.)")
_NEARLY = re.compile(r" ?\\approx(?![A-Za-z])")
FUNCTIONS = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infty|max|min|gcd|lcm)\b")
_UNKNOWN = re.compile(rf"(?<![A-Za-z\\'’])[a-z](?![A-Za-z(]){SUBSCRIPT}")
_SOLVED_FOR = frozenset("xyznk")
"""Letters that stand for what is to be found; others may be units, or articles."""
_TIMES = re.compile(r"(?<![A-Za-z\\])[xX] ?(?=[$0-9.(])")
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
        text = text.removesuffix(".").strip("*`")
        text = re.sub(r"^(?:=|\\approx(?![A-Za-z])|\\implies(?![A-Za-z]))", "", text)
        if not text[:1].isdigit():
            text = _without_label(text)
            if (found := _TEXT_FIRST.match(text)) and not _without_label(found[1].strip() + " "):
                text = text[found.end() :]
        text = re.sub(r"[,;]$|\\\\$", "", text)
    return text


def _without_label(text: str) -> str:
    """Without `the answer is`, `Total:` or `approximately` in front: 5 is what is answered, as in `\\approx 5`."""
    for label in (_LABEL, _COLON, _EXACTLY):
        text = text.removeprefix(found[0]) if (found := label.match(text)) else text
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
    if len(text) > 1 and text.isalpha() and text.islower():
        return is_word(text)  # xx is a product
    return len(words) < 2 or "\\" in text or "(" in text or any(len(word) > 2 for word in words)


def is_unsolved(side: str) -> bool:
    """Whether an equation with this side is one in one unknown, still to be solved; `m + n = 5` states a value.

    >>> [is_unsolved(side) for side in ("2x", "x^2", "x", "x_1", "m+n", "3 x 5", r"\\text{cost} + 2")]
    [True, True, False, False, False, False, False]
    """
    if _SOLVED_FOR.isdisjoint(side):
        return False
    plain = _TIMES.sub("*", re.sub(r"\\text[a-z]* ?\{[^{}]*\}|\\times", "*", side))
    unknowns = set(_UNKNOWN.findall(re.sub(r"\\(?!sqrt|log|ln|sin|cos|tan)[A-Za-z]+", " ", plain)))
    rest = _UNKNOWN.sub("", plain)
    one = len(unknowns) == 1 and unknowns.pop()[0] in _SOLVED_FOR
    return one and bool(re.search(r"[0-9+*/^²³-]|\\frac", rest) or FUNCTIONS.search(rest))
