"""Schema of prior.json in the folder `prior` of a run; imports no torch."""

from typing import ClassVar, Literal

from pydantic import FiniteFloat

from pixelscope.config import Natural
from pixelscope.endovae.latent_prior.config import Kind, PriorConfig
from pixelscope.errors import plural
from pixelscope.runs.record import ResultFile


class PriorResult(ResultFile):
    """A fitted prior: of which weights, to what, and how well."""

    remedy: ClassVar[str] = "run `pixelscope endovae prior` again"

    version: Literal[1] = 1
    run: str
    """Path of the run when the prior was fitted."""
    method: Literal["mixture", "flow"]
    """`mixture`: Gaussians, of a global code. `flow`: flow matching, of a spatial code."""
    config: PriorConfig
    checkpoint: str
    """Name of the run's checkpoint whose codes were fitted."""
    images: Natural
    """Images seen at that checkpoint."""
    weights_sha256: str
    """SHA-256 of the weights of that checkpoint."""
    tensors_sha256: str
    """SHA-256 of the tensors in prior.safetensors."""
    code: tuple[int, ...]
    """Shape of the code of one frame."""
    frames: Natural
    """Training frames that the prior was fitted to, without their mirror images."""
    kinds: dict[Kind, Natural]
    """Number of these frames by kind, if kinds were learned apart; else empty."""
    components: Natural | None = None
    """Number of Gaussians, of a mixture."""
    parameters: Natural | None = None
    """Number of weights, of a velocity field."""
    loss: FiniteFloat
    """Of a mixture, the mean negative log-likelihood of a training code in nats. Of a flow, the mean squared error of the
    velocity per value, over the last tenth of the training."""
    start_loss: FiniteFloat | None = None
    """Of a flow, the same over the first tenth."""
    seconds: FiniteFloat
    """Time to fit it, without the encoding of the frames."""
    revision: str | None
    versions: dict[str, str]

    def to_text(self) -> str:
        """Return what a terminal shows."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.items())
        size = f"{self.parameters:,} weights" if self.components is None else plural(self.components, "Gaussian")
        frames = plural(self.frames, "training frame") + (f" ({kinds})" if kinds else "")
        lines = [
            f"Prior of the codes {' x '.join(map(str, self.code))} of the checkpoint {self.checkpoint}: {self.method}, {size}",
            f"Fitted to {frames} in {self.seconds:.0f} s: loss {self.loss:.4g}",
            f"Written to {self.run}/prior; `pixelscope endovae generate {self.run} --out new.png` draws from it",
        ]
        return "\n".join(lines)
