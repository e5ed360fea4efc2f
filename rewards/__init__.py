"""Reward plugins: the contract, the registry, the scoring rules and the built-in rewards.

The import name is always `diffalign.rewards`; the folder lies at the top of the repository and is linked into the package.
"""

from __future__ import annotations

if __name__ == "rewards":
    raise ImportError("this folder is the package `diffalign.rewards`: write `import diffalign.rewards` (a second copy would split the registry)")
