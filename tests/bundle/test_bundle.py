"""Bundles on disk: what is written is what is read, and nothing else is touched, run or believed."""

import hashlib
import json
import pickle
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from localdiff_cli.bundle import (
    DETECTOR,
    MAX_METADATA_BYTES,
    METADATA,
    TRANSLATOR,
    Defaults,
    bundle_folders,
    bundle_paths,
    copy_bundle,
    detector_bundle,
    load_detector,
    load_segmenter,
    load_tensors,
    load_translator,
    open_bundle,
    save_bundle,
    schedule_of,
    store,
    verify,
    weight_file,
    with_defaults,
)
from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.ood.patchcore import MemoryBank
from tests import bundles

CPU = torch.device("cpu")


@pytest.fixture
def bundle(models_folder, tmp_path):
    """The folder of a copy of the tiny translator, free to be damaged."""
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "t1-to-t2")
    return tmp_path / "t1-to-t2"


@pytest.fixture
def segmenter(models_folder, tmp_path):
    shutil.copytree(models_folder / "lesion-t2", tmp_path / "lesion-t2")
    return tmp_path / "lesion-t2"


def metadata(folder):
    return json.loads((folder / METADATA).read_text())


def change(folder, **values):
    """Write metadata with other values; a dict is merged into the one that is there."""
    old = metadata(folder)
    merged = {key: {**old.get(key, {}), **value} if isinstance(value, dict) else value for key, value in values.items()}
    (folder / METADATA).write_text(json.dumps(old | merged))


def replace_weights(folder, name, raw):
    """Other bytes in a weight file, with the hash that makes them look right."""
    (folder / name).write_bytes(raw)
    change(folder, files={name: hashlib.sha256(raw).hexdigest()})


def refused(action, *words):
    """The message of the ModelError that ``action`` raises."""
    with pytest.raises(ModelError) as error:
        action()
    assert error.value.exit_code == 4
    for word in words:
        assert str(word) in str(error.value)
    return str(error.value)


def test_what_is_saved_is_what_is_opened(bundle):
    opened = open_bundle(str(bundle))
    assert (opened.name, opened.task, opened.bias, opened.brain) == ("t1-to-t2", "translate", "none", "required")
    assert (opened.condition.contrast, opened.condition.window, opened.target.contrast) == ("T1w", (-6, 6), "T2w")
    assert (opened.grid.spacing, opened.grid.shape) == (4.0, (48, 40))
    assert opened.defaults == Defaults(steps=3, false_alarm=0.05, open_mm=0.0, dilate_mm=0.0)
    assert load_translator(opened, CPU).settings == bundles.NETWORK
    assert schedule_of(opened).num_train_timesteps == 1000
    assert load_detector(opened, 0.05, CPU).bank.embeddings.shape[0] == 300


def test_the_network_loaded_computes_with_exactly_the_half_precision_weights_of_the_file(bundle):
    opened = open_bundle(str(bundle))
    stored = load_file(bundle / TRANSLATOR)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    network = load_translator(opened, CPU)
    for key, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[key].float()), key
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training
    assert all(not tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))


def test_a_tensor_beyond_half_precision_keeps_its_values(tmp_path, bundle):
    tensors = {"embeddings": torch.tensor([[1.0, 2.0], [70000.0, 3.0]])}
    save_bundle(bundle, {}, {DETECTOR: tensors}, "card")
    assert torch.equal(load_tensors(open_bundle(str(bundle)), DETECTOR)["embeddings"], tensors["embeddings"])


@pytest.mark.parametrize(
    "values",
    [
        {"defaults": {"steps": 4}},
        {"condition": {"window": [-5, 6]}},
        {"network": {"num_res_blocks": 2}},
        {"bias": "n4"},
        {"schedule": {"name": "cosine"}},
    ],
    ids=lambda values: next(iter(values)),
)
def test_the_hash_changes_with_everything_that_decides_a_result(bundle, values):
    before = open_bundle(str(bundle)).hash
    change(bundle, **values)
    assert open_bundle(str(bundle)).hash != before


