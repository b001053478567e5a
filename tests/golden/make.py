"""The golden rollouts: 8 problems x 4 responses, scored by a policy that seven hard updates have moved away.

    fspo train demo --method no_clip --steps 2 --out golden-run --set train.problems_per_step=8 \
        train.samples_per_problem=4 train.mini_batches=1 train.epochs=8 train.learning_rate=3e-4
    python tests/golden/make.py golden-run/cells/no_clip-seed0/updates/step-00001.safetensors
    fspo method regress --pin
"""

from __future__ import annotations

import sys
from pathlib import Path

from suite.records.update_log import UpdateLog
from suite.replay.pinned_numbers import GOLDEN, ROLLOUTS

if __name__ == "__main__":
    log = UpdateLog.load(Path(sys.argv[1]))
    log.rows(log.update == log.update.max()).save(GOLDEN / ROLLOUTS)
