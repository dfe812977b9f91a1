"""The choices of T2Diff's diffusion module (section 4.2)."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from models.layers.diffusion import ScheduleConfig
from models.layers.unet1d import UNetConfig

Sampler = Literal["ancestral", "ddim"]
PosteriorNoise = Literal["sqrt", "literal", "none"]
DriftScaling = Literal["ema", "none"]
KLWeighting = Literal["x0", "mu"]
DiffusionLoss = Literal["mse", "norm"]
TowerCondition = Literal["onestep", "sampled", "high_noise"]

_CHOICES = {
    "sampler": Sampler,
    "posterior_noise": PosteriorNoise,
    "drift_scale": DriftScaling,
    "kl_weighting": KLWeighting,
    "loss": DiffusionLoss,
    "tower_condition": TowerCondition,
}
"""Fields of DiffusionConfig that name one of a few choices."""


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """How the next behaviour is noised, denoised and sampled.

    The defaults of `tower_condition` and `num_sample_steps` are what validation picked on MovieLens-1M. The paper's are `onestep`,
    with the sampler `ancestral` and as many steps as the schedule has (Algorithms 1 and 2).

    Raises:
        ValueError: a field is outside its allowed range, or two fields contradict each other.
    """

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """β of every step (eq. 13)."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    """f_θ of eq. 16."""
    sampler: Sampler = "ddim"
    """Reverse process at serving: `ancestral` Algorithm 2, every step with fresh noise; `ddim` fewer, deterministic steps."""
    num_sample_steps: int = 1
    """Steps of the reverse process, at most the schedule's; `ancestral` takes them all."""
    posterior_noise: PosteriorNoise = "sqrt"
    """Noise of an ancestral step: `sqrt` √β̃·ε, which samples eq. 4; `literal` β̃·ε, eq. 17 as printed; `none`. None at t = 1."""
    drift_scale: DriftScaling = "ema"
    """`ema`: the embeddings are divided by the running standard deviation of z0 on the way in and multiplied by it on the way
    out, so that eq. 14's unit noise meets a unit signal whatever the embeddings' scale; `none`: they are taken as they are."""
    use_drift: bool = True
    """True: z0 = X_{2:n+1} − X_{1:n}, eq. 11. False ("W/O DP" of Table 2): z0 = X_{2:n+1}, and nothing is added back."""
    kl_weighting: KLWeighting = "x0"
    """Weight of a row's loss by its r: `x0` 1; `mu` the squared coefficient of z0 in eq. 5 (eq. 23), its mean over r being 1."""
    loss: DiffusionLoss = "mse"
    """Per valid position: `mse` the mean over channels of (ẑ0 − z0)², eq. 23; `norm` the Euclidean norm of ẑ0 − z0 (authors)."""
    tower_condition: TowerCondition = "high_noise"
    """Where training's x̂ comes from: `onestep` ẑ0 of z_r, which contains the target (Algorithm 1, line 10); `sampled` the reverse
    process of serving from noise; `high_noise` one U-Net call on noise at t = T. The last two carry no gradient."""
    detach_inputs: bool = True
    """Whether the gradient stops before the embeddings (Fig. 2a)."""
    detach_prediction: bool = True
    """Whether the tower's gradient stops before x̂."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"DiffusionConfig.{name}={getattr(self, name)!r}, expected one of {get_args(choices)}")
        total = self.schedule.num_steps
        if not 1 <= self.num_sample_steps <= total:
            raise ValueError(
                f"DiffusionConfig.num_sample_steps={self.num_sample_steps}, expected 1 to {total}, the schedule's num_steps"
            )
        if self.sampler == "ancestral" and self.num_sample_steps != total:
            raise ValueError(
                f"DiffusionConfig.num_sample_steps={self.num_sample_steps} with sampler='ancestral', which visits every step: "
                f"set num_sample_steps={total}, or sampler='ddim' for fewer"
            )
        if self.tower_condition == "sampled" and self.num_noise > 1:
            raise ValueError(
                f"DiffusionConfig.tower_condition='sampled' with sampler='ancestral' and posterior_noise={self.posterior_noise!r}: "
                "training runs the reverse process from one noise tensor; set sampler='ddim' or posterior_noise='none'"
            )

    @property
    def num_noise(self) -> int:
        """Noise tensors that one reverse process uses up: z_T, and one more for every noisy step but the last."""
        noisy = self.sampler == "ancestral" and self.posterior_noise != "none"
        return self.schedule.num_steps if noisy else 1
