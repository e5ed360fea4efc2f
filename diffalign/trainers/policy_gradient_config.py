"""Keys of the policy gradient on recorded denoising steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffalign.config import key
from diffalign.trainers.on_policy_config import OnPolicyConfig, fraction_of


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(OnPolicyConfig):
    """Which steps are stochastic and trained, and the objective of each step."""

    method: str = key("policy_gradient", "training method; `--help METHOD` shows its own keys", section="method")
    sde_window_size: int | None = key(
        None, "stochastic steps per rollout, the rest is ODE; default: every step", section="policy gradient"
    )
    sde_window_range: list[int] | None = key(None, "[first, last) positions where the window may start; default: all")
    sde_window_schedule: Literal["random", "progressive", "decay", "exp_decay"] = key(
        "random", "how the window moves: drawn per rollout, or in order with a constant, linear or exponential stay"
    )
    sde_window_every: int = key(25, "rollouts at each position of an ordered window", above=0)
    sde_window_stride: int = key(1, "steps an ordered window moves by", above=0)
    post_window_fraction: float = key(
        1.0, "share of the steps after the window that is taken (MixGRPO-Flash 0.4)", above=0, high=1
    )
    sde_last_step: bool = key(False, "keep noise on the last step (released Flow-GRPO does; DDIM needs it to train it)")
    timestep_fraction: float = key(1.0, "fraction of the stochastic steps that is trained", above=0, high=1)
    timestep_selection: Literal["first", "random"] = key(
        "first", "which steps that fraction is: the earliest, or a draw for each sample (DanceGRPO)"
    )
    prefix_branches: int = key(1, "samples that share the deterministic prefix before the window", above=0)
    uncond_grad: bool = key(
        True, "back-propagate through the unconditional branch too; false: half the activations, a biased gradient"
    )
    ratio: Literal["plain", "cps", "guard"] = key("plain", "log-ratio: plain, cps (times 2 c^2), guard (centred)")
    step_weights: Literal["uniform", "tempflow", "guard"] = key("uniform", "weight of each step's loss")
    epsilon: float = key(
        1e-4, "PPO clip below 1, on log-probs averaged over latent elements", above=0, aliases=["clip_range"]
    )
    epsilon_high: float | None = key(None, "PPO clip above 1; default: epsilon", above=0)
    trust_region: Literal["clip", "kl_mask"] = key(
        "clip", "bound of a step: PPO's clip, or masking steps beyond kl_limit (Flow-DPPO)"
    )
    kl_limit: float = key(
        1e-5, "trust_region = kl_mask: largest step KL to the rollout policy, per latent element", low=0
    )
    kl: Literal["dt_scaled", "exact", "mean_squared", "velocity"] = key(
        "dt_scaled",
        "KL form: dt_scaled (released Flow-GRPO), exact (released CPS and TempFlow), mean_squared (FlowCPS), velocity",
    )

    @property
    def branches(self) -> int:
        """Samples that share one trajectory up to the fork before the window."""
        return self.prefix_branches

    def check(self) -> None:
        """A density at the trained steps, a window inside the schedule; then the rules of rollouts."""
        self._check_density()
        self._check_window()
        if self.kl == "dt_scaled" and self.sde_type == "cps" and self.beta > 0:
            raise ValueError(
                "kl = dt_scaled is Flow-GRPO's SDE form and about 12 times too small under sde_type = cps: use exact "
                "(flow_grpo's CPS) or mean_squared (FlowCPS, beta .04)"
            )
        super().check()

    def _check_density(self) -> None:
        if self.sde_type == "ode":
            raise ValueError(
                "sde_type = ode has no density, so no policy gradient: choose flow_sde, dance_sde or cps (flow "
                "models), ddim with noise_level > 0 (Stable Diffusion); method = nft and awm train on ODE rollouts"
            )
        if self.noise_level == 0 and self.sde_type != "memoryless":
            raise ValueError(f"noise_level = 0 makes {self.sde_type} deterministic; a policy gradient needs noise")

    def _check_window(self) -> None:
        size, steps = self.sde_window_size, self.num_inference_steps
        if size is None:
            self._check_no_window()
            return
        given = self.sde_window_range
        if given is not None and (len(given) != 2 or given[0] >= given[1]):
            raise ValueError(
                f"sde_window_range = {given} must be two rising positions, [first, last) starts of the window"
            )
        starts = self.window_starts()
        if size < 1 or starts.start < 0 or starts.stop - 1 + size > steps:
            raise ValueError(
                f"a window of {size} steps that starts in [{starts.start}, {starts.stop}) does not lie in the schedule "
                f"of {steps} steps; starts up to {max(steps - size, 0)} fit"
            )
        if self.num_generations % self.prefix_branches:
            raise ValueError(
                f"num_generations = {self.num_generations} must be a multiple of "
                f"prefix_branches = {self.prefix_branches}"
            )

    def _check_no_window(self) -> None:
        if self.sde_window_schedule != "random" or self.post_window_fraction < 1:
            raise ValueError("sde_window_schedule and post_window_fraction need a window: set sde_window_size")
        if self.sde_window_range is not None:
            raise ValueError("sde_window_range is given without sde_window_size")
        if self.prefix_branches > 1:
            raise ValueError("prefix_branches > 1 needs a window (sde_window_size): without one there is no prefix")

    def window_starts(self) -> range:
        """Every step at which a window may start; without a window just 0."""
        size = self.sde_window_size or self.num_inference_steps
        low, high = self.sde_window_range or [0, max(self.num_inference_steps - size, 1)]
        stride = 1 if self.sde_window_schedule == "random" else self.sde_window_stride
        return range(low, max(high, low + 1), stride)

    def trained_steps(self, steps: int) -> int:
        """How many of so many steps `timestep_fraction` trains; at least one."""
        return fraction_of(steps, self.timestep_fraction)
