"""The text of a problem: mended, bare for comparison, and digested.

`tidy` is how a hub row becomes the text of the data folder's format; `plain` is what two copies of one problem share.
Source: ours.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable

from suite.types import Problem

_BROKEN_ESCAPE = re.compile(
    r"\f(?=(?:rac|orall|box|lat)(?![a-z])|rac)"
    r"|[\b](?=eta|inom|egin|mod|ar(?![a-z])|oxed|ullet|igl?(?![a-z])|ot(?![a-z]))"
    r"|\a(?=lpha|ngle|pprox|rc)|\v(?=ec|ert|dots|arphi|ee(?![a-z]))"
    r"|\t(?=(?:imes|heta|riangle|ext|ilde|frac|binom|an|au|op|o)(?![a-z]))"
    r"|\r(?=(?:ight|angle|floor|ceil|vert|ho|m)(?![a-z]))"
    r"|\n(?=(?:eq|eg|otin|abla)(?![a-z]))"
)
_LETTER = {"\f": "f", "\b": "b", "\a": "a", "\v": "v", "\t": "t", "\r": "r", "\n": "n"}
_INVISIBLE = re.compile(r"[\u200b-\u200f\u2060\ufeff]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_REQUEST = re.compile(
    r"\(?\s*\b(?:"
    r"the (?:original |final )?answer (?:is|should be|can be|may be) (?:in|of|written|expressed)"
    r"|please (?:provide|give|find|calculate|explain)\b"
    r"|(?:provide|give|write|express|fill in) (?:the|your) (?:answer|blank|value|number)"
    r").{0,300}\Z",
    re.DOTALL,
)
_FORMATTING = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|text(?:bf|it|rm)?|math(?:rm|bf|bb|cal|it|sf|frak|scr)|operatorname|displaystyle"
    r"|boldsymbol|q?quad|[lcv]?dots[cbmi]?|limits|rm|bf|it|begin|end|tag|[hv]space)(?![a-z])\*?"
)
_SAME = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"\\[dt]frac", "frac"),
        (r"\\(?:leqslant|leq|le)(?![a-z])|≤", "<="),
        (r"\\(?:geqslant|geq|ge)(?![a-z])|≥", ">="),
        (r"\\(?:rightarrow|to)(?![a-z])|→", "to"),
        (r"\\[lr]?vert(?![a-z])|\\mid(?![a-z])", "|"),
        (r"\\(?:cdot|times)(?![a-z])|[·×]", "*"),
        (r"−", "-"),
    )
)
_DROPPED = re.compile(r"[^a-z0-9+\-=<>*/|!%]+")


def tidy(text: str) -> str:
    """The text with LF line ends, plain spaces and nothing invisible, stripped; LaTeX eaten by an escape is mended.

    >>> tidy(" a\\x0crac{1}{2}\\u00a0\\times b\\r\\n")
    'a\\\\frac{1}{2} \\\\times b'
    """
    text = text.replace("\r\n", "\n")
    text = _BROKEN_ESCAPE.sub(lambda found: "\\" + _LETTER[found[0]], text)
    return _INVISIBLE.sub("", text.replace("\u00a0", " ").replace("\u2028", " ")).strip()


def plain(text: str, keep_request: bool = False) -> str:
    """The problem without markup, case, spacing, and the request for a form of the answer that some sets append.

    `keep_request` leaves that request: with another form asked for, another answer is right. Letters, digits and the
    signs of arithmetic stay, so `sin` and `cos`, or + and -, still make two problems.

    >>> plain("Find $x$ if\\n\\\\[ x^{2} \\\\leq \\\\dfrac{1}{2}. \\\\] Please provide the value of m + n.")
    'findxifx2<=frac12'
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = _FORMATTING.sub("", text if keep_request else _REQUEST.sub("", text))
    for pattern, meaning in _SAME:
        text = pattern.sub(meaning, text)
    return _DROPPED.sub("", text)


def content_digest(problems: Iterable[Problem]) -> str:
    """sha256 over problems and answers: blind to ids, order and white space, so that two copies of one text agree."""
    rows = sorted((_squeezed(p.prompt), _squeezed(p.gold)) for p in problems)
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def _squeezed(text: str) -> str:
    return "".join(text.split())