def test_the_hash_changes_with_the_weights(bundle):
    before = open_bundle(str(bundle)).hash
    tensors = {key: value + 0.01 for key, value in load_file(bundle / TRANSLATOR).items()}
    assert save_bundle(bundle, {}, {TRANSLATOR: tensors}, "card").hash != before


def test_the_hash_does_not_change_with_card_results_training_account_or_place(bundle, tmp_path):
    before = open_bundle(str(bundle)).hash
    (bundle / "README.md").write_text("another card")
    change(bundle, results={"test": {"rows": [{"PSNR": 30}]}}, training={"translator": {}}, licence="CC0")
    bundle.rename(tmp_path / "elsewhere")
    assert open_bundle(str(tmp_path / "elsewhere")).hash == before


def test_a_part_added_to_a_bundle_leaves_the_other_parts_as_they_were(tmp_path):
    made = bundles.make_translator(tmp_path / "b", detector=False)
    weights, network = (tmp_path / "b" / TRANSLATOR).read_bytes(), made.metadata["network"]
    assert not made.has_detector
    refused(lambda: load_detector(made, 0.02, CPU), "--map", "localdiff fit detector")
    calibration = {"levels": [0.0, 1.0], "values": [0.0, 1.0], "sigma_a": 0.1}
    detector = {"backbone": "efficientnet-lite0", "input_scale": 1.0, "calibration": calibration}
    joined = save_bundle(tmp_path / "b", {"detector": detector}, {DETECTOR: MemoryBank(torch.rand(5, 152)).to_tensors()}, "card")
    assert (tmp_path / "b" / TRANSLATOR).read_bytes() == weights
    assert joined.metadata["network"] == network
    assert joined.has_detector
    assert len(verify(joined)) == 3


@pytest.mark.parametrize("name", [TRANSLATOR, DETECTOR])
def test_a_changed_weight_file_is_refused(bundle, name):
    raw = bytearray((bundle / name).read_bytes())
    raw[-1] ^= 1
    (bundle / name).write_bytes(raw)
    refused(lambda: verify(open_bundle(str(bundle))), bundle / name, "SHA-256")


def test_a_missing_weight_file_is_refused(bundle):
    (bundle / TRANSLATOR).unlink()
    refused(lambda: load_translator(open_bundle(str(bundle)), CPU), bundle / TRANSLATOR, "no such weights")


def test_weights_without_a_hash_are_refused(bundle):
    (bundle / METADATA).write_text(json.dumps(metadata(bundle) | {"files": {}}))
    refused(lambda: load_translator(open_bundle(str(bundle)), CPU), bundle / TRANSLATOR)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_link_that_leads_out_of_the_bundle_is_refused(bundle, tmp_path, place):
    outside = tmp_path / "outside"
    shutil.copytree(bundle / "models", outside)
    if place == "file":
        (bundle / TRANSLATOR).unlink()
        (bundle / TRANSLATOR).symlink_to(outside / "translator.safetensors")
    else:
        shutil.rmtree(bundle / "models")
        (bundle / "models").symlink_to(outside)
    refused(lambda: load_translator(open_bundle(str(bundle)), CPU), bundle / TRANSLATOR, "leads elsewhere")


def test_metadata_that_are_a_link_out_of_the_bundle_are_refused_unread(bundle, tmp_path):
    secret = tmp_path / "secret.json"
    (bundle / METADATA).rename(secret)
    (bundle / METADATA).symlink_to(secret)
    refused(lambda: open_bundle(str(bundle)), bundle / METADATA, "leads elsewhere")


