"""From a set of rollouts to the policy's next version, on one process or on several.

May import the contract files, `records` and `policy`. The method comes in as a value.
Start reading at `trainer` (the loop), then `update` (one optimizer step).
"""
