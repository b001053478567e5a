"""The one grader: the reward in training and the score in evaluation come from here.

**Where the answer is.** The last `\\boxed{...}` of the response; else the rest of the line after the last `####`; else,
where the gold answer is a number, the last number of the text; else there is none: NO_ANSWER, which is not correct.

**When it is right.** Numbers are compared exactly: `18`, `18.0`, `+18` and `$18` are one number, so are `1,234` and
`1234`, `1/2` and `0.5`. A per cent sign on one side only may stand for itself or for a hundredth: `18%` equals 18 and
0.18. Other texts are equal when they read the same after harmless LaTeX is removed, or when math-verify says so.

**When nobody knows.** An answer too long, too deeply nested or of absurd size for computer algebra, and one that runs
out of its bounds of time or memory twice, is UNDECIDED. It costs the rows after it nothing.

That rule is `loose`, the REWARD. The PANEL holds three more, which no reward comes from: they say how much of a
score is the rule's doing.

Source: ours; symbolic equality by math-verify 0.9.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from suite.types import Problem, Verdict
from tasks import symbolic
from tasks.answers import clean, final_answer, is_absurd, is_number, last_box, same_number, vote
from tasks.symbolic import Question

REMEMBERED = 1 << 14
Pairs = Sequence[tuple[str, str]]
"""(response text, gold answer) of every row."""
Told = Callable[[int], None]
"""Is told how many more rows have their verdict."""


def grade(pairs: Pairs) -> list[Verdict]:
    """The verdict of each (response text, gold answer) by the REWARD rule, in order; raises for no response.

    >>> grade([("6 * 3 = 18\\n#### 18", "18"), ("I guess 17.", "18"), ("I give up.", "18")])
    [<Verdict.CORRECT: 'correct'>, <Verdict.WRONG: 'wrong'>, <Verdict.NO_ANSWER: 'no_answer'>]
    """
    return PANEL[REWARD].judge(pairs)


def grade_problems(pairs: Sequence[tuple[str, Problem]]) -> list[Verdict]:
    """`Task.grade` of every task whose gold answers are numbers or LaTeX."""
    return grade([(response, problem.gold) for response, problem in pairs])


def answer_to(response: str, problem: Problem) -> str | None:
    """`Task.answer` of the same tasks."""
    return vote(response, problem.gold)


def settled(gold: str, answer: str | None) -> Verdict | None:
    """What can be said of an answer without computer algebra; None where it takes that."""
    if answer is None or not clean(answer):
        return Verdict.NO_ANSWER
    gold, answer = clean(gold), clean(answer)
    if gold == answer:
        return Verdict.CORRECT
    same = same_number(gold, answer)
    if same is not None:
        return Verdict.CORRECT if same else Verdict.WRONG
    return Verdict.UNDECIDED if is_absurd(gold) or is_absurd(answer) else None


# --- the panel ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """A way to grade: a name, its definition in a line, and the verdicts it gives to (response, gold) pairs."""

    name: str
    meaning: str
    verdicts: Callable[[Pairs, Told], list[Verdict]]

    def judge(self, pairs: Pairs, told: Told | None = None) -> list[Verdict]:
        """The verdicts, in order. Each depends on its own pair alone. `told` hears of rows as they are done."""
        return self.verdicts(pairs, told or _nobody)


def _strict(pairs: Pairs, told: Told) -> list[Verdict]:
    return _equivalents([(last_box(response), gold) for response, gold in pairs], told)


def _loose(pairs: Pairs, told: Told) -> list[Verdict]:
    return _equivalents([(final_answer(response, gold), gold) for response, gold in pairs], told)


def _numeric(pairs: Pairs, told: Told) -> list[Verdict]:
    def verdict(response: str, gold: str) -> Verdict:
        if not is_number(gold):
            return Verdict.UNDECIDED
        answer = final_answer(response, gold)
        if answer is None or not clean(answer):
            return Verdict.NO_ANSWER
        return Verdict.CORRECT if same_number(clean(gold), clean(answer)) else Verdict.WRONG

    found = [verdict(*pair) for pair in pairs]
    told(len(found))
    return found


def _math_verify(pairs: Pairs, told: Told) -> list[Verdict]:
    return _asked([Question("responds", gold, response) for response, gold in pairs], told)


PANEL: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("strict", "the last \\boxed{} or nothing; equal as texts, exact numbers or by computer algebra", _strict),
        Rule("loose", "the last \\boxed{}, else what follows ####, else the last number; equal as in strict", _loose),
        Rule("numeric", "found as in loose; the same exact number or wrong; undecided where gold is none", _numeric),
        Rule("math_verify", "math-verify as it comes: its own extraction and its own comparison", _math_verify),
    )
}
REWARD = "loose"
"""The rule of the PANEL that rewards and scores come from."""


def _on_problems(rule: Rule) -> Callable[[Sequence[tuple[str, Problem]]], list[Verdict]]:
    return lambda pairs: rule.judge([(response, problem.gold) for response, problem in pairs])


PROBLEM_PANEL = {name: _on_problems(rule) for name, rule in PANEL.items()}
"""`Task.panel` of the same tasks."""


# --- computer algebra, asked once a pair ----------------------------------------------------------


def _equivalents(answers: Sequence[tuple[str | None, str]], told: Told) -> list[Verdict]:
    """The verdict of each (answer, gold)."""
    found = [settled(gold, answer) for answer, gold in answers]
    open_rows = [i for i, verdict in enumerate(found) if verdict is None]
    told(len(found) - len(open_rows))
    asked = [Question("equal", clean(answers[i][1]), clean(answers[i][0] or "")) for i in open_rows]
    decided = dict(zip(open_rows, _asked(asked, told), strict=True))
    return [decided[i] if verdict is None else verdict for i, verdict in enumerate(found)]


def _asked(questions: Sequence[Question], told: Told) -> list[Verdict]:
    """The answers of this process's pool; a question that came before is not asked again."""
    counts: dict[Question, int] = {}
    for question in questions:
        counts[question] = counts.get(question, 0) + 1
    found = {question: verdict for question in counts if (verdict := _memory.get(question)) is not None}
    told(sum(counts[question] for question in found))
    new = [question for question in counts if question not in found]
    if new:
        found |= zip(new, symbolic.own_pool().ask(new, lambda place: told(counts[new[place]])), strict=True)
        _memory.keep({question: found[question] for question in new})
    return [found[question] for question in questions]


class Memory:
    """The latest verdicts of computer algebra: the samples of one problem repeat one another, and a policy in trouble
    repeats one hostile answer. Long questions are not kept."""

    def __init__(self, size: int = REMEMBERED, longest: int = 4000) -> None:
        self.size, self.longest = size, longest
        self._known: dict[Question, Verdict] = {}
        self._lock = threading.Lock()

    def get(self, question: Question) -> Verdict | None:
        """The verdict of a question that is remembered."""
        return self._known.get(question)

    def keep(self, verdicts: Mapping[Question, Verdict]) -> None:
        """Remembers verdicts, and forgets the oldest beyond `size`."""
        with self._lock:
            self._known |= {q: v for q, v in verdicts.items() if len(q.gold) + len(q.text) <= self.longest}
            for question in list(self._known)[: max(0, len(self._known) - self.size)]:
                del self._known[question]

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._known.clear()


def forget() -> None:
    """Forgets every verdict of computer algebra, so that the next one is asked anew."""
    _memory.clear()


def _nobody(rows: int) -> None:
    """Hears of progress where nobody watches."""


_memory = Memory()
