"""One spelling for what answers write in many: Unicode mathematics, spaces, LaTeX synonyms and size commands.

Nothing here changes a value, and nothing here joins two numbers: a LaTeX space is a space. Source: ours.
"""

from __future__ import annotations

import re
import unicodedata

GROUPED = r"(?:[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?![0-9])|[0-9]+)"
"""A whole number, maybe with its thousands parted by commas or by spaces."""
NUMERAL = rf"(?:{GROUPED}(?:\.[0-9]+)?|\.[0-9]+)"
"""A number as digits, without its sign: the pattern that readers, prose and comparison share."""

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_DASHES = re.compile("[\u2010-\u2015\u2212\ufe63]")
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_SIGNS = {
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∗": "*",
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "∞": r"\infty ",
    "π": r"\pi ",
    "θ": r"\theta ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "±": r"\pm ",
    "∅": r"\emptyset ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "ℝ": r"\mathbb{R}",
    "°": r"^{\circ}",
    "º": r"^{\circ}",
    "′": "'",
    "’": "'",
    "，": ",",
    "。": ".",
}
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+(?:\.[0-9]+)?|[A-Za-z]))")
_SPACING = re.compile(r"\\\\|,?\\! ?|\\[,;:> ]|\\(?:q?quad|thinspace|enspace)(?![A-Za-z])|~| ?\{ ?, ?\}|\\[$%#&]")
_SYNONYMS = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"\\(?:left|right)(?![A-Za-z])\s?\.?|\\(?:[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![A-Za-z])\s?", ""),
        (r"\\(?:boldsymbol|mathbf|mathsf|bold|bm|underline|bf|rm|large|Large|huge)\s*\{([^{}]*)\}", r"\1"),
        (r"\\textcolor\s*\{[^{}]*\}\s*\{([^{}]*)\}", r"\1"),
        (
            r"\\(?:color|hspace\*?)\s*\{[^{}]*\}|\\(?:bf|rm|large|Large|LARGE|huge|Huge|small|checkmark)(?![A-Za-z])\s?",
            "",
        ),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:varnothing|O)(?![A-Za-z])", r"\\emptyset"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:leq|leqslant)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=|=/=", r"\\ne "),
        (r":=|==+", "="),
        (r"\\bigcup(?![A-Za-z])", r"\\cup"),
        (r"\\(?:ast|star)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
        (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
        (r"\\(?:mathrm|operatorname|mathit)\s*\{([A-Za-z])\}|\\text\s*\{\s*([ei])\s*\}", r"\1\2"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])", r"\\degree "),
        (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9A-Za-z])\s*(\{)", r"\\frac{\1}\2"),
        (r"\\frac\s*(\{[^{}]*\})\s*([0-9A-Za-z])", r"\\frac\1{\2}"),
        (r"\\frac\s*([0-9])\s*([A-Za-z])(?![A-Za-z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\\[A-Za-z]+)\s*([0-9])", r"\\frac{\1}{\2}"),
        (r"\\frac (?:([A-Za-z]) ?([A-Za-z0-9])(?![A-Za-z]))", r"\\frac{\1}{\2}"),
        (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"(?<=[0-9]) ?x ?(?=10 ?\^)", r" \\times "),
    )
)


def one_spelling(text: str) -> str:
    """The text with every synonym in its one spelling, and single spaces.

    >>> [one_spelling(text) for text in ("x² ≤ √2", "\\\\dfrac12", "10\\\\,080", "٤٢", "11,\\\\! 111")]
    ['x^{2} \\\\le \\\\sqrt{2}', '\\\\frac{1}{2}', '10 080', '42', '11,111']
    """
    if not text.isascii():
        text = _in_ascii(text)
    text = _SPACING.sub(_space, text)
    if "\\" in text or "x" in text or "=" in text:
        for pattern, meaning in _SYNONYMS:
            text = pattern.sub(meaning, text)
    return " ".join(text.split())


def _in_ascii(text: str) -> str:
    """Signs of mathematics as LaTeX, digits of any script and full-width letters as those of ASCII."""
    text = _DASHES.sub("-", _SPACES.sub(" ", _INVISIBLE.sub("", text)))
    text = "".join(map(_letter, text))
    text = _scripts(_scripts(text, _RAISED, "^"), _LOWERED, "_")
    text = _ROOT.sub(lambda found: r"\sqrt{" + next(part for part in found.groups() if part is not None) + "}", text)
    return "".join(_SIGNS.get(c, c) for c in text)


def _scripts(text: str, letters: dict[str, str], mark: str) -> str:
    """Raised or lowered characters that stand together, as one LaTeX exponent or subscript."""
    return re.sub(f"[{''.join(letters)}]+", lambda found: f"{mark}{{{''.join(letters[c] for c in found[0])}}}", text)


def _letter(c: str) -> str:
    if c.isascii() or c in _RAISED or c in _LOWERED:
        return c
    digit = unicodedata.decimal(c, None)
    if digit is not None:
        return str(digit)
    if "！" <= c <= "～":
        return chr(ord(c) - ord("！") + ord("!"))
    if unicodedata.decomposition(c).startswith("<fraction>"):
        above, _, below = unicodedata.normalize("NFKC", c).partition("⁄")
        return rf"\frac{{{above}}}{{{below}}}" if below else c
    return c


def _space(found: re.Match[str]) -> str:
    token = found[0]
    if token == "\\\\":
        return token  # the end of a row of a matrix
    if token.startswith(",") or "{" in token:
        return ","
    if token[-1] in "$%#&":
        return token[-1]
    return "" if token.startswith("\\!") else " "
