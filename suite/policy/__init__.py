"""A policy as tensors: load it, ask it, sample from it, and score what it sampled.

May import the contract files and `records`. Knows nothing of training, methods, tasks by name or evaluation.
Start reading at `loading`, then `sampling` (responses) and `scoring` (their log-probabilities).
"""
