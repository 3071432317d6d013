"""Our bundles under MONAI's own commands: metadata verified, the workflow run, voxel for voxel what the command line writes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, verify_metadata, verify_net_in_out

from localdiff_cli.adapters.monai_unet import from_monai
from localdiff_cli.bundle import bundle_paths, open_bundle
from localdiff_cli.diffusion.fusion import LocalSettings, Process, Region, local
from localdiff_cli.diffusion.samplers import step_of
from localdiff_cli.diffusion.schedule import step_pairs
from localdiff_cli.monai_bundle.metadata import INFERENCE, MANDATORY, inference_config, monai_metadata
from tests.brains import write_brain

SCHEMA = Path(__file__).with_name("meta_schema.json")
VERIFIED = {"filepath": SCHEMA, "hash_val": hashlib.sha256(SCHEMA.read_bytes()).hexdigest(), "hash_type": "sha256"}
"""A file that is there is not fetched; its hash keeps MONAI from warning."""
ROOT = Path(__file__).resolve().parents[2]


def run_monai(folder, dataset, out, **options):
    """``python -m monai.bundle run`` on a bundle."""
    arguments = {"config_file": folder / INFERENCE, "meta_file": folder / "configs/metadata.json", "bundle_root": folder,
                 "dataset_dir": dataset, "output_dir": out, **options}  # fmt: skip
    words = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LOGNAME": "tests"}
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.glob("*.nii.gz"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    write_brain(folder / "sub-01_T1w.nii.gz", 3)
    return folder


@pytest.mark.parametrize("name", ["t1-to-t2", "lesion-t2"])
def test_what_a_bundle_is_written_with_satisfies_monai(models_folder, name):
    metadata = json.loads((models_folder / name / "configs/metadata.json").read_text())
    assert set(MANDATORY) <= set(metadata)
    verify_metadata(meta_file=models_folder / name / "configs/metadata.json", **VERIFIED)


@pytest.mark.parametrize("path", [p for name, p in bundle_paths().items() if p.parent == ROOT / "models"], ids=lambda path: path.name)
def test_every_shipped_bundle_satisfies_monai(path):
    verify_metadata(meta_file=path / "configs/metadata.json", **VERIFIED)
    metadata = json.loads((path / "configs/metadata.json").read_text())
    assert json.loads((path / INFERENCE).read_text()) == inference_config(metadata)


def test_the_test_schema_refuses_what_is_missing(models_folder, tmp_path):
    metadata = json.loads((models_folder / "t1-to-t2/configs/metadata.json").read_text())
    del metadata["network_data_format"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="network_data_format"):
        verify_metadata(meta_file=tmp_path / "metadata.json", **VERIFIED)


@pytest.mark.parametrize("name", ["t1-to-t2", "lesion-t2"])
def test_the_network_takes_and_gives_what_the_metadata_say(models_folder, name):
    folder = models_folder / name
    files = {"meta_file": folder / "configs/metadata.json", "config_file": folder / INFERENCE}
    verify_net_in_out(net_id="network_def", device="cpu", bundle_root=str(folder), **files)


def test_monai_runs_a_translator_to_the_voxels_of_the_command_line(models_folder, volumes, tmp_path, cli):
    (made,) = run_monai(models_folder / "t1-to-t2", volumes, tmp_path / "monai", seed=5)
    result = cli("translate", "--in", volumes, "--out", tmp_path / "ours", "--mode", "plain", "--suffix", "T2w", "--seed", 5)
    assert result.exit_code == 0, result.output
    ours = nib.load(tmp_path / "ours" / "sub-01_T2w.nii.gz")
    assert made.name == "sub-01_T2w.nii.gz"
    assert np.array_equal(nib.load(made).get_fdata(), ours.get_fdata())
    assert np.array_equal(nib.load(made).affine, ours.affine)


def test_monai_runs_a_segmenter_to_the_mask_of_the_command_line(models_folder, tmp_path, cli):
    write_brain(tmp_path / "in" / "sub-01_T2w.nii.gz", 4)
    (made,) = run_monai(models_folder / "lesion-t2", tmp_path / "in", tmp_path / "monai")
    assert cli("segment", "--in", tmp_path / "in", "--out", tmp_path / "ours").exit_code == 0
    mask = nib.load(tmp_path / "ours" / "sub-01_T2w.nii.gz").get_fdata()
    assert mask.any()
    assert np.array_equal(nib.load(made).get_fdata(), mask)


def test_monai_reads_a_translation_on_its_own_scale_as_the_command_does(models_folder, tmp_path, cli):
    write_brain(tmp_path / "in" / "sub-01_T1w.nii.gz", 4)
    assert cli("translate", "--in", tmp_path / "in", "--out", tmp_path / "t2", "--suffix", "T2w").exit_code == 0
    (made,) = run_monai(models_folder / "lesion-t2", tmp_path / "t2", tmp_path / "monai")
    assert cli("segment", "--in", tmp_path / "t2", "--out", tmp_path / "ours").exit_code == 0
    mask = nib.load(tmp_path / "ours" / "sub-01_T2w.nii.gz").get_fdata()
    assert mask.any()
    assert np.array_equal(nib.load(made).get_fdata(), mask)


def test_a_prepared_slice_gives_the_same_from_the_parsed_network(models_folder):
    parser = ConfigParser()
    parser.read_config(str(models_folder / "t1-to-t2" / INFERENCE))
    parser["bundle_root"] = str(models_folder / "t1-to-t2")
    network = parser.get_parsed_content("network_def")
    slices = torch.rand(2, 1, 48, 40, generator=torch.Generator().manual_seed(0))
    together = network(slices)
    assert together.shape == slices.shape
    assert torch.equal(network(slices[1:]), together[1:])
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1


def test_the_keys_of_monai_do_not_change_what_a_bundle_is(models_folder, tmp_path):
    bundle = open_bundle(str(models_folder / "t1-to-t2"))
    plain = {key: value for key, value in bundle.metadata.items() if key not in monai_metadata({**bundle.metadata, "version": "9.9.9"})}
    assert open_bundle(str(bundle.path)).hash == type(bundle)(**{**vars(bundle), "metadata": plain}).hash


def test_a_bundle_written_again_keeps_what_its_author_said(models_folder):
    metadata = dict(open_bundle(str(models_folder / "t1-to-t2")).metadata) | {"authors": "A. Person", "version": "2.0.0"}
    assert not {"authors", "version"} & set(monai_metadata(metadata))


ZOO = {
    "imports": ["$import torch"],
    "bundle_root": ".",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "spatial_dims": 2,
    "ckpt_path": "$@bundle_root + '/models/model.pt'",
    "network_def": {
        "_target_": "monai.networks.nets.DiffusionModelUNet", "spatial_dims": "@spatial_dims", "in_channels": 2, "out_channels": 1,
        "channels": [32, 32], "attention_levels": [False, True], "num_res_blocks": 1, "num_head_channels": 16,
    },
    "network": "$@network_def.to(@device)",
    "load": "$@network.load_state_dict(torch.load(@ckpt_path))",
    "noise_scheduler": {
        "_target_": "monai.networks.schedulers.DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0205,
        "schedule": "scaled_linear_beta", "clip_sample": False,
    },
    "inferer": {"_target_": "monai.inferers.DiffusionInferer", "scheduler": "@noise_scheduler"},
}  # fmt: skip
"""A configuration as the model zoo's generative bundles have it."""


def test_a_bundle_of_the_model_zoos_kind_is_sampled_by_local_diffusion(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "configs/inference.json").write_text(json.dumps(ZOO))
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "configs/inference.json"))
    torch.manual_seed(0)
    theirs = parser.get_parsed_content("network_def")
    torch.save(theirs.state_dict(), tmp_path / "models/model.pt")
    translator = from_monai(tmp_path / "models/model.pt", tmp_path / "configs/inference.json")
    x, condition, t = torch.randn(1, 1, 16, 16), torch.rand(1, 1, 16, 16), torch.tensor([500])
    assert torch.equal(translator.model(x, condition, t), theirs(torch.cat([x, 2 * condition - 1], dim=1), timesteps=t))
    scheduler = parser.get_parsed_content("noise_scheduler")
    assert torch.allclose(translator.schedule.alphas_cumprod.float(), scheduler.alphas_cumprod, atol=1e-6)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 4:9, 4:9] = True
    process = Process(translator.model, translator.schedule, step_of("ddim"), step_pairs(1000, 3), torch.zeros_like, space=translator.space)
    with torch.no_grad():
        drawn = local(process, condition, x, Region(mask, mask.float()), LocalSettings())
    assert drawn.isfinite().all()
