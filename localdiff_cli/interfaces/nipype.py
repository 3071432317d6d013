"""A nipype interface of ``localdiff translate``. Needs nipype, which is not among our own requirements:
``pip install nipype``."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import CommandLine, CommandLineInputSpec, File, TraitedSpec, traits

from localdiff_cli.volumes.contrast import beside, sidecar_path


class TranslateInputSpec(CommandLineInputSpec):
    """The options of ``localdiff translate`` that a workflow sets; others go into ``args``."""

    in_file = File(exists=True, mandatory=True, argstr="--in %s", desc="volume to translate")
    out_dir = traits.Str("translated", argstr="--out %s", usedefault=True, desc="folder for the output, in the node's own")
    model = traits.Str("t1-to-flair", argstr="--model %s", usedefault=True, desc="bundle by name or folder")
    mode = traits.Enum("local", "plain", argstr="--mode %s", desc="Local Diffusion, or the ordinary sampler")
    brain = traits.Either(traits.Enum("auto", "none"), File(exists=True), argstr="--brain %s", desc="brain mask, auto or none")
    seed = traits.Range(low=0, argstr="--seed %d", desc="seed of all noise")
    steps = traits.Range(low=1, argstr="--steps %d", desc="reverse steps")
    save_map = traits.Bool(argstr="--save-map", desc="also write the OOD map")


class TranslateOutputSpec(TraitedSpec):
    """What was written."""

    out_file = File(exists=True, desc="the translation, on the grid of the input")
    sidecar = File(exists=True, desc="JSON with everything that decided it")
    ood_map = File(desc="the OOD map, where it was asked for")


class Translate(CommandLine):
    """``localdiff translate`` on one volume.

    Example: ``Translate(in_file="sub-01_T1w.nii.gz", model="t1-to-flair").run().outputs.out_file``
    """

    input_spec = TranslateInputSpec
    output_spec = TranslateOutputSpec
    _cmd = "localdiff translate --jobs 0"

    def _list_outputs(self) -> dict[str, object]:
        out_file = Path(self.inputs.out_dir).absolute() / Path(self.inputs.in_file).name
        outputs = self.output_spec().get()
        outputs |= {"out_file": str(out_file), "sidecar": str(sidecar_path(out_file))}
        if self.inputs.save_map is True:
            outputs["ood_map"] = str(beside(out_file, "ood"))
        return outputs
