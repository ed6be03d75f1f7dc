"""Background Activation Suppression (Wu et al., CVPR 2022): generator and activation map constraint on any backbone.

A backbone supplies its layers in order and the taps at which they can be cut into two halves (paper section 3.1): `f1`,
up to the feature map F, and `f2`, from F to the class maps. This module owns everything else, once for all backbones
and data sets: the classifier head, the generator of foreground maps, the masked branches that the losses need, and
inference by top-k fusion.

Under torch.autocast, convolutions alone compute in half precision: the generator's sigmoid, every global average, and
so all scores and activations, are float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from utils.models.batch_norm import Statistics, recorded_statistics, use_exact_batch_norm
from utils.models.pooling import pool_areas, pool_blocks
from utils.models.registry import BACKBONES
from utils.models.same_padding import use_same_padding
from utils.models.taps import Grid, Tap
from utils.system.errors import UsageError

_NHWC = torch.channels_last


class BASOutput(NamedTuple):
    """What a training forward pass returns; :func:`utils.models.losses.bas_losses` needs nothing else.

    B pictures, K classes, h x w the size of F (28 x 28 for 224 x 224 pictures). None stands where a branch was not
    wanted; the method itself has the first five.
    """

    logits: Tensor  # (B, K) class scores, GAP(A)
    masked_logits: Tensor | None  # (B, K) class scores of the foreground alone, GAP(A * avgpool(M_fg))
    foreground_map: Tensor | None  # (B, 1, h, w) M_fg of the label's class, in [0, 1]
    activation: Tensor  # (B,) S, the label's logit
    background_activation: Tensor | None  # (B,) S_bg, the label's logit with the foreground removed from F
    foreground_logits: Tensor | None = None  # (B, K) class scores with the background removed from F; an ablation's


class Encoding(NamedTuple):
    """What maps are made of: B pictures of n crops each, K classes, F and A of the map crop."""

    logits: Tensor  # (B, n, K)
    scores: Tensor  # (B, K) the map crop's logits
    features: Tensor  # (B, C, h, w) the map crop's F
    class_maps: Tensor  # (B, K, h', w') the map crop's A


def widen(values: Tensor) -> Tensor:
    """At least float32: half precision becomes float32, anything else stays what it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def global_average(maps: Tensor) -> Tensor:
    """GAP, summed in float32 at least: (B, K, h, w) -> (B, K)."""
    return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


