"""The one grader: the reward in training and the score in evaluation come from here.

**Where the answer is.** The last `\\boxed{...}` of the response (`\\fbox` and `\\framebox` are boxes too; an empty one
or one that never closes holds no answer); else the rest of the line after the last `####`; else what the prose ends
with: its last number with all that it is a part of (`at least 5` is not 5) where the gold answer is a number, its last
formula where it is not; else there is none: NO_ANSWER, which is not correct.

**When it is right.** `tasks.values` reads what kind of answer it is, `tasks.equality` compares kind by kind. Numbers
are compared exactly: `18`, `18.0`, `+18` and `18 dollars` are one number, so are `1,234` and `1234`, `1/2` and `0.5`,
`4.5e33` and `4.5 \\times 10^{33}`. A per cent sign on one side only may stand for itself or for a hundredth: `18%`
equals 18 and 0.18. Of equations, `x = 5` and `5 = x` stand for 5, others for nothing. Expressions are equal when they
read the same, or when math-verify says so and, where both are constants, their values are near one another.

**When nobody knows.** An answer too long, too deeply nested or of absurd size for computer algebra, and one that runs
out of its bounds of time or memory twice, is UNDECIDED. It costs the rows after it nothing.

That rule is `loose`, the REWARD. The PANEL holds three more, which no reward comes from: they say how much of a
score is the rule's doing.

Source: ours; symbolic equality by math-verify 0.9.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from suite.types import Problem, Verdict
from tasks import symbolic
from tasks.answers import final_answer, gold_answer, is_absurd, is_number, last_box, vote
from tasks.equality import Ask, alike, same_numeral
from tasks.spelling import one_spelling
from tasks.symbolic import Question
from tasks.values import Equation, Nothing, equation, read

GRADER = "3"
"""The version of these rules, which results carry.

1: answers as texts and numbers alone; 2: answers by their kinds; 3: numbers of prose with the words that limit them,
inequalities as sets, i as the imaginary unit.
"""
REMEMBERED = 1 << 14
MOST_QUESTIONS = 200
"""Pairs of expressions that one answer may put to computer algebra: a set of n expressions may ask n * n."""
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


def settled(gold: str, answer: str | None, ask: Ask = lambda gold, answer: None) -> Verdict | None:
    """What can be said of an answer, where `ask` compares expressions; None where that takes what it does not know."""
    if answer is None or isinstance(read(answer), Nothing):
        return Verdict.NO_ANSWER
    gold = gold_answer(gold)
    same = same_numeral(gold, answer)
    if same is None and one_spelling(gold) == one_spelling(answer):
        same = True
    if same is None:
        same = _alike(gold, answer, ask)
    return None if same is None else Verdict.CORRECT if same else Verdict.WRONG


def _alike(gold: str, answer: str, ask: Ask) -> bool | None:
    left, right = read(gold), read(answer)
    if isinstance(left, Equation) or isinstance(right, Equation):  # then y = 2x + 3 is no value of y: 2x - y + 3 = 0
        left, right = equation(gold) or left, equation(answer) or right
    return alike(left, right, ask)


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
        return settled(gold, final_answer(response, gold)) or Verdict.WRONG

    found = [verdict(*pair) for pair in pairs]
    told(len(found))
    return found


def _math_verify(pairs: Pairs, told: Told) -> list[Verdict]:
    questions = [Question("responds", gold, response) for response, gold in pairs]
    rows = Counter(questions)
    found = _asked(rows, lambda question: told(rows[question]))
    return [found[question] for question in questions]


PANEL: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("strict", "the last \\boxed{} or nothing; equal kind by kind, exactly or by computer algebra", _strict),
        Rule(
            "loose",
            "the last \\boxed{}, else what follows ####, else what the text ends with; equal as in strict",
            _loose,
        ),
        Rule(
            "numeric",
            "found as in loose; the same number exactly or wrong; undecided where gold is none",
            _numeric,
        ),
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
    """The verdict of each (answer, gold): what needs no computer algebra at once, then the rest with its answers."""
    found: list[Verdict | None] = []
    waiting: dict[Question, list[int]] = {}
    owed: dict[int, int] = {}
    for row, (answer, gold) in enumerate(answers):
        asked: dict[Question, None] = {}
        verdict = settled(gold, answer, lambda one, other, asked=asked: _put(asked, one, other))
        open_row = verdict is None and 0 < len(asked) <= MOST_QUESTIONS
        found.append(verdict if open_row else verdict or Verdict.UNDECIDED)
        if open_row:
            owed[row] = len(asked)
            for question in asked:
                waiting.setdefault(question, []).append(row)
    told(len(found) - len(owed))

    def answered(question: Question) -> None:
        for row in waiting[question]:
            owed[row] -= 1
            if not owed[row]:
                told(1)

    said = _asked(waiting, answered)

    def decided(one: str, other: str) -> bool | None:
        verdict = said.get(Question("equal", one, other), Verdict.UNDECIDED)
        return None if verdict is Verdict.UNDECIDED else verdict is Verdict.CORRECT

    for row in owed:
        answer, gold = answers[row]
        found[row] = settled(gold, answer, decided) or Verdict.UNDECIDED
    return [verdict or Verdict.UNDECIDED for verdict in found]


def _put(asked: dict[Question, None], gold: str, answer: str) -> None:
    """Notes a question for computer algebra, unless it is beyond what that should be asked."""
    if not is_absurd(gold) and not is_absurd(answer):
        asked[Question("equal", gold, answer)] = None


def _asked(questions: Iterable[Question], answered: Callable[[Question], None]) -> dict[Question, Verdict]:
    """The answers of this process's pool; a question that came before is not asked again."""
    questions = list(questions)
    found = {question: verdict for question in questions if (verdict := _memory.get(question)) is not None}
    for question in found:
        answered(question)
    new = [question for question in questions if question not in found]
    if new:
        found |= zip(new, symbolic.own_pool().ask(new, lambda place: answered(new[place])), strict=True)
        _memory.keep({question: found[question] for question in new})
    return found


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
