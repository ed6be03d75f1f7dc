"""TensorFlow's SAME padding, for weights that were trained by it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SameConv2d(nn.Conv2d):
    """A convolution of stride 2 that pads as TensorFlow does: where an odd number of pixels is to be added, the odd one
    goes to the right and below. (PyTorch's own padding="same" is for stride 1 alone.)

    Behind such a layer of 3 x 3, cell i looks at pixel 2 i + 1 of an even number, with padding on both sides at 2 i.
    """

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for length, size, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(input, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def use_same_padding(model: nn.Module) -> None:
    """Makes the padded convolutions of stride 2 or more a :class:`SameConv2d`, in place; names and state dict stay."""
    for layer in model.modules():
        if type(layer) is nn.Conv2d and max(layer.stride) > 1 and layer.padding not in ((0, 0), "valid"):
            layer.__class__ = SameConv2d
