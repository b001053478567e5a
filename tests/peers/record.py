"""Write a peer's results anew: `python tests/peers/record.py trl` (or verl), in an environment with that package.

Needs torch and the package only, nothing of the suite.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers import cases, storage


def main(arguments: list[str]) -> int:
    """Record the one peer that the command line names."""
    if len(arguments) != 1 or arguments[0] not in cases.PEERS:
        print(f"usage: python tests/peers/record.py {{{','.join(cases.PEERS)}}}", file=sys.stderr)
        return 2
    peer = arguments[0]
    content = storage.compute(peer)
    storage.FOLDER.mkdir(exist_ok=True)
    storage.path(peer).write_text(storage.dump(content))
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    print(f"{storage.path(peer)}: {len(content['results'])} comparisons ({versions})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
