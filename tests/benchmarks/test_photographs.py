"""The photographs experiment on drawn parts: splits, masks, rows, a part that is not measured twice."""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import pytest
from skimage.io import imsave

from examples.benchmarks import photographs
from localdiff_cli.errors import UsageError
from tests.benchmarks.test_super_resolution import Blur, fused_at_the_end

LOCAL = (
    "local, true mask, network",
    "local, true mask, copy",
    "condition pasted into plain, true mask",
    "local, true mask, copy, as published",
)


@pytest.fixture
def folder(tmp_path):
    """One category of eight good parts (a textured disc) and three with a bright scratch."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    disc = (rows - 32) ** 2 + (columns - 32) ** 2 < 24**2
    for kind, count in (("good", 8), ("scratch", 3)):
        (tmp_path / "photos" / "disc" / "test" / kind).mkdir(parents=True)
        (tmp_path / "photos" / "disc" / "ground_truth" / kind).mkdir(parents=True)
        for k in range(count):
            image = np.where(disc, 90, 30)[..., None] + rng.integers(0, 20, (64, 64, 3))
            mask = np.zeros((64, 64), np.uint8)
            if kind != "good":
                mask[28:34, 20:44] = 255
                imsave(tmp_path / "photos" / "disc" / "ground_truth" / kind / f"{k:03}_mask.png", mask, check_contrast=False)
            imsave(tmp_path / "photos" / "disc" / "test" / kind / f"{k:03}.png", np.maximum(image, mask[..., None]).astype(np.uint8))
    return tmp_path / "photos"


def test_photographs_are_split_by_kind_and_come_with_their_masks(folder):
    read = photographs.read_photographs(folder)
    splits = [(p.kind, p.split) for p in read]
    assert splits[:4] == [("good", "train"), ("good", "train"), ("good", "val"), ("good", "test")]
    assert [split for kind, split in splits if kind == "scratch"] == ["val", "test", "test"]
    assert all(bool(p.mask.any()) == p.defective for p in read)
    assert float(read[-1].image[read[-1].mask].min()) == pytest.approx(1, abs=1e-6)
    assert len(photographs.good(read, "train")) == 4


def test_a_folder_without_good_photographs_or_a_mask_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="MVTec"):
        photographs.read_photographs(tmp_path / "nothing")
    (folder / "disc" / "ground_truth" / "scratch" / "001_mask.png").unlink()
    with pytest.raises(UsageError, match="001_mask"):
        photographs.read_photographs(folder)


def test_the_part_is_measured_once_and_its_rows_differ_as_they_should(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "obtain", lambda *_: Blur())
    named = {"true photograph", "plain", *LOCAL}
    rows = [fused_at_the_end(row) for row in photographs.ROWS if row.label in named]
    monkeypatch.setattr(photographs, "ROWS", tuple(rows))
    monkeypatch.setattr(photographs.sr, "Sampling", partial(photographs.sr.Sampling, steps=10))
    options = argparse.Namespace(data=[folder], split="test", most=None, work=tmp_path / "work")
    (table,) = photographs.measure(options)
    rows = {line["row"]: line for line in table.rows}
    true, plain, told, copied, pasted, published = (rows[name] for name in ("true photograph", "plain", *LOCAL))
    assert (true["defective"], true["good"]) == ("2", "2")
    assert true["misdetected defects %"] == "0.0"
    assert true["AUROC"] == "1.000"
    assert true["psnr"] == "n/a"
    assert plain["OOD region of defective %"] == "0.0"
    assert told["OOD region of defective %"] != "0.0"
    assert told["OOD region of good %"] == "0.0"
    assert len({line["psnr_defect"] for line in (true, plain, told, copied)}) == 4
    assert copied["psnr_defect"] == pasted["psnr_defect"] == published["psnr_defect"]
    assert copied["psnr"] != pasted["psnr"]
    monkeypatch.setattr(photographs.Bench, "judged", lambda *_: pytest.fail("measured again"))
    assert photographs.measure(options)[0].rows == table.rows


def test_a_smaller_measurement_takes_the_first_of_each_category_good_and_defective(folder):
    everybody = photographs.read_photographs(folder)
    all_of_test, few = (photographs.first(everybody, "test", most) for most in (None, 1))
    assert all_of_test == [p for p in everybody if p.split == "test"]
    assert [p.name for p in few if p.defective] == [p.name for p in all_of_test if p.defective][:1]
    assert [p.name for p in few if not p.defective] == [p.name for p in all_of_test if not p.defective][:1]


def test_misdetected_and_false_alarms_are_counted_apart():
    def case(defective, flagged):
        judged = {"defective": bool(defective), "flagged": bool(flagged), "score": 1.0 + flagged}
        return judged | {"psnr": 20.0, "psnr_defect": None, "ssim": 0.5, "ood": 0.1}

    truth = [True, True, True, True, False, False]
    own, plain = ([case(d, f) for d, f in zip(truth, flags, strict=True)] for flags in ([1, 1, 1, 0, 1, 0], [1, 0, 1, 0, 0, 0]))
    line = photographs.summary_row(photographs.Row("local", "truth"), own, plain)
    assert line["misdetected defects %"].startswith("25.0")
    assert line["false alarms %"].startswith("50.0")
    assert line["accuracy %"].startswith("66.7")
    assert line["fewer misdetected than plain %"].startswith("50.0")
    assert line["psnr_defect"] == "n/a"
