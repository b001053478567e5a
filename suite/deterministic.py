"""Whether a process computes with torch's deterministic algorithms alone."""

from __future__ import annotations

import os

import torch

CUBLAS_WORKSPACE = ":4096:8"
"""Eight buffers of 4 MiB: cuBLAS then chooses the same algorithm for the same product, whatever ran before."""


def compute_deterministically(wanted: bool) -> None:
    """Switch torch's deterministic algorithms on or off for this process, with a cuBLAS workspace of fixed size.

    The workspace is read when cuBLAS starts, so this is called before anything is computed on a GPU; a size that the
    user has set stays. An operation without a deterministic form then raises RuntimeError by its name.

    What it gives: the same bits from the same work on one GPU, with one set of versions. It does not make a text
    independent of the batch that it is drawn in, nor two kinds of GPU equal.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(wanted)
