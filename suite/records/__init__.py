"""Every file that the suite writes and reads again: whole or absent, with a digest, never pickled.

May import the contract files on top of `suite` (types, arithmetic, advantages, seeds, config) and no other room.
Start reading at `files`, then `result` (a finished run) and `rollout_set` (recorded responses).
"""
