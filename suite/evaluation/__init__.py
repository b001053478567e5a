"""k responses to every problem of a task, kept on disk and graded.

May import the contract files, `records`, `statistics` and `policy`.
Start reading at `evaluate`; `sample_store` keeps what was sampled, so that nothing is sampled twice.
"""