@pytest.mark.parametrize("name", ["../outside", "models/../../outside", "/{tmp}/outside", "models/\0x", "x" * 5000])
def test_a_file_name_that_leads_out_of_the_bundle_is_refused_unread(bundle, tmp_path, monkeypatch, name):
    name = name.replace("/{tmp}", str(tmp_path))
    (tmp_path / "outside").write_bytes(b"secret")
    change(bundle, files={name: hashlib.sha256(b"secret").hexdigest()})
    opened = open_bundle(str(bundle))
    monkeypatch.setattr("localdiff_cli.bundle.store.file_hash", lambda path: pytest.fail(f"{path} was read"))
    refused(lambda: weight_file(opened, name), bundle.parent, "leads elsewhere")


def test_verify_refuses_a_bundle_that_lists_a_file_outside(bundle, tmp_path):
    (tmp_path / "outside").write_bytes(b"secret")
    change(bundle, files={"../outside": hashlib.sha256(b"secret").hexdigest()})
    refused(lambda: verify(open_bundle(str(bundle))), "leads elsewhere")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"format": 2}, "format"),
        ({"format": None}, "format"),
        ({"task": "paint"}, "task"),
        ({"task": ["translate"]}, "task"),
        ({"name": 3}, "name"),
        ({"name": "a\x1b[2J"}, "name"),
        ({"bias": "magic"}, "bias"),
        ({"brain": None}, "brain"),
        ({"condition": "T1w"}, "Contrast"),
        ({"condition": None}, "Contrast"),
        ({"condition": {"contrast": "../../x"}}, "contrast"),
        ({"condition": {"window": [1]}}, "window"),
        ({"condition": {"window": [6, -6]}}, "window"),
        ({"condition": {"window": ["a", "b"]}}, "window"),
        ({"condition": {"window": [float("nan"), 1]}}, "window"),
        ({"condition": {"colour": 1}}, "unknown settings"),
        ({"grid": {"shape": [10**9, 10**9]}}, "shape"),
        ({"grid": {"shape": [0, 40]}}, "shape"),
        ({"grid": {"shape": 48}}, "shape"),
        ({"grid": {"spacing": 1e-9}}, "spacing"),
        ({"grid": {"spacing": "1"}}, "spacing"),
        ({"grid": {"plane": "sagittal"}}, "plane"),
        ({"files": [1]}, "files"),
        ({"files": 3}, "files"),
        ({"detector": 3}, "detector"),
        ({"network": [1]}, "network"),
        ({"defaults": "all"}, "defaults"),
    ],
)
def test_metadata_of_another_kind_are_refused_when_the_bundle_is_opened(bundle, values, word):
    change(bundle, **values)
    refused(lambda: open_bundle(str(bundle)), bundle, word)


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 10**12},
        {"steps": 2.5},
        {"steps": True},
        {"eta": -1},
        {"eta": float("nan")},
        {"context": 2},
        {"fusion_step": -1},
        {"sampler": "magic"},
        {"detector": "oracle"},
        {"false_alarm": 0},
        {"open_mm": 1e9},
        {"dilate_mm": float("inf")},
        {"soft": 1},
        {"threshold": "0.5"},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_absurd_defaults_are_refused(bundle, values):
    change(bundle, defaults=values)
    opened = open_bundle(str(bundle))
    refused(lambda: opened.defaults, bundle)
    refused(lambda: verify(opened), bundle)


@pytest.mark.parametrize(
    "values",
    [
        {"num_train_timesteps": 10**12},
        {"beta_end": 5.0},
        {"beta_start": 0.5},
        {"prediction": "mood"},
        {"prediction": ["sample"]},
        {"name": "x"},
    ],
    ids=str,
)
def test_absurd_schedules_are_refused(bundle, values):
    change(bundle, schedule=values)
    refused(lambda: schedule_of(open_bundle(str(bundle))), bundle)