class WideSigmoid(nn.Sigmoid):
    """A sigmoid that computes in float32 at least, under autocast too: near 1, half precision has few numbers left."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(widen(input))


def convolve_selected(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolves each sample with its own kernels: what a full convolution gives, for the chosen output channels only.

    One batched matrix product gives the response of every kernel tap at every position; `fold` shifts and adds them.

    Args:
        features: (B, C, h, w).
        weight: (B, k, C, s, s), k kernels of odd size s for each sample.
        bias: (B, k), or None.

    Returns:
        (B, k, h, w), stride 1 and padding s // 2, in float32 at least.
    """
    batch, kernels, channels, size, _ = weight.shape
    # out[p] = sum_t W[t] F[p + t - s//2], whereas fold adds tap t of position q to q + t - s//2: hence the flip.
    taps = weight.flip(3, 4).permute(0, 1, 3, 4, 2).reshape(batch, kernels * size * size, channels)
    responses = widen(torch.bmm(taps, features.flatten(2)))
    maps = F.fold(responses, features.shape[-2:], kernel_size=size, padding=size // 2)
    return maps if bias is None else maps + bias[:, :, None, None]


def call_frozen(module: nn.Module, inputs: Tensor, statistics: Mapping[nn.Module, Statistics] | None = None) -> Tensor:
    """Runs `module` with its parameters as constants and throws away what it would write to its buffers.

    The gradient flows to `inputs` only, no weight is copied, and batch normalisation in training mode uses the
    statistics of `inputs` without moving its running averages.

    Args:
        module: any module; a shared one is left exactly as it was.
        inputs: the module's input.
        statistics: of :func:`utils.models.batch_norm.recorded_statistics`; its layers normalise by these instead.

    Returns:
        The module's output.
    """
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    scratch = {name: buffer.clone() for name, buffer in module.named_buffers()}
    statistics = statistics or {}
    known = {name: layer for name, layer in module.named_modules() if layer in statistics}
    for name, layer in known.items():
        prefix = f"{name}." if name else ""
        scratch[f"{prefix}running_mean"], scratch[f"{prefix}running_var"] = statistics[layer]
        layer.training = False  # takes what stands in the place of its running statistics
    try:
        return functional_call(module, {**constants, **scratch}, (inputs,))
    finally:
        for layer in known.values():
            layer.training = True


def rank_classes(scores: Tensor, count: int) -> Tensor:
    """The `count` best-scored classes, best first: (..., K) -> (..., count) indices.

    Of equal scores, as behind a final ReLU that is shut, the class of the lower index comes first: on every device, and
    for every `count`, the same ones.
    """
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def select_class(maps: Tensor, classes: Tensor) -> Tensor:
    """Picks one channel a sample: (B, K, h, w) and (B,) -> (B, 1, h, w)."""
    return maps[torch.arange(len(maps), device=maps.device), classes].unsqueeze(1)


class BAS(nn.Module):
    """The BAS pipeline; a backbone subclasses it with `LAYERS` and its name in the registry. Its `__init__` takes
    `num_classes` (K) and, by name, the settings of the heads, and hands them to `add_heads`.

    Layers and heads sit directly on the model under the names of the authors' checkpoints.

    Attributes:
        arch: the backbone's short name, as in `--arch`.
        num_classes: K.
        LAYERS: the trunk's layers in the order of computation, by name, unless :meth:`stages` gives them otherwise.
        taps: the layers after which f1 can end, by their names in `stages`, in order.
        paper_tap: the paper's.
        tap: the one in force.
        class_grid: the centres of the receptive fields of the class maps' cells.
        same_padding: whether the trunk pads as TensorFlow's SAME does.
        channels_last: the trunk's memory layout, as :meth:`place` left it; inputs may have either.
    """

    LAYERS: Sequence[str]
    arch: str
    num_classes: int
    taps: Mapping[str, Tap]
    paper_tap: str
    tap: str
    class_grid: Grid
    same_padding: bool
    channels_last = False

    def __init_subclass__(cls, arch: str | None = None) -> None:
        super().__init_subclass__()
        if arch is not None:
            row = BACKBONES[arch]
            cls.arch, cls.taps, cls.paper_tap, cls.class_grid = arch, row.taps, row.paper_tap, row.class_grid

    def add_heads(
        self,
        head_channels: int,
        num_classes: int,
        head_name: str = "classifier_cls",
        final_relu: bool = True,
        tap: str | None = None,
        same_padding: bool = False,
        coarse_features: bool = False,
        plain_heads: bool = False,
    ) -> None:
        """Adds the classifier head and the generator, after the trunk's layers.

        Args:
            head_channels: channels C' of what the trunk's part of f2 gives.
            num_classes: K.
            head_name: the classifier head's name in the checkpoint.
            final_relu: whether the class maps end in a ReLU (CVPR) or not (IJCV).
            tap: one of `taps`, the paper's where None.
            same_padding: whether the trunk pads as TensorFlow's SAME does, see :mod:`utils.models.same_padding`.
            coarse_features: a backbone that knows them does not hand this on.
            plain_heads: the segmentation's heads, see :class:`utils.models.recipe.Recipe`.

        Raises:
            UsageError: no such tap, features or head, or the backbone's weights do not come from TensorFlow.
        """
        if coarse_features:
            raise UsageError(f"{self.arch} has no features at 1/16; leave --coarse_features out")
        self.tap = self.paper_tap if tap is None else tap
        if self.tap not in self.taps:
            raise UsageError(f"{self.arch} has no tap {tap!r}; choose one of {', '.join(self.taps)}")
        if same_padding:
            if not BACKBONES[self.arch].from_tensorflow:
                raise UsageError(f"{self.arch}'s weights were not trained with SAME padding; leave --same_padding out")
            use_same_padding(self)
            self.class_grid = self.class_grid.under_same_padding()
        self.same_padding = same_padding
        self.num_classes = num_classes
        self._head_name = head_name
        channels = self.taps[self.tap].channels
        generator = nn.Conv2d(channels, num_classes, 3, padding=1, bias=not plain_heads)
        self.add_module(head_name, self._build_head(head_channels, num_classes, final_relu, plain_heads))
        self.classifier_loc = nn.Sequential(generator, WideSigmoid())

    def _build_head(self, head_channels: int, num_classes: int, final_relu: bool, plain_heads: bool) -> nn.Module:
        if plain_heads:
            if final_relu:
                raise UsageError("--plain_heads has no final ReLU; give --no-final_relu")
            return nn.Conv2d(head_channels, num_classes, 1, bias=False)
        head = nn.Sequential(
            nn.Conv2d(head_channels, 1024, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, num_classes, 1),
        )
        if final_relu:
            head.append(nn.ReLU(inplace=True))
        return head

    @property
    def head(self) -> nn.Module:
        """The classifier head, whatever its published name."""
        return getattr(self, self._head_name)

    def head_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of the classifier head and those of the generator; all others are the trunk's."""
        return list(self.head.parameters()), list(self.classifier_loc.parameters())

    @property
    def feature_grid(self) -> Grid:
        """The centres of the receptive fields of F's cells."""
        grid = self.taps[self.tap].grid
        return grid.under_same_padding() if self.same_padding else grid

    def stages(self) -> Iterable[tuple[str, nn.Module]]:
        """The trunk's layers in the order of computation, each with its name; several may share one."""
        return ((name, self.get_submodule(name)) for name in self.LAYERS)

    def _split(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The trunk's layers up to the last one that has the tap's name, and those after it."""
        # Looked up at each call: layers may be exchanged, as the folding of batch normalisation does.
        stages = list(self.stages())
        end = max(index for index, (name, _) in enumerate(stages, start=1) if name == self.tap)
        modules = [module for _, module in stages]
        return modules[:end], modules[end:]

    def f1(self, images: Tensor) -> Tensor:
        """The backbone up to the tap: (B, 3, H, W) normalised pictures -> F (B, C, h, w)."""
        x = images
        for stage in self._split()[0]:
            x = stage(x)
        return x

    def f2_stages(self) -> Iterable[nn.Module]:
        """The trunk's layers after the tap, in order; the classifier head follows them."""
        return self._split()[1]

    def place(self, device: torch.device, channels_last: bool | None = None) -> BAS:
        """Moves the model to a device, and into a memory layout.

        On a CPU, batch normalisation in channels-last memory becomes exact (:mod:`utils.models.batch_norm`).

        Args:
            device: where to.
            channels_last: the trunk's layout. None: yes on CPUs, and on CUDA, where it is faster in TF32; on other
                devices no, as the authors.
        """
        self.channels_last = device.type in ("cpu", "cuda") if channels_last is None else channels_last
        memory_format = _NHWC if self.channels_last else torch.contiguous_format
        self.to(device, memory_format=memory_format)  # type: ignore[call-overload]  # its stubs know one of them at most
        if device.type == "cpu":
            # The head's wide direct convolutions are quicker there in NCHW.
            self.head.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not in torch 2.6's stubs
            use_exact_batch_norm(self)
        return self

    def _enter_head(self, features: Tensor) -> Tensor:
        first = next(module.weight for module in self.head.modules() if isinstance(module, nn.Conv2d))
        is_nchw, is_nhwc = (first.is_contiguous(memory_format=layout) for layout in (torch.contiguous_format, _NHWC))
        if is_nchw and is_nhwc:  # a 1 x 1 kernel takes either
            return features
        return features.contiguous(memory_format=_NHWC if is_nhwc else torch.contiguous_format)

    def f2(self, features: Tensor) -> Tensor:
        """The rest of the backbone and the classifier head: F (B, C, h, w) -> class maps A (B, K, h', w')."""
        for stage in self.f2_stages():
            features = stage(features)
        return self.head(self._enter_head(features))

    def frozen_f2(self, features: Tensor, statistics: Mapping[nn.Module, Statistics] | None = None) -> Tensor:
        """As :meth:`f2`, but f2's weights are constants and its running statistics stay (paper section 3.3, L_bas).

        Args:
            features: (B, C, h, w).
            statistics: see :func:`call_frozen`.
        """
        for stage in self.f2_stages():
            features = call_frozen(stage, features, statistics)
        return call_frozen(self.head, self._enter_head(features))

    def foreground_maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """The generator's foreground maps of chosen classes; no other channel is computed.

        Args:
            features: F (B, C, h, w).
            classes: (B, k) class indices.

        Returns:
            (B, k, h, w) in [0, 1], in float32 at least.
        """
        convolution, sigmoid = self.classifier_loc
        assert isinstance(convolution, nn.Conv2d)
        # A look-up as an embedding: unlike that of indexing, its gradient adds up in a fixed order on any device.
        weight = F.embedding(classes, convolution.weight.flatten(1)).unflatten(-1, convolution.weight.shape[1:])
        bias = convolution.bias
        bias = None if bias is None else F.embedding(classes, bias.unsqueeze(1)).squeeze(-1)
        return sigmoid(convolve_selected(features, weight, bias))

    def fuse_top_k(self, features: Tensor, logits: Tensor, top_k: int, labels: Tensor | None = None) -> Tensor:
        """Top-k fusion (paper section 3.4): the mean foreground map of the k best-scored classes.

        Args:
            features: F (B, C, h, w).
            logits: (B, K) scores of the same pictures.
            top_k: k; K or more takes all classes.
            labels: (B,) used for k = 1 only: the label's own map, as the authors evaluate ILSVRC.

        Returns:
            (B, 1, h, w) in [0, 1].
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        if top_k >= self.num_classes:
            return self.classifier_loc(features).mean(dim=1, keepdim=True)
        classes = labels[:, None] if top_k == 1 and labels is not None else rank_classes(logits, top_k)
        return self.foreground_maps(features, classes).mean(dim=1, keepdim=True)

    def fuse_each_top_k(
        self, features: Tensor, logits: Tensor, top_ks: Sequence[int], labels: Tensor | None = None
    ) -> dict[int, Tensor]:
        """:meth:`fuse_top_k` for several k at the cost of the largest: k -> (B, 1, h, w).

        Args:
            features, logits, labels: as for :meth:`fuse_top_k`.
            top_ks: the k.
        """
        largest = min(max(top_ks), self.num_classes)
        order = rank_classes(logits, largest)
        if largest == self.num_classes:  # all classes: one convolution, no kernels picked
            maps = self.classifier_loc(features)
            maps = maps.gather(1, order[:, :, None, None].expand(-1, -1, *maps.shape[2:]))
        else:
            maps = self.foreground_maps(features, order)
        fused = {k: maps[:, :k].mean(dim=1, keepdim=True) for k in top_ks}  # summed as for a single k
        if 1 in fused and labels is not None:
            fused[1] = self.foreground_maps(features, labels[:, None])
        return fused

    def masked_logits(self, class_maps: Tensor, foreground_map: Tensor, mask_pooling: str = "blocks") -> Tensor:
        """Class scores of the foreground alone (L_frg): GAP(A * avgpool(M_fg)).

        The pooling is 2 x 2 at the paper's taps, where A is half of M_fg's size; of equal sizes it changes nothing.

        Args:
            class_maps: A (B, K, h', w').
            foreground_map: M_fg (B, 1, h, w).
            mask_pooling: `blocks`, the papers', or `aligned`: each cell of A takes the area of M_fg around where it
                looks. Behind a padded convolution of stride 2, cell j of A looks at cell 2 j of F, not between 2 j and
                2 j + 1: there these are [1/4 1/2 1/4] around 2 j.

        Returns:
            (B, K).
        """
        height, width = class_maps.shape[-2:]
        if mask_pooling == "blocks":
            mask = pool_blocks(foreground_map, height, width)
        else:
            fine, coarse = self.feature_grid, self.class_grid
            first, ratio = (coarse.first - fine.first) / fine.stride, coarse.stride / fine.stride
            mask = pool_areas(foreground_map, height, width, first, ratio)
        return global_average(class_maps * mask)

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        use_generator: bool = True,
        branch: str | None = "background",
        freeze_f2: bool = True,
        frozen_statistics: str = "masked",
        mask_pooling: str = "blocks",
        constant_maps_in_frg: bool = False,
    ) -> BASOutput:
        """The training pass with all branches of the activation map constraint (paper section 3.3).

        The options are for ablations (:func:`utils.training.objective.training_pass` derives them from a recipe); as
        they stand, they are the method.

        Args:
            images: (B, 3, H, W) normalised pictures.
            labels: (B,) int64 classes; the label's foreground map is the only one that is computed.
            use_generator: whether there is a foreground map, which all of the following needs.
            branch: the part of F that passes through f2 once more: `background` gives S_bg, `foreground` the class
                scores of the foreground, None nothing.
            freeze_f2: whether f2 takes part in this second pass with constant weights, or is trained by it as well.
            frozen_statistics: what the frozen f2's batch normalisation takes as constants of the batch: `masked`, the
                statistics of the masked features themselves (the authors' way), or `whole`, those of the first pass.
            mask_pooling: see :meth:`masked_logits`.
            constant_maps_in_frg: whether the class maps are constants in the scores of the foreground.

        Returns:
            Named outputs for the losses.
        """
        _require(branch, None, "background", "foreground")
        _require(frozen_statistics, "masked", "whole")
        _require(mask_pooling, "blocks", "aligned")
        features = self.f1(images)
        foreground_map = self.foreground_maps(features, labels[:, None]) if use_generator else None
        keeps_statistics = frozen_statistics == "whole" and use_generator and branch is not None and freeze_f2
        with recorded_statistics(self.f2_stages() if keeps_statistics else ()) as statistics:
            class_maps = self.f2(features)
        logits = global_average(class_maps)
        activation = logits.gather(1, labels[:, None]).squeeze(1)
        output = BASOutput(logits, None, foreground_map, activation, None)
        if foreground_map is None:
            return output
        if branch is not None:
            # L_bas trains the generator alone (and f1 through it): F is detached here and f2 is frozen.
            mask = 1 - foreground_map if branch == "background" else foreground_map
            masked = features.detach() * mask.to(features.dtype)
            maps = self.frozen_f2(masked, statistics) if freeze_f2 else self.f2(masked)
            if branch == "background":
                output = output._replace(background_activation=global_average(select_class(maps, labels)).squeeze(1))
            else:
                output = output._replace(foreground_logits=global_average(maps))
        in_frg = class_maps.detach() if constant_maps_in_frg else class_maps
        return output._replace(masked_logits=self.masked_logits(in_frg, foreground_map, mask_pooling))

    def classify(self, images: Tensor) -> Tensor:
        """Class scores alone: (B, 3, H, W) normalised pictures -> logits (B, K)."""
        return global_average(self.f2(self.f1(images)))

    @torch.no_grad()
    def localize(self, images: Tensor, top_k: int = 1, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inference: scores and the fused foreground map; neither the masked branches nor unread channels are computed.

        Args:
            images: (B, 3, H, W) normalised pictures.
            top_k: how many of the best-scored classes' maps are averaged (paper section 3.4).
            labels: (B,) if known; for k = 1 the label's map is taken instead of the predicted class's.

        Returns:
            logits (B, K) and foreground map (B, 1, h, w) in [0, 1].
        """
        encoding = self.encode_crops(images.unsqueeze(1), map_crop=0)
        return encoding.scores, self.fuse_top_k(encoding.features, encoding.scores, top_k, labels)

    @torch.no_grad()
    def encode_crops(self, crops: Tensor, map_crop: int) -> Encoding:
        """The part of inference that all maps share: scores of every crop, F and the class maps of one of them.

        Args:
            crops: (B, n, 3, H, W) normalised crops.
            map_crop: index of the crop that maps will be made of.
        """
        batch, count = crops.shape[:2]
        features = self.f1(crops.flatten(0, 1))
        class_maps = self.f2(features)
        logits = global_average(class_maps).unflatten(0, (batch, count))
        return Encoding(
            logits=logits,
            scores=logits[:, map_crop],
            features=features.unflatten(0, (batch, count))[:, map_crop],
            class_maps=class_maps.unflatten(0, (batch, count))[:, map_crop],
        )


def _require(value: str | None, *known: str | None) -> None:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(map(repr, known))}")


def initialize_xavier(module: nn.Module) -> None:
    """Xavier-uniform convolutions with zero biases, batch normalisation at 1 and 0: all backbones but VGG16."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


class NothingDrawn(TorchFunctionMode):
    """Under it no weights are drawn, which on the meta device would take longer than on a real one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.uniform_ or func is Tensor.normal_ or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
