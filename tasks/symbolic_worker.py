"""The script behind `tasks.symbolic`: reads (gold, answer) pairs, one JSON line each, and says whether they are equal.

It runs alone in its process, so that a bound can end it: an interval timer of CPU time with the default action, which
no Python code can catch, and a limit on memory. It may read files (imports do) but not write, delete, connect or
start anything.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "winreg.")
HARMLESS = frozenset({"os.listdir", "os.scandir"})


def forbid(event: str, arguments: tuple) -> None:
    """An audit hook that raises PermissionError for everything that would reach outside this process."""
    opens_to_write = event == "open" and bool(arguments[2] & WRITING)
    if opens_to_write or (event.startswith(FORBIDDEN) and event not in HARMLESS):
        raise PermissionError(f"{event} is not for answers")


def answer_requests(cpu_seconds: float, memory_bytes: int) -> None:
    """Answers requests until standard input ends; replies `correct`, `wrong` or `undecided`."""
    from math_verify import LatexExtractionConfig, parse, verify

    def equal(gold: str, answer: str) -> bool:
        # Latex alone: the other extractors may hand text to sympy's `parse_expr`, which evaluates it.
        left, right = (
            parse(f"\\boxed{{{text}}}", [LatexExtractionConfig()], parsing_timeout=None)  # pyright: ignore
            for text in (gold, answer)
        )
        return verify(left, right, timeout_seconds=None)

    def verdict(gold: str, answer: str) -> str:
        if equal(gold, answer):  # an exception is no verdict: it ends this process
            return "correct"
        # math-verify turns a MemoryError into "not equal": a row that came near the limit decides nothing.
        return "undecided" if peak_memory() > memory_bytes // 2 else "wrong"

    equal("1/2", "0.5")  # builds the parser's tables outside the bound of the first row
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    sys.addaudithook(forbid)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    reply("ready")
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        said = verdict(request["gold"], request["answer"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        reply(said)
        if peak_memory() > memory_bytes // 2:
            break


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    if sys.platform == "linux":  # there ru_maxrss starts at the size of the process that forked us
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reply(text: str) -> None:
    """Writes one line to the parent at once, past whatever a library prints."""
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    try:
        answer_requests(float(sys.argv[1]), int(sys.argv[2]))
    except ImportError as error:
        reply(f"cannot import {error.name}")
