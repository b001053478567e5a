"""From counts of verdicts to estimates: intervals, paired differences, variance components, power.

May import the contract files and `records`. Uses numpy, scipy and pandas, never torch.
Start reading at `compare`; `verdicts` has the rule that names a difference, `bootstrap` and `variance` make its
intervals.
"""
