"""MONAI's ``DiffusionModelUNet`` as a translator: weights with a JSON configuration, a bundle's own or the bare arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from localdiff_cli.adapters.files import fill, read_tensors, unusable
from localdiff_cli.adapters.monai_config import Config, arguments_of, read_config
from localdiff_cli.adapters.translator import (
    Blocks,
    Channels,
    ConcatenatedNetwork,
    ConditionValue,
    Epsilon,
    HeadChannels,
    OneOut,
    Translator,
    TwoIn,
)
from localdiff_cli.diffusion.network import Levels
from localdiff_cli.diffusion.schedule import PREDICTIONS, Schedule
from localdiff_cli.startup import load_monai

NAME = "DiffusionModelUNet"
LAYOUT = ("condition_range", "condition_first")
TURNED_OFF: dict[str, tuple[Any, ...]] = {
    "spatial_dims": (2,),
    "with_conditioning": (False,),
    "cross_attention_dim": (None,),
    "num_class_embeds": (None,),
}
"""Arguments that can only be this: the condition enters as channels of a 2D image."""
WITHOUT_EFFECT = ("transformer_num_layers", "dropout_cattn")
"""Arguments of the cross-attention that is turned off."""
SAMPLING = ("variance_type", "set_alpha_to_one", "steps_offset", "clip_sample", "clip_sample_min", "clip_sample_max")
"""What a MONAI scheduler says about sampling, not about the training."""


@dataclass(frozen=True)
class MonaiUNetSettings:
    """The arguments of MONAI's network that a translator may have, and how the condition enters (see :class:`UNetSettings`)."""

    in_channels: TwoIn
    out_channels: OneOut
    num_res_blocks: tuple[Blocks, ...] = (2, 2, 2, 2)
    channels: Levels = (32, 64, 64, 64)
    attention_levels: tuple[bool, ...] = (False, False, True, True)
    norm_num_groups: Channels = 32
    norm_eps: Epsilon = 1e-6
    resblock_updown: bool = False
    num_head_channels: tuple[HeadChannels, ...] = (8, 8, 8, 8)
    upcast_attention: bool = False
    include_fc: bool = True
    use_combined_linear: bool = False
    use_flash_attention: bool = False
    condition_range: tuple[ConditionValue, ConditionValue] = (-1.0, 1.0)
    condition_first: bool = False

    @property
    def multiple(self) -> int:
        """Rows and columns of the input must be a multiple of this."""
        return int(2 ** (len(self.channels) - 1))

    def build(self) -> ConcatenatedNetwork:
        """Return the network with random weights."""
        load_monai()
        from monai.networks.nets import DiffusionModelUNet

        arguments = {key: value for key, value in asdict(self).items() if key not in LAYOUT}
        return MonaiNetwork(DiffusionModelUNet(spatial_dims=2, **arguments), self)


class MonaiNetwork(ConcatenatedNetwork):
    """``unet`` is MONAI's."""

    def predict(self, stacked: Tensor, t: Tensor) -> Tensor:
        """See :class:`ConcatenatedNetwork`."""
        return self.unet(stacked, timesteps=t)


def from_monai(
    weights: Path,
    config: Config,
    *,
    schedule: Schedule | None = None,
    condition_range: tuple[float, float] = (-1.0, 1.0),
    condition_first: bool = False,
) -> Translator:
    """Return the translator of MONAI ``weights`` (``.safetensors``, or ``.pt`` of tensors only) and their ``config``.

    ``config``: a bundle's configuration with the network and its DDPM or DDIM scheduler, or the network's arguments alone.
    ``schedule`` replaces the scheduler, and is needed where there is none. ``condition_range``: what the network took the
    condition's [0, 1] as (a latent condition: (0, 1), as it is). Raise :class:`ModelError` for anything that cannot be
    represented.
    """
    written = read_config(config)
    arguments = arguments_of(written, NAME)
    layout = {"condition_range": condition_range, "condition_first": condition_first}
    if arguments is None and any(isinstance(value, Mapping) for value in written.values()):
        raise unusable(NAME, f"a configuration of {', '.join(written)}", f"one with a {NAME}, or its arguments alone")
    settings = unet_settings(dict(written) if arguments is None else arguments, layout)
    found, clip = (schedule, True) if schedule is not None else monai_schedule(written)
    network = settings.build()
    fill(network.unet, read_tensors(weights), weights)
    return Translator(network, found, clip)


def unet_settings(arguments: Mapping[str, Any], layout: Mapping[str, Any]) -> MonaiUNetSettings:
    """Return settings from MONAI's arguments. Raise :class:`ModelError` for those that no translator can have."""
    arguments = {"channels" if name == "num_channels" else name: value for name, value in arguments.items()}  # MONAI Generative's name
    for name, allowed in TURNED_OFF.items():
        if arguments.get(name, allowed[0]) not in allowed:
            raise unusable(NAME, f"{name} = {arguments[name]!r}", f"{allowed[0]}: the condition as channels of a 2D image")
    known = {f.name for f in fields(MonaiUNetSettings)} - set(LAYOUT)
    unknown = set(arguments) - known - set(TURNED_OFF) - set(WITHOUT_EFFECT)
    if unknown or not {"in_channels", "out_channels"} <= set(arguments):
        raise unusable(NAME, f"arguments {sorted(arguments)}", f"in_channels, out_channels and others of {sorted(known)}")
    if arguments["in_channels"] <= arguments["out_channels"]:
        raise unusable(NAME, "as many channels in as out", "a conditional network: channels for x_t and for the condition")
    levels = len(arguments.get("channels", MonaiUNetSettings.channels))
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items() if name in known
    }
    for name in ("num_res_blocks", "num_head_channels"):  # MONAI takes one number for all levels
        value = values.get(name, getattr(MonaiUNetSettings, name))
        values[name] = (value,) * levels if isinstance(value, int) else value
    return MonaiUNetSettings(**values, **layout)


def monai_schedule(config: Mapping[str, Any]) -> tuple[Schedule, bool]:
    """Return the schedule, and whether x_0 estimates are clipped, of a configuration's DDPM or DDIM scheduler."""
    found = [values for name in ("DDPMScheduler", "DDIMScheduler") if (values := arguments_of(config, name)) is not None]
    if len(found) != 1:
        raise unusable(NAME, f"{len(found)} DDPM and DDIM schedulers in the configuration", "one, or schedule=Schedule(...)")
    values = found[0]
    names = {"schedule": "name", "prediction_type": "prediction"}
    trained = {names.get(key, key): value for key, value in values.items() if key not in SAMPLING}
    trained = {"prediction": "epsilon"} | trained
    unknown = set(trained) - {f.name for f in fields(Schedule)}
    if unknown or trained["prediction"] not in PREDICTIONS or "learned" in str(values.get("variance_type")):
        raise unusable("scheduler", f"{values}", f"betas, and a prediction of {', '.join(PREDICTIONS)}")
    if (values.get("clip_sample_min", -1), values.get("clip_sample_max", 1)) != (-1, 1) and values.get("clip_sample", True):
        raise unusable("scheduler", "estimates clipped to another range", "[-1, 1], the range of a target")
    schedule = Schedule(**trained)
    try:
        schedule.alphas_cumprod  # noqa: B018
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise unusable("scheduler", f"{values} ({error})", "the name and the betas of a MONAI noise schedule") from error
    return schedule, bool(values.get("clip_sample", True))
