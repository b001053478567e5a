"""Arithmetic that repeats bit for bit on another machine: kernels that every x86-64 processor since AVX2 has.

A CPU's libraries choose their kernels by the processor: torch takes AVX-512 where there is one, MKL and oneDNN choose
by themselves. Every choice adds in another order, and after some optimizer steps two machines hold other weights. The
environment variables below make all of them choose alike. The libraries read them once, when they start, so that they
must be there before torch is loaded: processes that the suite starts get them, another one starts itself anew.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

import torch

from suite.types import UserError

VARIABLES: Mapping[str, str] = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}
"""What torch, oneDNN (by its new and its old name) and MKL read; COMPATIBLE is MKL's only branch that is promised to
give the same bits on processors of other makers."""
CAPABILITY = "AVX2"
"""What torch says of itself where it follows."""
BEGUN_AGAIN = "FSPO_BEGUN_AGAIN"
"""In the environment of a process that has started itself anew: it does so once."""
NATIVE, PORTABLE = "native", "portable"
ARITHMETIC = "arithmetic"
"""Where a result's environment says which of the two it was."""


def variables(wanted: bool) -> Mapping[str, str]:
    """What the environment of a process that is to compute portably must hold; nothing where it has no effect."""
    return VARIABLES if wanted and without_effect() is None else {}


def without_effect() -> str | None:
    """Why portable arithmetic changes nothing on this machine, in words; None where it does."""
    if torch.cuda.is_available():
        return "a GPU computes"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"not an x86-64 processor but {platform.machine()}"
    if not torch.cpu._is_avx2_supported():
        return "the processor has no AVX2"
    return None if torch.backends.mkl.is_available() else "torch computes without MKL"


def in_force() -> bool:
    """Whether this process computes portably: all variables are set, and torch follows."""
    named = all(os.environ.get(name) == value for name, value in VARIABLES.items())
    return named and torch.backends.cpu.get_cpu_capability() == CAPABILITY


def kind_of_arithmetic(wanted: bool) -> str:
    """What a result's environment says: portable, or native, with the reason where portable was wanted."""
    reason = without_effect()
    if reason is None and in_force():
        return PORTABLE
    return f"{NATIVE} ({reason})" if wanted and reason else NATIVE


def compute_portably(wanted: bool) -> None:
    """One thread, and UserError unless this process computes portably; nothing where that is not wanted or in vain.

    One thread: how a sum is split among threads moves its last bits.
    """
    if not wanted or without_effect() is not None:
        return
    if not in_force():
        settings = " ".join(f"{name}={value}" for name, value in VARIABLES.items())
        capability = torch.backends.cpu.get_cpu_capability()
        raise UserError(
            f"train.portable: this process computes with kernels for {capability}, or was started without the "
            f"variables; start it with {settings}, or take --set train.portable=false"
        )
    torch.set_num_threads(1)


def begin_again_portably(wanted: bool) -> None:
    """Start this program anew, in the same process, with the variables in its environment, unless they are in force.

    It happens once: a second time `compute_portably` says what is wrong.
    """
    if not variables(wanted) or in_force() or BEGUN_AGAIN in os.environ:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **VARIABLES, BEGUN_AGAIN: "1"})
