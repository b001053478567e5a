"""The benchmark of the bootstrap: the job is the stated one, and the file says what was measured."""

from __future__ import annotations

import numpy as np

from benchmarks.bootstrap import accuracies, measured, quantities


def test_the_job_is_five_methods_of_eight_seeds() -> None:
    models = accuracies()
    assert {matrix.shape for matrix in models.values()} == {(1, 500), (8, 500)}
    asked = quantities(models)
    assert len(asked) == 6 + 15
    np.testing.assert_allclose(
        asked["method1 - method0"]["set"], asked["method1"]["set"] - asked["method0"]["set"], atol=1e-15
    )


def test_the_file_says_what_was_measured() -> None:
    found = measured(rounds=2, repetitions=50, problems=20)
    assert len(found["seconds"]) == 2
    assert found["best"] == min(found["seconds"])
    assert found["job"]["repetitions"] == 50
    assert found["rliable"].startswith("not measured")
