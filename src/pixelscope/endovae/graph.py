"""EndoVAE as one network from frames to everything that scores are made of, as it is exported."""

from torch import Tensor, nn

from pixelscope.endovae.anomaly.dissimilarity import Dissimilarity
from pixelscope.endovae.networks import Decoder, Encoder
from pixelscope.endovae.posterior import Posterior


class WholeEndoVAE(nn.Module):
    """Frames to their reconstruction from the posterior's mode, and to `Maps`."""

    OUTPUTS = ("reconstruction", "error", "dissimilarity", "kl", "mean")

    def __init__(self, encoder: Encoder, decoder: Decoder, size: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.dissimilarity = encoder, decoder, Dissimilarity(size)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return what `OUTPUTS` names, for frames (N, 3, S, S) in [0, 1]."""
        posterior = Posterior.of(self.encoder(frames))
        reconstruction = self.decoder(posterior.mode)
        error = (frames - reconstruction).square().mean(1)
        return reconstruction, error, self.dissimilarity(frames, reconstruction), posterior.kl(), posterior.mean
