"""Any method on recorded log-probabilities: who is clipped, and which gradient is left.

May import the contract files, `records`, `statistics`, `policy`, `methods` and `training`. No method is known by name.
Start reading at `one_method` (one method on one log), then `replays` (all methods on one log).
"""
