"""What finished runs say, as numbers and data frames: no figure is drawn here and nothing is printed.

May import the rooms up to `experiments`, but not `planning`, `report` or `commands`.
Start reading at `comparison` (a finished comparison), then `claims` (the paper's five claims).
"""
