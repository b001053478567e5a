"""The suite's side of a duel without trees of common starts: what those are measured against."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks import our_side
from suite.policy import prefix_tree

if __name__ == "__main__":
    prefix_tree.SAVING = 1.0  # no tree saves all of the tokens, so none is used
    with tempfile.TemporaryDirectory() as temporary:
        our_side.play(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(temporary))
