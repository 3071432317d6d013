"""A diffusers ``UNet2DModel`` with its DDPM or DDIM scheduler as a translator, from a local folder (extra: ``diffusers``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from localdiff_cli.adapters.files import read_json, unusable
from localdiff_cli.adapters.translator import Blocks, Channels, ConcatenatedNetwork, ConditionValue, Epsilon, OneOut, Translator, TwoIn
from localdiff_cli.diffusion.network import Levels
from localdiff_cli.diffusion.schedule import PREDICTIONS, GivenSchedule
from localdiff_cli.errors import ModelError

UNET, SCHEDULER = "UNet2DModel", ("DDPMScheduler", "DDIMScheduler")
LAYOUT = ("condition_range", "condition_first")
TURNED_OFF: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "mid_block_type": ("UNetMidBlock2D",),
    "attn_norm_num_groups": (None,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
"""Arguments that can only be this: no classes, no continuous noise levels, no range of its own for the input."""
WITHOUT_EFFECT = ("sample_size", "num_train_timesteps")
BLOCKS = (
    "DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D",
)  # fmt: skip


@dataclass(frozen=True)
class DiffusersUNetSettings:
    """The arguments of diffusers' network that a translator may have, and how the condition enters (see
    :class:`UNetSettings`)."""

    in_channels: TwoIn
    out_channels: OneOut
    freq_shift: Annotated[int, Field(ge=0, le=1)] = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: Levels = (224, 448, 672, 896)
    layers_per_block: Blocks = 2
    mid_block_scale_factor: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    downsample_padding: Annotated[int, Field(ge=0, le=1)] = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    dropout: Annotated[float, Field(ge=0, le=0.99)] = 0.0
    act_fn: str = "silu"
    attention_head_dim: Channels | None = 8
    norm_num_groups: Channels = 32
    norm_eps: Epsilon = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: bool = True
    condition_range: tuple[ConditionValue, ConditionValue] = (-1.0, 1.0)
    condition_first: bool = False

    def __post_init__(self) -> None:
        others = {*self.down_block_types, *self.up_block_types} - set(BLOCKS)
        if others:
            raise ValueError(f"blocks {sorted(others)}; expected only {', '.join(BLOCKS)}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return self.block_out_channels

    @property
    def multiple(self) -> int:
        """Rows and columns of the input must be a multiple of this."""
        return int(2 ** (len(self.block_out_channels) - 1))

    def build(self) -> ConcatenatedNetwork:
        """Return the network with random weights. Raise :class:`ModelError` where diffusers is not installed."""
        arguments = {key: value for key, value in asdict(self).items() if key not in LAYOUT}
        return DiffusersNetwork(_library().UNet2DModel(**arguments), self)


class DiffusersNetwork(ConcatenatedNetwork):
    """``unet`` is diffusers'."""

    def predict(self, stacked: Tensor, t: Tensor) -> Tensor:
        """See :class:`ConcatenatedNetwork`."""
        return self.unet(stacked, t, return_dict=False)[0]


def from_diffusers(folder: Path, *, condition_range: tuple[float, float] = (-1.0, 1.0), condition_first: bool = False) -> Translator:
    """Return the translator in a pipeline's ``folder``: ``unet`` (config.json, safetensors) and ``scheduler``
    (scheduler_config.json).

    Nothing is fetched, and no code of the folder is run. ``condition_range``: what the network took the condition's [0, 1]
    as (a latent condition: (0, 1), as it is). Raise :class:`ModelError` for anything that cannot be represented.
    """
    layout = {"condition_range": condition_range, "condition_first": condition_first}
    settings = unet_settings(read_json(folder / "unet" / "config.json"), layout)
    schedule, clip = diffusers_schedule(read_json(folder / "scheduler" / "scheduler_config.json"))
    network = DiffusersNetwork(_load(folder / "unet"), settings)
    return Translator(network.eval().requires_grad_(False), schedule, clip)


def unet_settings(config: Mapping[str, Any], layout: Mapping[str, Any]) -> DiffusersUNetSettings:
    """Return settings from a network's configuration. Raise :class:`ModelError` for those that no translator can have."""
    config = {key: value for key, value in config.items() if key == "_class_name" or not key.startswith("_")}
    if config.pop("_class_name", None) != UNET:
        raise unusable("unet", "another network", f"{UNET}, the condition concatenated to x_t")
    for name, allowed in TURNED_OFF.items():
        if config.get(name, allowed[0]) not in allowed:
            raise unusable(UNET, f"{name} = {config[name]!r}", f"{allowed[0]!r}")
    known = {f.name for f in fields(DiffusersUNetSettings)} - set(LAYOUT)
    unknown = set(config) - known - set(TURNED_OFF) - set(WITHOUT_EFFECT)
    if unknown or not {"in_channels", "out_channels"} <= set(config):
        raise unusable(UNET, f"arguments {sorted(config)}", f"in_channels, out_channels and others of {sorted(known)}")
    if config["in_channels"] <= config["out_channels"]:
        raise unusable(UNET, "as many channels in as out", "a conditional network: channels for x_t and for the condition")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items() if name in known}
    try:
        return DiffusersUNetSettings(**values, **layout)
    except (TypeError, ValueError) as error:
        raise unusable(UNET, f"{error}", "arguments that a translator may have") from error


def diffusers_schedule(config: Mapping[str, Any]) -> tuple[GivenSchedule, bool]:
    """Return the schedule, with ᾱ as diffusers computes it, and whether x_0 estimates are clipped."""
    name, prediction = config.get("_class_name"), config.get("prediction_type", "epsilon")
    if name not in SCHEDULER:
        raise unusable("scheduler", f"{name}", f"{' or '.join(SCHEDULER)}, whose betas the network was trained with")
    if prediction not in PREDICTIONS or "learned" in str(config.get("variance_type")):
        raise unusable("scheduler", f"prediction {prediction}, variance {config.get('variance_type')}", f"{', '.join(PREDICTIONS)}, fixed")
    clip = config.get("clip_sample", True)
    if config.get("thresholding", False) or (clip and config.get("clip_sample_range", 1.0) != 1.0):
        raise unusable("scheduler", "dynamic thresholds or estimates clipped to another range", "[-1, 1], the range of a target")
    try:
        arguments = {key: value for key, value in config.items() if not key.startswith("_")}
        bars = getattr(_library(), name).from_config(arguments).alphas_cumprod.double().tolist()
        schedule = GivenSchedule(num_train_timesteps=len(bars), prediction=prediction, alpha_bars=tuple(bars))
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise unusable("scheduler", f"betas that make no schedule ({error})", "falling signal") from error
    return schedule, bool(clip)


def _library() -> Any:
    try:
        import diffusers
    except ImportError as error:
        todo = "pip install 'localdiff[diffusers]'"
        raise ModelError(f"diffusers cannot be imported ({error}); this model needs it: {todo}", code="adapter") from error
    return diffusers


def _load(folder: Path) -> Any:
    """The network with every weight from the folder: diffusers itself would fill in missing ones at random."""
    try:
        network, report = _library().UNet2DModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise unusable(folder, f"no usable network ({str(error)[:300]})", "config.json with its safetensors weights") from error
    wrong = {kind: names for kind, names in report.items() if names}
    if wrong:
        raise unusable(folder, f"weights that do not fit the configuration ({str(wrong)[:300]})", "matching ones")
    for parameter in network.parameters():  # mapped from the file they lie unaligned, and the last bits of a product depend on that
        parameter.data = parameter.data.clone()
    return network
