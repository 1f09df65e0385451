"""The stronger classifier."""

import torch
from torch import Tensor, nn

from pixelscope.pixelda.networks import TaskNetwork


class StrongClassifier(nn.Module):
    """Six conv3x3 with batch norm and ReLU, then the mean over the image, dropout, and a linear layer.

    In pairs of width, 2 and 4 times width, with max pools between the pairs.
    """

    def __init__(self, classes: int, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage, after in enumerate((width, 2 * width, 4 * width)):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(2):
                layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
                before = after
        self.features = nn.Sequential(*layers)
        self.dropout = dropout
        self.fc = nn.Linear(before, classes)

    def forward(self, images: Tensor, source: bool = False, draw: torch.Generator | None = None) -> Tensor:
        """Return logits (N, classes) for `images` (N, 3, S, S) in [-1, 1].

        `source` makes no difference here; `draw`, on the images' device, draws what is dropped in training.
        """
        features = self.features(images).mean((2, 3))
        if self.training and self.dropout:
            kept = torch.rand(features.shape, generator=draw, device=features.device) >= self.dropout
            features = features * kept.to(features) / (1 - self.dropout)
        return self.fc(features)


@torch.no_grad()
def logits_and_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) and what the last layer decides on, (N, F), for images (N, 3, S, S) in [-1, 1].

    The network is in evaluation mode. Of the run's own T it is the input of its last layer.
    """
    if isinstance(network, StrongClassifier):
        features = network.features(images).mean((2, 3))
        return network.fc(features), features
    assert isinstance(network, TaskNetwork)
    features = network.shared[:-1](network.conv1(images))
    return network.shared[-1](features), features
