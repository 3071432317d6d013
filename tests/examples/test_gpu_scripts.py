"""The scripts for a card, tried on the CPU: the box of time, the pack of slices, what is installed, and one training from the pack."""

import csv
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from examples.gpu import adopt, check, missing, train
from examples.gpu.box import Box
from examples.gpu.pack import fitting, loosened, read_pack, squeezed, thinned, write_pack
from examples.gpu.train import KINDS, SHARES, OnCard, Training, carry_out, data_of, drawn_there, on_card, shared_out, swapped
from localdiff_cli.bundle import SEGMENTER, open_bundle, verify
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import UsageError
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.translator import translator_loss
from tests.training.data import slices

CPU = torch.device("cpu")


def table(box):
    with box.path.open() as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_rows_are_on_the_disk_at_once_and_a_part_that_breaks_does_not_stop_the_next(tmp_path, capsys):
    box = Box(tmp_path, "gpu", 60)
    seen = []

    def breaks():
        box.within("a", "difference", 0.5, 0.1)
        seen.append(table(box)[-1]["verdict"])
        raise RuntimeError("no card")

    box.run("a", 0, breaks)
    box.run("b", 0, lambda: box.within("b", "difference", 0.05, 0.1))
    assert seen == ["fails"]
    assert [(row["part"], row["verdict"]) for row in table(box) if row["verdict"]] == [("a", "fails"), ("a", "fails"), ("b", "holds")]
    assert "RuntimeError: no card" in box.path.read_text()
    assert box.failures == 2


def test_a_part_for_which_the_time_does_not_suffice_is_left_out_and_said(tmp_path):
    box = Box(tmp_path, "gpu", 10)
    box.run("long", 30, lambda: pytest.fail("was run"))
    assert table(box)[0]["verdict"] == "left out"
    assert box.failures == 0


@pytest.mark.parametrize("bits", [1, 9, 15])
def test_a_pack_gives_the_values_back_to_its_bits(bits):
    values = np.random.default_rng(0).integers(0, 65536, 5000).astype(np.uint16)
    values[:2] = 0, 65535
    found = loosened(squeezed(values, bits), bits)
    assert np.abs(found.astype(int) - values).max() <= 65535 / (2**bits - 1)
    assert found[:2].tolist() == [0, 65535]


def test_a_pack_holds_every_patient_as_it_was(tmp_path):
    patients = [slices("a", n=4), swapped([slices("b", "val", masked=False)])[0]]
    write_pack(patients, tmp_path / "p.npz", 12)
    for patient, found in zip(patients, read_pack(tmp_path / "p.npz"), strict=True):
        assert (found.name, found.split, found.masked) == (patient.name, patient.split, patient.masked)
        assert np.array_equal(found.brain, patient.brain)
        assert np.array_equal(found.lesion, patient.lesion)
        assert not found.target[~found.brain].any()
        assert np.abs(found.condition.astype(int) - patient.condition)[patient.brain].max() <= 16


def test_a_pack_over_its_limit_takes_fewer_slices_of_those_with_the_most(tmp_path):
    patients = [slices("many", n=40), slices("few", n=5)]
    whole = write_pack(patients, tmp_path / "whole.npz", 9)
    most, size = fitting(patients, tmp_path / "p.npz", 9, int(0.7 * whole))
    assert size == (tmp_path / "p.npz").stat().st_size <= 0.7 * whole
    assert [len(p.condition) for p in read_pack(tmp_path / "p.npz")] == [most, 5]
    assert thinned(patients[0], 3).lesion[-1].any()


def test_what_this_python_lacks_is_named_with_its_tested_version(monkeypatch):
    assert missing.missing() == []
    assert {"torch", "monai", "fill_voids"} <= set(missing.needed((missing.ROOT / "pyproject.toml").read_text()))
    monkeypatch.setattr(missing, "needed", lambda text: ["torch", "a-package-nobody-has", "Jinja2"])
    assert missing.missing() == ["a-package-nobody-has"]
    assert missing.pinned("jinja2", "x==1\nJinja2==3.1.6; python_version >= '3'\n") == "jinja2==3.1.6"


def test_slices_on_a_card_are_drawn_by_patient_and_only_those_chosen():
    held = on_card([slices("a", n=6), slices("b", n=3)], lambda p: p.lesion_free, CPU)
    assert held.planes.shape == (5 + 2, 4, 32, 32)
    assert held.weights.tolist() == pytest.approx([5**-0.5] * 5 + [2**-0.5] * 2)
    condition, target, brain, lesion = held.draw(8, torch.Generator().manual_seed(0))
    assert condition.shape == (8, 1, 32, 32)
    assert torch.equal(condition, target)
    assert not lesion.any()
    assert set(brain.unique().tolist()) == {0, 1}


