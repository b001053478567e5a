"""GSPO, arXiv 2507.18071, with a band ten times as wide: the equation of `methods.gspo`, other numbers in `hyper`."""

from __future__ import annotations

from methods.gspo import DIVISOR, credit, response

__all__ = ["DIVISOR", "credit", "response"]
