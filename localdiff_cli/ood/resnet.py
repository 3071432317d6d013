"""A ResNet up to layer3 with torchvision's key names, so that torchvision weight files fit without torchvision.

Source: He et al., CVPR 2016 (basic and bottleneck blocks; stride in the 3×3 convolution as in torchvision, "v1.5") and
Zagoruyko & Komodakis, BMVC 2016 (wide bottlenecks).
"""

from __future__ import annotations

from torch import Tensor, nn

LAYOUTS: dict[str, tuple[tuple[int, int, int], int, int]] = {
    "resnet18": ((2, 2, 2), 1, 64),
    "resnet50": ((3, 4, 6), 4, 64),
    "wide_resnet50_2": ((3, 4, 6), 4, 128),
}
"""Name → blocks of layer1..layer3, expansion (1: basic block, 4: bottleneck), width per group."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, in_channels: int, width: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(out)) + self.downsample(x)).relu()


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions around a shortcut."""

    def __init__(self, in_channels: int, width: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        return (self.bn3(self.conv3(out)) + self.downsample(x)).relu()


class ResNetTaps(nn.Module):
    """Stem to layer3 of a ResNet; ``forward`` maps ``(N, 3, H, W)`` to the outputs of layer2 (stride 8) and layer3 (16)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        depths, expansion, group_width = LAYOUTS[name]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(64, 64, depths[0], 1, expansion, group_width)
        self.layer2 = _stage(64 * expansion, 128, depths[1], 2, expansion, group_width)
        self.layer3 = _stage(128 * expansion, 256, depths[2], 2, expansion, group_width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        fine = self.layer2(self.layer1(x))
        return fine, self.layer3(fine)


def _stage(in_channels: int, planes: int, depth: int, stride: int, expansion: int, group_width: int) -> nn.Sequential:
    block = BasicBlock if expansion == 1 else Bottleneck
    width = planes * group_width // 64
    out_channels = planes * expansion
    blocks = [block(in_channels, width, out_channels, stride)]
    blocks += [block(out_channels, width, out_channels, 1) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