def test_a_network_is_trained_from_the_pack_in_bfloat16_and_kept_with_both_figures(tmp_path):
    held = on_card([slices("a")], lambda p: p.lesion_free, CPU)
    assert isinstance(held, OnCard)

    def make():
        torch.manual_seed(0)
        return TranslatorNetwork(NetworkSettings(space_to_depth=8, channels=(32,), num_res_blocks=1, attention_levels=(False,)))

    def figure(network):
        return float(sum(p.detach().abs().sum() for p in network.parameters()))

    one = Training(
        "tiny", "translator", 2, 1e-3, make, lambda n: translator_loss(held, Schedule(), AugmentSettings(), n), figure, "size", False,
        data_of([slices("a")], held),
    )  # fmt: skip
    box = Box(tmp_path, "gpu-train", 600)
    carry_out(one, box, 0.0, CPU, None, compiled=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu-train.tsv", "tiny.translator.safetensors"]
    with safe_open(tmp_path / "tiny.translator.safetensors", "pt") as stored:
        account = json.loads(stored.metadata()["account"])
        assert stored.get_tensor(next(iter(stored.keys()))).dtype == torch.float16
    assert account["loop"]["precision"] == "bf16"
    assert (account["slices"], account["patients"]) == (5, {"train": ["a"], "val": []})
    assert account["shipped"] == figure(make())
    assert account["trained"] != account["shipped"]
    assert [row["verdict"] for row in table(box)] == ["", "holds", "better" if account["better"] else "not better"]


def test_a_rehearsal_takes_the_pack_that_is_named_and_leaves_it_as_it_is(tmp_path, monkeypatch):
    write_pack([slices("a", n=3)], tmp_path / "p.npz", 9)
    before, seen = (tmp_path / "p.npz").read_bytes(), []
    monkeypatch.setattr(train, "trainings", lambda flair, t2, device: seen.append([(p.name, len(p.condition)) for p in flair]) or [])
    monkeypatch.setattr("sys.argv", ["train", "--rehearse", "--pack", str(tmp_path / "p.npz"), "--out", str(tmp_path / "out")])
    assert train.main() == 0
    assert seen == [[("a", 3)]]
    assert (tmp_path / "p.npz").read_bytes() == before


def test_of_many_val_slices_a_few_are_watched_where_only_the_way_is_tried():
    planes = torch.arange(17 * 16)  # seventeen slices of each of sixteen people
    few = train.thinned_out(planes)
    assert len(set(few.tolist())) == 8
    assert torch.equal(few, train.thinned_out(planes))
    assert len({int(k) % 17 for k in few}) > 4
    assert sorted(train.thinned_out(planes[:5]).tolist()) == [0, 1, 2, 3, 4]


def test_the_loop_s_seed_decides_what_a_card_draws():
    def loss_of(network, generator):
        return torch.rand(3, generator=generator)

    loss = drawn_there(loss_of, CPU)
    first = loss(None, torch.Generator().manual_seed(4))
    assert torch.equal(first, loss(None, torch.Generator().manual_seed(4)))
    assert not torch.equal(first, loss(None, torch.Generator().manual_seed(5)))


def test_a_batch_is_shared_out_to_the_kinds_that_there_are():
    assert shared_out(192, [0.4, 0.2, 0.4]) == [78, 38, 76]
    assert shared_out(2, [0.4, 0.4]) == [1, 1]
    assert shared_out(1, [0.4, 0.2]) == [1, 0]
    bearing, others, healthy = (chosen for _, chosen in KINDS)
    sick, well = slices("a"), slices("b", masked=False)
    assert [int(kind(sick).sum()) for kind in (bearing, others, healthy)] == [1, 5, 0]
    assert [int(kind(well).sum()) for kind in (bearing, others, healthy)] == [0, 0, 6]


def test_shares_of_the_time_are_the_whole():
    assert sum(SHARES) == pytest.approx(1)


def test_the_check_of_a_training_finds_equal_what_is_equal():
    assert check.losses(CPU, 2) == check.losses(CPU, 2)


def test_weights_that_are_better_go_into_their_bundle_and_the_others_do_not(models_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    shipped = open_bundle(str(models_folder / "lesion-t2"))
    state = {key: value + 1 for key, value in load_file(models_folder / "lesion-t2" / SEGMENTER).items()}
    told = {"bundle": "lesion-t2", "part": "segmenter", "what": "Dice", "shipped": 0.5, "loop": {}, "curve": [[1, 0.5]], "seconds": 2.0}
    told |= {"slices": 7, "patients": {"train": ["sub-1"]}}
    for name, trained in (("better", 0.6), ("worse", 0.4)):
        account = told | {"trained": trained, "better": trained > 0.5}
        save_file(state, tmp_path / f"{name}.segmenter.safetensors", {"account": json.dumps(account)})
    assert adopt.account_of(tmp_path / "worse.segmenter.safetensors")["trained"] == 0.4
    monkeypatch.setattr("sys.argv", ["adopt", str(tmp_path), "--out", str(tmp_path / "models")])
    adopt.main()
    made = open_bundle(str(tmp_path / "models" / "lesion-t2"))
    assert made.metadata["files"] != shipped.metadata["files"]
    found = load_file(tmp_path / "models" / "lesion-t2" / SEGMENTER)
    assert all(torch.equal(found[key].float(), value.half().float()) for key, value in state.items())
    said = capsys.readouterr().out
    assert "better.segmenter.safetensors into" in said
    assert "worse.segmenter.safetensors left alone" in said
    assert "networks: built and filled" in verify(made)


def test_weights_of_another_origin_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="no account"):
        adopt.account_of(tmp_path / "x.safetensors")
