"""The script behind `tasks.symbolic`: reads questions, batches of them as JSON lines, and answers each with one line.

It runs alone in its process, so that a bound can end it: an interval timer of CPU time with the default action, which
no Python code can catch, and limits on memory, files and core dumps. It may read files (imports do) but not write,
delete, connect or start anything; what a library prints goes nowhere.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "winreg.")
HARMLESS = frozenset({"os.listdir", "os.scandir"})
READY, RETIRED = "ready", "retired"
ORPHAN_POLL_SECONDS = 2.0
PRECISION = 30


def forbid(event: str, arguments: tuple) -> None:
    """An audit hook that raises PermissionError for everything that would reach outside this process."""
    opens_to_write = event == "open" and bool(arguments[2] & WRITING)
    if opens_to_write or (event.startswith(FORBIDDEN) and event not in HARMLESS):
        raise PermissionError(f"{event} is not for answers")


def equal(gold: str, answer: str) -> str:
    """`correct` or `wrong`: whether two LaTeX texts are equal for math-verify."""
    from math_verify import LatexExtractionConfig, parse, verify

    # Latex alone: the other extractors may hand text to sympy's `parse_expr`, which evaluates it.
    left, right = (
        understood(parse(f"\\boxed{{{text}}}", [LatexExtractionConfig()], parsing_timeout=None))  # pyright: ignore
        for text in (gold.replace("\\Pi", "P_i"), answer.replace("\\Pi", "P_i"))  # which it takes for \pi
    )
    left, right = as_region(left, right), as_region(right, left)
    same = verify(left, right, timeout_seconds=None, allow_set_relation_comp=True)
    return "correct" if same and are_near(left, right) else "wrong"


def understood(found: list) -> list:
    """What math-verify found, with i as the imaginary unit, which is a variable for it: i > 5 says that it is one."""
    import sympy

    number = found and isinstance(found[0], sympy.Basic) and not found[0].has(sympy.core.relational.Relational)
    symbols = found[0].free_symbols if number else ()
    units = {symbol: sympy.I for symbol in symbols if str(symbol) == "i"}
    return [found[0].xreplace(units).doit(), *found[1:]] if units else found


def as_region(found: list, other: list) -> list:
    """What was found; several inequalities, as in `x < 2 or x > 3`, as the set that they allow, if the other is one."""
    import sympy

    if not found or not other or not isinstance(other[0], sympy.Interval | sympy.Union):
        return found
    members = found[0].args if isinstance(found[0], sympy.FiniteSet) and len(found[0].free_symbols) == 1 else ()
    bounds = [member for member in members if isinstance(member, sympy.logic.boolalg.Boolean)]
    return [sympy.Or(*bounds).as_set(), *found[1:]] if bounds and len(bounds) == len(members) else found


def are_near(left: list, right: list) -> bool:
    """Whether two constants agree to twelve digits, or to four where one is a decimal; True of all else.

    math-verify rounds to six decimals, so that for it all numbers below a millionth are one.
    """
    import sympy

    if not left or not right or not all(isinstance(found[0], sympy.Expr) for found in (left, right)):
        return True
    one, other = left[0], right[0]
    if not one.is_number or not other.is_number:
        return True
    tolerance = 1e-4 if one.has(sympy.Float) or other.has(sympy.Float) else 1e-12
    a, b = (sympy.N(value, PRECISION) for value in (one, other))
    if not (a.is_finite and b.is_finite):
        return True
    return bool(abs(a - b) <= tolerance * max(abs(a), abs(b)))


def responds(gold: str, response: str) -> str:
    """math-verify as it comes, on a whole response: its own extraction, `no_answer` where that finds nothing."""
    from math_verify import parse, verify

    found = parse(response, parsing_timeout=None)  # pyright: ignore[reportArgumentType]
    if not found:
        return "no_answer"
    expected = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
    return "correct" if verify(expected, found, timeout_seconds=None) else "wrong"


KINDS = {"equal": equal, "responds": responds}


def answer_questions(cpu_seconds: float, memory_bytes: int) -> None:
    """Answers questions until standard input or the parent ends; replies `PLACE VERDICT` to each."""
    channel = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)

    def reply(text: str) -> None:
        os.write(channel, f"{text}\n".encode())

    try:
        for ask in KINDS.values():
            ask("1/2", "$0.5$")  # builds the parser's tables outside the bound of the first question
    except ImportError as error:
        reply(f"cannot import {error.name}")
        return
    confine(memory_bytes)
    reply(READY)
    for line in lines_of_parent():
        for place, kind, gold, text in json.loads(line):
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            said = KINDS[kind](gold, text)  # an exception is no verdict: it ends this process
            signal.setitimer(signal.ITIMER_PROF, 0)
            near_limit = peak_memory() > memory_bytes // 2
            # math-verify turns a MemoryError into "not equal": a row that came near the limit decides nothing.
            reply(f"{place} {'undecided' if near_limit and said != 'correct' else said}")
            if near_limit:
                reply(RETIRED)
                return


def confine(memory_bytes: int) -> None:
    """The bounds of this process that hold from now on: memory, no file written, no core, nothing started."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(forbid)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def lines_of_parent() -> Iterator[bytes]:
    """The lines of standard input, until it ends or the parent is gone.

    Both: a process that was forked from the parent may hold the other end of the pipe open long after it.
    """
    parent, rest = os.getppid(), b""
    while os.getppid() == parent:
        if not select.select([0], [], [], ORPHAN_POLL_SECONDS)[0]:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    if sys.platform == "linux":  # there ru_maxrss starts at the size of the process that forked us
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    answer_questions(float(sys.argv[1]), int(sys.argv[2]))
