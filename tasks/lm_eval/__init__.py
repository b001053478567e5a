"""The sets as tasks of lm-eval: a YAML file a set, and the functions that they name."""
