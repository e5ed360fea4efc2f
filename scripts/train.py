"""What accelerate and torchrun launch: `accelerate launch scripts/train.py --config FILE|RECIPE --key value ...`.

The same as `diffalign train`; works from a bare checkout as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from diffalign.commands import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