@pytest.mark.parametrize(
    "values",
    [
        {"channels": [10**9]},
        {"channels": [32] * 100},
        {"channels": []},
        {"channels": "32"},
        {"channels": [-32, 32]},
        {"channels": [33, 33]},
        {"num_res_blocks": 10**6},
        {"space_to_depth": 0},
        {"space_to_depth": 3},
        {"num_head_channels": 0},
        {"num_head_channels": 7},
        {"attention_levels": 1},
        {"attention_levels": []},
        {"channels": [64, 32]},
        {"num_res_blocks": 2},
        {"colour": 1},
    ],
    ids=str,
)
def test_a_translator_of_absurd_or_other_size_is_refused(bundle, values):
    change(bundle, network=values)
    refused(lambda: load_translator(open_bundle(str(bundle)), CPU), bundle)


@pytest.mark.parametrize(
    "values",
    [
        {"channels": [10**9, 2]},
        {"channels": [8]},
        {"channels": [8, 17]},
        {"num_res_units": 10**9},
        {"space_to_depth": 10**6},
        {"dropout": 3},
        {"num_res_units": 3},
    ],
    ids=str,
)
def test_a_segmenter_of_absurd_or_other_size_is_refused(segmenter, values):
    change(segmenter, network=values)
    refused(lambda: load_segmenter(open_bundle(str(segmenter)), CPU), segmenter)


def test_a_gigantic_network_within_every_limit_is_refused_before_it_takes_memory(bundle):
    change(
        bundle,
        network={
            "channels": [1024] * 8,
            "attention_levels": [True] * 8,
            "num_res_blocks": 8,
            "num_head_channels": 32,
            "space_to_depth": 16,
        },
    )
    change(bundle, grid={"shape": [2048, 2048]})
    opened = open_bundle(str(bundle))
    load_tensors(opened, TRANSLATOR)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(lambda: load_translator(opened, CPU), bundle, "do not fit")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 900 + b"1" + b"}" * 900, b'{"format": ' + b"9" * 10_000 + b"}"],
    ids=["empty", "cut", "list", "number", "not-utf8", "deep", "deep-and-whole", "huge-number"],
)
def test_metadata_that_are_no_sensible_json_are_refused(bundle, raw):
    (bundle / METADATA).write_bytes(raw)
    refused(lambda: open_bundle(str(bundle)), bundle / METADATA)


def test_huge_metadata_are_refused_without_reading_them_whole(bundle):
    with (bundle / METADATA).open("wb") as handle:
        handle.truncate(200 * MAX_METADATA_BYTES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(lambda: open_bundle(str(bundle)), bundle / METADATA, "bytes")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_huge_weights_are_refused_without_reading_them(bundle, monkeypatch):
    monkeypatch.setattr("localdiff_cli.bundle.store.MAX_WEIGHT_BYTES", 1000)
    monkeypatch.setattr("localdiff_cli.bundle.store.file_hash", lambda path: pytest.fail(f"{path} was read"))
    refused(lambda: load_tensors(open_bundle(str(bundle)), TRANSLATOR), bundle / TRANSLATOR, "bytes")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_in_place_of_weights_is_refused_and_not_run(bundle, tmp_path):
    replace_weights(bundle, TRANSLATOR, pickle.dumps(Bomb(str(tmp_path / "ran"))))
    refused(lambda: load_translator(open_bundle(str(bundle)), CPU), bundle / TRANSLATOR, "safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused_even_with_a_matching_hash(bundle, share):
    raw = (bundle / TRANSLATOR).read_bytes()
    replace_weights(bundle, TRANSLATOR, raw[: int(share * len(raw))])
    refused(lambda: load_translator(open_bundle(str(bundle)), CPU), bundle / TRANSLATOR, "safetensors")


def save_tensors(folder, name, tensors):
    save_file(tensors, folder / "new")
    replace_weights(folder, name, (folder / "new").read_bytes())


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "integers", "nan"])
def test_weights_that_do_not_fit_the_network_are_refused(bundle, damage):
    tensors = load_file(bundle / TRANSLATOR)
    key = next(key for key, value in tensors.items() if value.ndim == 4)
    shape = tensors.pop(key).shape
    tensors |= {
        "missing": {},
        "extra": {key: torch.zeros(shape), "more": torch.zeros(1)},
        "shape": {key: torch.zeros(3, 3)},
        "integers": {key: torch.zeros(shape, dtype=torch.int64)},
        "nan": {key: torch.full(shape, float("nan"))},
    }[damage]
    save_tensors(bundle, TRANSLATOR, tensors)
    refused(lambda: load_translator(open_bundle(str(bundle)), CPU), bundle)


