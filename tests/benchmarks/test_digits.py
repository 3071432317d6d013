"""The digits experiment on drawn digits in IDX files of the test: reading, splits, rows, a part that is not measured twice."""

from __future__ import annotations

import argparse
import gzip
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from examples.benchmarks import digits, weights
from localdiff_cli.errors import UsageError
from tests.benchmarks.test_super_resolution import Blur, fused_at_the_end

LOCAL = (
    "local, patchcore, fusion_step 2",
    "local, oracle, fusion_step 2",
    "local, oracle, copy",
    "condition pasted into plain, oracle",
    "local, oracle, copy, as published",
)


class AlwaysEight(torch.nn.Module):
    """A classifier that names every digit 8."""

    def forward(self, image):
        return torch.eye(10)[8].expand(len(image), 10)


def write_idx(path, values):
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


@pytest.fixture
def folder(tmp_path):
    """120 drawn digits: a bright square whose place and size tell the class."""
    labels = np.array([8, 3, 5, 1, 8, 3, 5, 0, 8, 3, 5, 2]).repeat(10)
    images = np.zeros((120, 28, 28), np.uint8)
    for k, label in enumerate(labels):
        images[k, 4 + label : 10 + label, 4 + k % 5 : 20] = 255
    (tmp_path / "mnist").mkdir()
    write_idx(tmp_path / "mnist" / "t10k-images.gz", images)
    write_idx(tmp_path / "mnist" / "t10k-labels.gz", labels)
    return tmp_path / "mnist"


@pytest.fixture
def options(folder, tmp_path, monkeypatch):
    networks = {"digits-4x": Blur(), "digits-classifier": AlwaysEight()}
    monkeypatch.setattr(digits, "obtain", lambda training, *_: networks[training.name])
    monkeypatch.setattr(digits, "Detecting", partial(digits.Detecting, scale=1.0, bank=50))
    monkeypatch.setattr(digits, "FACTORS", (4,))
    kept = {"true digit", "condition alone", "plain", "plain, as published", *LOCAL}
    rows = [fused_at_the_end(row) for row in digits.ROWS if row.label in kept]
    monkeypatch.setattr(digits, "ROWS", tuple(rows))
    monkeypatch.setattr(digits.sr, "Sampling", partial(digits.sr.Sampling, steps=10))
    monkeypatch.setattr(digits, "features", lambda images: images[:, 0].mean(dim=1).double().numpy())
    return argparse.Namespace(data=[folder], split="test", most=None, work=tmp_path / "work")


def test_digits_are_read_with_a_margin_and_split_by_their_place(folder):
    read = digits.read_digits(folder)
    assert read.images.shape == (120, 1, 32, 32)
    assert float(read.images.max()) == 1
    assert not read.images[..., :2, :].any()
    parts = {split: read.part(split, tuple(range(10))).places for split in digits.ENDINGS}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(120))
    assert [len(parts[split]) for split in ("train", "val", "test")] == [72, 24, 24]
    few = read.part("test", (5, 8), 2)
    assert few.labels.tolist() == [5, 5, 8, 8]


def test_a_file_that_is_no_idx_is_refused(folder):
    (folder / "t10k-labels.gz").write_bytes(gzip.compress(b"not idx at all"))
    with pytest.raises(UsageError, match="IDX"):
        digits.read_digits(folder)
    (folder / "t10k-labels.gz").write_bytes(b"plain")
    with pytest.raises(UsageError, match="gzip"):
        digits.read_digits(folder)
    (folder / "t10k-labels.gz").unlink()
    with pytest.raises(UsageError, match="labels"):
        digits.read_digits(folder)


def test_the_networks_see_only_what_they_may(folder):
    read = digits.read_digits(folder)
    eights = read.part("train", (8,))
    assert digits.upsampler_training(read, 2).identity["images_sha256"] == weights.digest_of(eights.images.numpy())
    changed = replace(read, images=torch.where(torch.from_numpy(read.labels == 8)[:, None, None, None], read.images, 1 - read.images))
    assert digits.upsampler_training(changed, 2).digest == digits.upsampler_training(read, 2).digest
    assert digits.classifier_training(changed).digest != digits.classifier_training(read).digest


def test_the_part_is_measured_once_and_its_rows_differ_as_they_should(options, monkeypatch):
    (table,) = digits.measure(options)
    rows = {line["row"]: line for line in table.rows}
    true, small, plain = (rows[name] for name in ("true digit", "condition alone", "plain"))
    found, oracle, copied, pasted, copied_as_published = (rows[name] for name in LOCAL)
    assert true["psnr"] == "n/a"
    assert float(true["ssim"].split(" ")[0]) == pytest.approx(1)
    assert (plain["called 8 %"], plain["misclassified %"], plain["8s misclassified %"]) == ("100.0", "100.0", "0.0")
    assert plain["OOD region %"] == "0.0"
    assert plain["psnr"] != oracle["psnr"]
    assert oracle["OOD region %"] != "0.0"
    assert found["fewer misclassified than plain %"] == "0.0"
    assert len({line["psnr"] for line in (small, plain, oracle, copied, pasted, copied_as_published)}) == 6
    assert copied["OOD region %"] == pasted["OOD region %"] == oracle["OOD region %"]
    assert float(copied_as_published["OOD region %"]) < float(oracle["OOD region %"])
    assert table.settings["digits"] == {"3": 6, "5": 6, "8": 6}
    monkeypatch.setattr(digits.Bench, "judged", lambda *_: pytest.fail("measured again"))
    assert digits.measure(options)[0].rows == table.rows


def test_misclassified_is_of_the_unseen_classes_and_compared_with_plain():
    def case(named):
        same = {"psnr": [10.0] * 6, "ssim": [0.5] * 6, "ood": [0.0] * 4 + [0.5] * 2, "fid": None, "fid_missing": "too few"}
        return {"label": [3, 3, 5, 5, 8, 8], "named": named, **same}

    line = digits.summary_row(digits.Row("local", "oracle"), case([3, 8, 5, 5, 8, 1]), case([8, 8, 5, 3, 8, 8]))
    assert line["misclassified %"].startswith("25.0")
    assert line["called 8 %"].startswith("25.0")
    assert line["fewer misclassified than plain %"].startswith("66.7")
    assert line["8s misclassified %"].startswith("50.0")
    assert line["FID"] == "n/a (too few)"
    assert line["OOD region of 8s %"] == "50.0"
