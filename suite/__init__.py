"""Train policy-gradient methods on identical rollouts and compare them. Each folder is a room with a docstring."""