@pytest.mark.parametrize(
    "tensors",
    [{"other": torch.zeros(3, 3)}, {"embeddings": torch.zeros(3)}, {"embeddings": torch.full((3, 3), float("inf"))}],
    ids=["name", "shape", "inf"],
)
def test_a_memory_bank_that_is_none_is_refused(bundle, tensors):
    save_tensors(bundle, DETECTOR, tensors)
    refused(lambda: load_detector(open_bundle(str(bundle)), 0.05, CPU), bundle / DETECTOR)


@pytest.mark.parametrize(
    "values",
    [
        {"backbone": "oracle"},
        {"backbone": "../x"},
        {"input_scale": 1e9},
        {"input_scale": float("nan")},
        {"input_scale": "wide"},
        {"calibration": None},
        {"calibration": {"levels": [1, 0]}},
        {"calibration": {"levels": [0, 1], "values": [3, 1], "sigma_a": 1}},
    ],
    ids=str,
)
def test_a_detector_described_absurdly_is_refused(bundle, values):
    (bundle / METADATA).write_text(json.dumps(metadata(bundle) | {"detector": metadata(bundle)["detector"] | values}))
    refused(lambda: load_detector(open_bundle(str(bundle)), 0.05, CPU), bundle)


def test_a_grid_that_the_network_cannot_halve_is_refused(bundle):
    change(bundle, grid={"shape": [48, 42]})
    refused(lambda: load_translator(open_bundle(str(bundle)), CPU), bundle, "multiples of 4")


def test_a_bundle_of_another_task_is_refused(bundle, segmenter):
    refused(lambda: load_translator(open_bundle(str(segmenter)), CPU), "localdiff models list")
    refused(lambda: load_segmenter(open_bundle(str(bundle)), CPU), "localdiff models list")


def test_localdiff_models_comes_first_then_the_users_folder_then_the_shipped_ones(bundle, tmp_path, monkeypatch):
    first, second, user = tmp_path / "first", tmp_path / "second", tmp_path / "data"
    monkeypatch.setenv("LOCALDIFF_MODELS", f"{first}:{second}:{tmp_path / 'not-there'}")
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: user / name)
    shutil.copytree(bundle, second / "a")
    shutil.copytree(bundle, user / "localdiff" / "models" / "a")
    shutil.copytree(bundle, user / "localdiff" / "models" / "b")
    assert bundle_folders()[:4] == [first, second, tmp_path / "not-there", user / "localdiff" / "models"]
    assert all(folder.name == "models" for folder in bundle_folders()[4:])
    paths = bundle_paths()
    assert paths["a"] == second / "a"
    assert paths["b"] == user / "localdiff" / "models" / "b"
    shutil.copytree(bundle, first / "a")
    assert open_bundle("a").path == first / "a"


def test_beside_an_installed_package_nobodys_models_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("LOCALDIFF_MODELS", raising=False)
    package = tmp_path / "site-packages" / "localdiff_cli"
    (package / "models").mkdir(parents=True)
    (package.parent / "models").mkdir()
    monkeypatch.setattr("localdiff_cli.bundle.store.__file__", str(package / "bundle" / "store.py"))
    assert bundle_folders()[1:] == [package / "models"]
    (package / "models").rmdir()
    assert bundle_folders()[1:] == []
    (package.parent / "pyproject.toml").write_text("")
    assert bundle_folders()[1:] == [package.parent / "models"]


