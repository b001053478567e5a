"""GSPO, arXiv 2507.18071, with a band ten times as wide: the equation of `oracles.gspo`, other numbers in `hyper`."""

from __future__ import annotations

from oracles.gspo import DIVISOR, credit, response

__all__ = ["DIVISOR", "credit", "response"]
