"""Faster training on a CPU: 3 x 3 convolutions with 2.25 times fewer multiplications.

Winograd's minimal filtering F(2 x 2, 3 x 3), as in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
(CVPR 2016), section 4.1: maps are cut into overlapping tiles of 4 x 4, each for 2 x 2 outputs; transformed tiles and
kernels are multiplied at each of 16 positions and summed over the channels, which is one matrix product a position, and
transformed back. cuDNN has it for such layers on GPUs; oneDNN, to which PyTorch gives them on a CPU, takes the direct
algorithm.

In exact arithmetic the results are those of the direct algorithm. In float32 both round: the direct one by 2e-7 of
the result's norm, this one by some 4e-7.
"""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Lavin and Gray's G and A^T; their B^T is in _combine.
KERNEL_TRANSFORM = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
OUTPUT_TRANSFORM = ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0))
# Measured on two AVX-512 cores: below, transforms take what the multiplications save. Half the channels on either side
# gain nothing; 98 tiles (two pictures of 14 x 14) do, 49 do not.
MIN_CHANNELS, MIN_TILES = 256, 96
# Maps are worked through in pieces of at most so many tiles, kernels in blocks of at most so many transformed values:
# matrix products of this size are quick, and what is transformed stays near the caches and out of the memory's peak.
PIECE, BLOCK = 400, 2**21


