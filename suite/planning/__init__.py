"""What a run would need, before it starts: tokens, operations, memory, hours.

May import the rooms up to `experiments`, but not `findings`, `report` or `commands`.
Start reading at `cost_model`; `devices` holds the data sheets, `memory_model` what fits.
"""
