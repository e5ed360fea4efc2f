"""Benchmark suites as rewards: the same rules as in an evaluation, with judges of the user's choice.

    reward_funcs: [compbench_spatial]
    reward_kwargs: {compbench_spatial: {detect: owlv2, soft: true}}

A judge is a name (`diffalign.rewards.detectors`), `path/to/file.py:function`, or a callable
(`diffalign.evaluation.judges`). The reward's name is the suite's with its judges: `compbench_spatial_mended@owlv2`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from diffalign.evaluation import suites
from diffalign.evaluation.judges import Judges
from diffalign.naming import unknown
from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.detectors import judge

ROLES = tuple(role.name for role in fields(Judges))
Judge = str | Callable[..., Any]


class SuiteReward(Reward):
    """A suite's score of each image for its own prompt.

    Attributes:
        suite: name of the suite.
        roles: judges that have to be given.
    """

    suite: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    needs = frozenset({"prompt", "metadata"})

    def __init_subclass__(cls, **options: Any) -> None:
        """Takes over what the suite says of itself, so that a listing can show it."""
        super().__init_subclass__(**options)
        rules = suites.get(cls.suite)
        cls.range, cls.roles = rules.range, tuple(role for role in rules.needs if role != "parse")

    def __init__(
        self, *, soft: bool = False, judge_kwargs: Mapping[str, Mapping[str, Any]] | None = None, **judges: Judge
    ) -> None:
        """Chooses the form and the judges.

        Args:
            soft: score by the suite's form for training: graded where the benchmark is strict, and in [0, 1].
            judge_kwargs: options of judges that are given by name, by role.
            **judges: `detect`, `color`, `yes`, ... : a name, `file.py:function`, or a callable.

        Raises:
            ValueError: an unknown role, a missing judge, or options for a judge that takes none.
        """
        rules, options = suites.get(self.suite), dict(judge_kwargs or {})
        rules = suites.get(rules.soft) if soft and rules.soft else rules
        for role in (*judges, *options):
            if role not in ROLES:
                raise unknown(f"judge of reward {self.suite}", role, ROLES)
        for role in options:
            if not isinstance(judges.get(role), str):
                raise ValueError(f"reward {self.suite}: judge_kwargs has options for {role}, a judge not given by name")
        made = {r: judge(r, j, **options.get(r, {})) if isinstance(j, str) else j for r, j in judges.items()}
        self.judges = rules.prepare(Judges(**made))
        self._rules, self.name, self.range = rules, rules.column(self.judges), rules.range

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)` in [0, 1].

        Raises:
            ValueError: a prompt or its record lacks what the suite needs.
        """
        lines = [self._rules.line(p, record, self.judges) for p, record in zip(prompts, metadata, strict=True)]
        with torch.no_grad():
            outcomes = self._rules.score(images.detach(), lines, self.judges)
        return torch.tensor([outcome.score for outcome in outcomes], dtype=torch.float32, device=images.device)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the judges that have weights."""
        for role in ROLES:
            one = getattr(self.judges, role)
            if hasattr(one, "to"):
                one.to(device, dtype)
        return self


class GenEval(SuiteReward):
    """GenEval."""

    suite = "geneval"


class GenEvalReference(SuiteReward):
    """GenEval as the reward server of Flow-GRPO graded it: what the published runs were trained on."""

    suite = "geneval_reference"


class CompBenchColor(SuiteReward):
    """T2I-CompBench, binding of colours."""

    suite = "compbench_color"


class CompBenchShape(SuiteReward):
    """T2I-CompBench, binding of shapes."""

    suite = "compbench_shape"


class CompBenchTexture(SuiteReward):
    """T2I-CompBench, binding of textures."""

    suite = "compbench_texture"


class CompBenchSpatial(SuiteReward):
    """T2I-CompBench, 2-D spatial relations."""

    suite = "compbench_spatial"


class CompBenchDepth(SuiteReward):
    """T2I-CompBench++, 3-D spatial relations."""

    suite = "compbench_3d_spatial"


class CompBenchNumeracy(SuiteReward):
    """T2I-CompBench++, numeracy."""

    suite = "compbench_numeracy"


class CompBenchNonSpatial(SuiteReward):
    """T2I-CompBench, non-spatial relations."""

    suite = "compbench_non_spatial"


class CompBenchComplex(SuiteReward):
    """T2I-CompBench, complex compositions."""

    suite = "compbench_complex"


class Dpg(SuiteReward):
    """DPG-Bench."""

    suite = "dpg"


class GenEval2(SuiteReward):
    """GenEval 2, Soft-TIFA GM."""

    suite = "geneval2"


class HrsCounting(SuiteReward):
    """HRS-Bench, counting."""

    suite = "hrs_counting"


class HrsSpatial(SuiteReward):
    """HRS-Bench, spatial composition."""

    suite = "hrs_spatial"


class HrsSize(SuiteReward):
    """HRS-Bench, size composition."""

    suite = "hrs_size"


class HrsColor(SuiteReward):
    """HRS-Bench, colour composition."""

    suite = "hrs_color"