def test_a_bank_is_used_only_with_the_backbone_weights_that_it_was_made_with(bundle):
    described = metadata(bundle)["detector"]
    detector = load_detector(open_bundle(str(bundle)), 0.05, CPU)
    assert described["backbone_sha256"] == detector.backbone.weights_hash
    before = open_bundle(str(bundle)).hash
    (bundle / METADATA).write_text(json.dumps(metadata(bundle) | {"detector": described | {"backbone_sha256": "0" * 64}}))
    assert open_bundle(str(bundle)).hash != before
    with pytest.raises(ModelError, match="000000000000") as caught:
        load_detector(open_bundle(str(bundle)), 0.05, CPU)
    assert caught.value.code == "backbone-weights"


def test_a_bundle_may_take_the_detector_of_another_as_long_as_it_holds_that_bank(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(bundle.parent))
    taker = tmp_path / "taker"
    shutil.copytree(bundle, taker)
    (taker / DETECTOR).unlink()
    described = metadata(taker)
    bank = described["files"].pop(DETECTOR)
    (taker / METADATA).write_text(json.dumps(described | {"detector": {"bundle": bundle.name, "sha256": bank}}))
    opened = open_bundle(str(taker))
    assert opened.has_detector
    assert detector_bundle(opened).name == open_bundle(str(bundle)).name
    own, taken = (load_detector(each, 0.05, CPU) for each in (open_bundle(str(bundle)), opened))
    assert taken.tau_a == own.tau_a
    assert torch.equal(taken.bank.embeddings, own.bank.embeddings)
    (taker / METADATA).write_text(json.dumps(described | {"detector": {"bundle": bundle.name, "sha256": "0" * 64}}))
    with pytest.raises(ModelError, match="--detector-model") as caught:
        load_detector(open_bundle(str(taker)), 0.05, CPU)
    assert caught.value.code == "other-detector"


@pytest.mark.parametrize("name", ["none-such", "~nobody-at-all/x", "x" * 5000, "a\0b", "notes.txt/x"])
def test_a_model_that_is_not_there_is_refused_with_those_that_are(models_folder, monkeypatch, name):
    monkeypatch.setenv("LOCALDIFF_MODELS", f"~nobody-at-all/models:{models_folder}")
    refused(lambda: open_bundle(name), "t1-to-t2", "LOCALDIFF_MODELS")


def test_a_damaged_bundle_stops_a_command_with_exit_code_4_and_no_traceback(cli, bundle, folder, tmp_path):
    replace_weights(bundle, TRANSLATOR, b"nonsense")
    result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--model", bundle)
    assert result.exit_code == 4
    assert str(bundle / TRANSLATOR) in result.output
    assert "Traceback" not in result.output
    listed = cli("models", "verify", bundle)
    assert listed.exit_code == 4
    assert "BAD" in listed.output


def test_a_message_about_damage_stays_short_whatever_is_found(bundle):
    change(bundle, defaults={"[" * 30_000: 1})
    with pytest.raises(ModelError, match="unknown settings") as caught:
        _ = open_bundle(str(bundle)).defaults
    assert len(str(caught.value)) < 2_000


def test_a_bundle_is_read_once_a_process_until_its_metadata_change(bundle, monkeypatch):
    read = []
    monkeypatch.setattr(store, "read_metadata", lambda path, real=store.read_metadata: read.append(path) or real(path))
    copied = copy_bundle(open_bundle(str(bundle)), bundle.parent / "copy")
    assert open_bundle(str(copied.path)) is open_bundle(str(copied.path))
    assert read.count(copied.path) == 1
    changed = with_defaults(copied, {"steps": 2})
    assert open_bundle(str(copied.path)).defaults.steps == changed.defaults.steps == 2


def test_a_default_that_cannot_be_is_the_users_fault_and_not_the_bundles(bundle):
    copied = copy_bundle(open_bundle(str(bundle)), bundle.parent / "copy")
    with pytest.raises(UsageError, match=r"steps=4\.5: found steps = 4\.5") as caught:
        with_defaults(copied, {"steps": 4.5})
    assert "Install" not in str(caught.value)
