"""The methods that another trainer can be given: all whose advantages need no critic."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import baselines
import fspo
from suite.types import Method, UserError

METHODS: dict[str, Method] = {
    name: method for name, method in (fspo.METHODS | baselines.METHODS).items() if "values" not in method.needs
}


def named(name: str, owner: str) -> Method:
    """The method of that name; UserError, which begins with `owner`, for others.

    >>> named("ppo", "SuiteConfig")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    suite.types.UserError: SuiteConfig: unknown method 'ppo'; there are, without a critic: fspo, ...
    """
    if name not in METHODS:
        raise UserError(f"{owner}: unknown method {name!r}; there are, without a critic: {', '.join(METHODS)}")
    return METHODS[name]


def as_set(method: Method, fields: Mapping[str, Any], owner: str) -> Method:
    """The method with some hyper-parameters changed; UserError, which begins with `owner`, for others than it has.

    >>> as_set(METHODS["gspo"], {"clip_low": 0.2}, "SuiteConfig").hyper.clip_low
    0.2
    """
    known = [field.name for field in dataclasses.fields(method.hyper)]
    if unknown := [field for field in fields if field not in known]:
        raise UserError(f"{owner}: {method.name} has no setting {unknown[0]!r}; it has: {', '.join(known)}")
    try:
        hyper = dataclasses.replace(method.hyper, **fields)
    except TypeError as error:  # a text where a number belongs
        raise UserError(f"{owner}: {method.name} cannot take {dict(fields)}: {error}") from None
    return dataclasses.replace(method, hyper=hyper)
