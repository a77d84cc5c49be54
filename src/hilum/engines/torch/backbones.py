"""An architecture's name -> a PyTorch backbone that ends at its feature map (batch, channels, h, w)."""

import timm
from torch import Tensor, nn

from hilum.errors import TrainingError


def make_backbone(name: str, *, pretrained: bool = False, same_padding: bool = False) -> nn.Module:
    """Makes a backbone that ends at its feature map.

    Args:
        name: This engine's name for it, with timm's tag.
        pretrained: Whether to fetch timm's weights for that tag.
        same_padding: TensorFlow's padding, for weights that were trained with it; batch norm's eps is then 1e-3.

    Raises:
        TrainingError: The architecture cannot have that padding.
    """
    if name == "custom_cnn":
        return CustomCNN()
    options = {"pad_type": "same", "bn_eps": 1e-3} if same_padding else {}
    try:
        backbone: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=0, global_pool="", **options
        )
    except TypeError:
        if not same_padding:
            raise
        raise TrainingError(
            f"the weights do not fit {name}: they were trained with TensorFlow's padding, which it does not have"
        ) from None
    return backbone


class CustomCNN(nn.Module):
    """Four blocks of 32, 64, 128 and 256 filters: convolution, batch norm, ReLU, max pooling."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 3
        for filters in (32, 64, 128, 256):
            blocks += [
                nn.Conv2d(channels, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels = filters
        self.blocks = nn.Sequential(*blocks)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 3, size, size) -> (batch, 256, size / 16, size / 16)."""
        features: Tensor = self.blocks(image)
        return features
