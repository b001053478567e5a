"""From names to values, and the jobs: comparisons cell by cell, banks, calibration. The composition root.

May import every room above, and `baselines`, `fspo` and `tasks`: with `commands`, the only room that knows these.
Start reading at `recipes` (names to a configuration), then `cells` (the jobs of a comparison).
"""