def winograd_conv2d(maps: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3 x 3 convolution of stride 1 and padding 1, computed by Winograd's algorithm, and so are its gradients.

    Args:
        maps: (B, C, H, W); quickest in channels-last memory.
        weight: (O, C, 3, 3), in either layout of memory.
        bias: (O,).

    Returns:
        (B, O, H, W) in channels-last memory; differentiable once.

    Raises:
        ValueError: the shapes do not fit or one of them is empty, or the tensors are not of one floating type on a CPU.
    """
    if maps.dim() != 4 or weight.shape[1:] != (maps.shape[1], 3, 3) or not maps.numel() or not weight.numel():
        raise ValueError(f"maps {tuple(maps.shape)} and kernels {tuple(weight.shape)} do not fit together")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"a bias {tuple(bias.shape)} does not fit kernels {tuple(weight.shape)}")
    kinds = {(tensor.device.type, tensor.dtype) for tensor in (maps, weight, bias) if tensor is not None}
    if kinds not in ({("cpu", torch.float32)}, {("cpu", torch.float64)}):
        raise ValueError(f"Winograd's algorithm is here for float32 or float64 on a CPU, and the tensors are {kinds}")
    if not weight.is_contiguous() and not weight.is_contiguous(memory_format=torch.channels_last):
        weight = weight.contiguous()
    return _Winograd.apply(maps, weight, bias)


class WinogradConv2d(nn.Conv2d):
    """A 3 x 3 convolution of stride 1 and padding 1, by Winograd's algorithm wherever :meth:`applies` says so."""

    def applies(self, maps: Tensor) -> bool:
        """Whether Winograd's algorithm computes this input: in training, for float32 maps on a CPU with enough tiles to
        pay, outside autocast and torch.compile.

        Args:
            maps: (B, C, H, W).
        """
        return (
            self.training
            and type(maps) in (Tensor, nn.Parameter)  # no subclass that only traces
            and maps.device.type == "cpu"
            and maps.dtype is self.weight.dtype is torch.float32
            and maps.dim() == 4
            and len(maps) * _tiles(maps.shape[2]) * _tiles(maps.shape[3]) >= MIN_TILES
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )

    def forward(self, input: Tensor) -> Tensor:
        if self.applies(input):
            return winograd_conv2d(input, self.weight, self.bias)
        return super().forward(input)


def use_winograd(model: nn.Module) -> nn.Module:
    """Makes the 3 x 3 convolutions for which Winograd's algorithm pays a :class:`WinogradConv2d`, in place.

    Those are the layers of stride 1 and padding 1 without groups and hooks that have at least MIN_CHANNELS channels on
    both sides. They keep their parameters and names, so that state dicts and optimisers see no difference, and they
    compute as before except in training on a CPU in float32. There their outputs are in channels-last memory, whatever
    their inputs are in.

    Args:
        model: whose layers are changed.

    Returns:
        The same model.
    """
    for layer in model.modules():
        if _fits(layer):
            # In channels-last memory, by which a head knows in which its inputs are wanted.
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
            layer.__class__ = WinogradConv2d
    return model


def _fits(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.groups == 1
        and min(layer.in_channels, layer.out_channels) >= MIN_CHANNELS
        and isinstance(layer.weight, nn.Parameter)
        and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
    )


class _Winograd(torch.autograd.Function):
    """Keeps what a convolution keeps, input and weight; what is transformed lives only while it is needed."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_maps, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(maps if of_weight else None, weight if of_maps or of_weight else None)
        return _convolve(maps, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        maps, weight = ctx.saved_tensors
        of_maps, of_weight, of_bias = ctx.needs_input_grad
        return (
            _convolve(gradient, weight, None, backwards=True) if of_maps else None,
            _weight_gradient(maps, weight, gradient) if of_weight else None,
            gradient.sum(dim=(0, 2, 3)) if of_bias else None,
        )


def _convolve(maps: Tensor, weight: Tensor, bias: Tensor | None, backwards: bool = False) -> Tensor:
    """The convolution; `backwards`, the one that takes the gradient of its output (B, O, H, W) to that of its input."""
    channels_in, channels_out = weight.shape[:2] if backwards else weight.shape[1::-1]
    shape = (len(maps), channels_out, *maps.shape[2:])
    out = torch.empty(shape, dtype=maps.dtype, device="cpu", memory_format=torch.channels_last)
    blocks = _slices(channels_out, BLOCK // (16 * channels_in))
    kernels = None
    for piece in _pieces(maps):
        tiles = _transform_maps(maps, piece)
        for block in blocks:
            if kernels is None or len(blocks) > 1:
                if backwards:  # the kernels rotated by half a turn, their inputs and outputs swapped
                    kernels = _transform_kernels(weight[:, block], rotated=True)
                else:
                    kernels = _transform_kernels(weight[block]).transpose(1, 2)
            products = _workspace.take("products", (16, tiles.shape[1], kernels.shape[2]), maps)
            torch.bmm(tiles, kernels, out=products)
            _collect_outputs(products, None if bias is None else bias[block], piece.of(out)[:, block])
    return out


def _weight_gradient(maps: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """(O, C, 3, 3), in the weight's layout of memory, as the optimiser wants it."""
    is_nchw = weight.is_contiguous()
    result = torch.empty_like(weight, memory_format=torch.contiguous_format if is_nchw else torch.channels_last)
    for number, piece in enumerate(_pieces(maps)):
        tiles = _transform_maps(maps, piece)
        for block in _slices(len(weight), BLOCK // (16 * weight.shape[1])):
            outputs = _spread_outputs(piece.of(gradient)[:, block])
            products = _workspace.take("kernels", (16, outputs.shape[2], tiles.shape[2]), maps)
            torch.bmm(outputs.transpose(1, 2), tiles, out=products)
            # The adjoint of _transform_kernels.
            values = torch.matmul(_on_planes(KERNEL_TRANSFORM, maps).t(), products.transpose(0, 1))
            rows = _rows(result[block])
            rows.copy_(values) if number == 0 else rows.add_(values)
    return result


def _tiles(length: int) -> int:
    return (length + 1) // 2


class _Piece(NamedTuple):
    pictures: slice
    rows: slice  # of tiles

    def of(self, maps: Tensor) -> Tensor:
        """The part of (B, C, H, W) which the outputs of the tiles cover."""
        return maps[self.pictures, :, 2 * self.rows.start : 2 * self.rows.stop]


def _pieces(maps: Tensor) -> list[_Piece]:
    rows, columns = _tiles(maps.shape[2]), _tiles(maps.shape[3])
    row_slices = _slices(rows, PIECE // max(1, columns))
    picture_slices = _slices(len(maps), PIECE // max(1, rows * columns))
    return [_Piece(pictures, rows) for pictures in picture_slices for rows in row_slices]


def _slices(length: int, step: int) -> list[slice]:
    """Of about equal lengths, `step` at most but one at least."""
    count = -(-length // max(1, step))
    return [slice(length * index // count, length * (index + 1) // count) for index in range(count)]


def _on_planes(transform: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """Does to a flattened plane what the transform does to both its columns and its rows."""
    matrix = torch.tensor(transform, dtype=like.dtype, device="cpu")
    return torch.kron(matrix, matrix)


def _rows(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) -> a view (O, 9, C), whichever of the two layouts of memory it is in."""
    return weight.view(*weight.shape[:2], 9).transpose(1, 2)


def _transform_kernels(weight: Tensor, rotated: bool = False) -> Tensor:
    """(O, C, 3, 3) -> (16, O, C): G g G^T of every kernel g, or of the kernel rotated by half a turn."""
    matrix = _on_planes(KERNEL_TRANSFORM, weight)
    out = _workspace.take("kernels", (len(weight), 16, weight.shape[1]), weight)
    return torch.matmul(matrix.flip(1) if rotated else matrix, _rows(weight), out=out).transpose(0, 1)


def _transform_maps(maps: Tensor, piece: _Piece) -> Tensor:
    """(B, C, H, W) -> (16, T, C): B^T d B of every tile d of a piece; T tiles in all."""
    maps = maps[piece.pictures].permute(0, 2, 3, 1)
    batch, height, width, channels = maps.shape
    rows, columns = piece.rows.stop - piece.rows.start, _tiles(width)
    # In the memory of the products and outputs, which come when the tiles are made.
    padded = _workspace.take("products", (batch, 2 * rows + 2, 2 * columns + 2, channels), maps).zero_()
    top = 2 * piece.rows.start - 1
    first, last = max(top, 0), min(top + 2 * rows + 2, height)
    padded[:, first - top : last - top, 1 : width + 1].copy_(maps[:, first:last])
    half = _workspace.take("outputs", (batch, rows, 2 * columns + 2, channels), maps)
    tiles = _workspace.take("tiles", (4, 4, batch, rows, columns, channels), maps)
    for i in range(4):
        _combine(i, [padded[:, k : k + 2 * rows : 2] for k in range(4)], half)
        for j in range(4):
            _combine(j, [half[:, :, k : k + 2 * columns : 2] for k in range(4)], tiles[i, j])
    return tiles.view(16, -1, channels)


def _combine(index: int, parts: list[Tensor], out: Tensor) -> None:
    """Row `index` of B^T: each is the sum or a difference of two of a tile's four values."""
    if index == 1:
        torch.add(parts[1], parts[2], out=out)
    else:
        first, second = {0: (0, 2), 2: (2, 1), 3: (1, 3)}[index]
        torch.sub(parts[first], parts[second], out=out)


def _collect_outputs(products: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """(16, T, O) -> `out` (B, O, H, W): A^T m A of every tile m, and the bias."""
    batch, channels, height, width = out.shape
    rows, columns = _tiles(height), _tiles(width)
    outputs = _workspace.take("outputs", (4, products[0].numel()), products)
    torch.mm(_on_planes(OUTPUT_TRANSFORM, products), products.view(16, -1), out=outputs)
    outputs = outputs.view(2, 2, batch, rows, columns, channels)
    for i in range(2):
        for j in range(2):
            part = out[:, :, i::2, j::2].permute(0, 2, 3, 1)
            values = outputs[i, j, :, : part.shape[1], : part.shape[2]]
            part.copy_(values) if bias is None else torch.add(values, bias, out=part)


def _spread_outputs(gradient: Tensor) -> Tensor:
    """(B, O, H, W) -> (16, T, O): the adjoint of :func:`_collect_outputs`."""
    batch, channels, height, width = gradient.shape
    rows, columns = _tiles(height), _tiles(width)
    outputs = _workspace.take("outputs", (2, 2, batch, rows, columns, channels), gradient)
    if height % 2 or width % 2:
        outputs.zero_()
    for i in range(2):
        for j in range(2):
            part = gradient[:, :, i::2, j::2].permute(0, 2, 3, 1)
            outputs[i, j, :, : part.shape[1], : part.shape[2]].copy_(part)
    products = _workspace.take("products", (16, batch * rows * columns, channels), gradient)
    torch.mm(_on_planes(OUTPUT_TRANSFORM, gradient).t(), outputs.view(4, -1), out=products.view(16, -1))
    return products


class _Workspace(threading.local):
    """A thread's memory for all that is transformed, taken once: many short-lived blocks would tear up the heap.

    It stays for the life of the thread, 100 MB for the widest layers.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory of this name, shape, and the tensor's type; whatever it held under this name is lost."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, like.dtype))
        if buffer is None or buffer.numel() < size:
            self._buffers.pop((name, like.dtype), None)
            del buffer  # before the larger one is there
            with torch.inference_mode(False):  # else training could not write to it later
                buffer = self._buffers[name, like.dtype] = torch.empty(size, dtype=like.dtype, device="cpu")
        return buffer[:size].view(shape)


_workspace = _Workspace()
