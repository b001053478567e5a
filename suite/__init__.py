"""The arena: sampling, scoring, training, evaluation and comparison of policy-gradient methods."""
