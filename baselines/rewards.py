"""From rewards to one advantage a response: the three rules that the group methods choose from."""

from __future__ import annotations

from baselines.hyper import GroupStd
from suite.advantages import group_centred, group_standardised
from suite.advantages import leave_one_out as minus_the_others
from suite.types import Credit, CreditInput


def standardised(seen: CreditInput, hyper: GroupStd) -> Credit:
    """(R - group mean) / (group std + eps), [N, 1]."""
    return Credit(group_standardised(seen.rewards, seen.group_ids, ddof=hyper.std_ddof, eps=hyper.std_eps)[:, None])


def centred(seen: CreditInput, hyper: object) -> Credit:
    """R - group mean, [N, 1]."""
    return Credit(group_centred(seen.rewards, seen.group_ids)[:, None])


def leave_one_out(seen: CreditInput, hyper: object) -> Credit:
    """R - mean of the group's others, [N, 1]."""
    return Credit(minus_the_others(seen.rewards, seen.group_ids)[:, None])


STANDARDISED = "(reward - group mean) / (group std + eps); ddof and eps are knobs"
CENTRED = "reward - group mean, not divided by the std"
LEAVE_ONE_OUT = "reward minus the mean of the group's others"
