"""Where weights come from, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trials.data.preprocess import ArrayPreprocess
from trials.errors import ModelError
from trials.model.weights import published_normalisation, read_weights, weights_preprocess
from trials.recipe import Imported, Mlp, Model, Pretrained

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WEIGHTS = {"0.weight": torch.arange(6.0).view(2, 3), "0.bias": torch.ones(2)}


def from_mlp(weights: Path | str) -> Mlp:
    return Mlp(build="mlp", pretrained=Pretrained(weights=str(weights)))


def from_torchvision(weights: Path | str, name: str = "mobilenet_v2") -> Imported:
    return Imported(build=f"torchvision.models:{name}", pretrained=Pretrained(weights=str(weights)))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"epoch": 3, "state_dict": WEIGHTS},
        {"model": WEIGHTS, "optimizer": {"state": {}}},
        {f"module.{name}": value for name, value in WEIGHTS.items()},
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_a_torch_file_holds_tensors_by_name_in_any_of_the_usual_ways(
    tmp_path: Path, content: dict[str, Any], suffix: str
) -> None:
    torch.save(content, tmp_path / f"w.{suffix}")
    assert_same(read_weights(from_mlp(tmp_path / f"w.{suffix}")), WEIGHTS)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert sorted(read_weights(from_mlp(tmp_path / "w.safetensors"))) == sorted(WEIGHTS)


def test_a_torch_file_keeps_the_versions_of_its_modules(tmp_path: Path) -> None:
    """torchvision's MNASNet refuses a state without them."""
    norm = torch.nn.BatchNorm2d(3)
    torch.save(norm.state_dict(), tmp_path / "w.pt")
    assert read_weights(from_mlp(tmp_path / "w.pt"))._metadata == {"": {"version": 2}}  # type: ignore[attr-defined]


def test_old_names_of_densenet_are_todays(tmp_path: Path) -> None:
    old = {"features.denseblock1.denselayer10.norm.2.weight": torch.ones(1), "features.1.conv.1.weight": torch.ones(2)}
    torch.save(old, tmp_path / "w.pt")
    found = read_weights(from_mlp(tmp_path / "w.pt"))
    assert set(found) == {"features.denseblock1.denselayer10.norm2.weight", "features.1.conv.1.weight"}


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path: Path, kind: str) -> None:
    bomb, file = {"0.weight": Bomb(tmp_path / "boom")}, tmp_path / "w.pth"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(bomb, protocol=2))
    else:
        torch.save(bomb, file, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(
        ModelError, match=rf"^model.pretrained.weights: {re.escape(str(file))} holds more than"
    ) as caught:
        read_weights(from_mlp(file))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    file, weights = tmp_path / f"w.{suffix}", {"0.weight": torch.randn(100, 100)}
    if suffix == "safetensors":
        save_file(weights, file)
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=suffix == "pt")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ModelError, match=r"^model.pretrained.weights: .* is damaged") as caught:
        read_weights(from_mlp(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list, expected tensors by name"),
        ({}, "holds dict, expected tensors by name"),
        ({"lr": 0.1}, "holds float under 'lr', expected tensors by name"),
        ({3: torch.ones(1)}, "holds Tensor under 3, expected tensors by name"),
    ],
)
def test_what_is_no_state_is_named(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=message):
        read_weights(from_mlp(tmp_path / "w.pt"))


def test_absent_files_and_folders_and_registered_models_are_one_line(tmp_path: Path) -> None:
    for weights, message in (
        (f"{tmp_path}/w.pt", r"no file .*/w\.pt$"),
        (f"{tmp_path}/best", r"no file .*/best$"),
        (f"{tmp_path}", r"has no weights\.safetensors, expected a folder that `sweeper pull` wrote$"),
        ("models:/digits@best", r"found models:/digits@best, which `sweeper start` fetches from MLflow"),
    ):
        with pytest.raises(ModelError, match=rf"^model\.pretrained\.weights: .*{message}"):
            read_weights(from_mlp(weights))


def test_an_unknown_name_lists_those_of_the_factory() -> None:
    known = r"IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT \(torchvision's for torchvision\.models:mobilenet_v2\)"
    with pytest.raises(ModelError, match=rf"found 'IMAGENET1K', expected one of {known}, a \.safetensors"):
        read_weights(from_torchvision("IMAGENET1K"))
    for name in ("DEFAULT", "No_Weights.DEFAULT", "MobileNet_V2_Weights.NONE"):
        with pytest.raises(
            ModelError, match=rf"found '{name}', expected a \.safetensors, \.pt or \.pth file, a folder"
        ):
            read_weights(from_mlp(name))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch hub's folder, with nothing beyond this machine in reach."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["IMAGENET1K_V2", "DEFAULT", "MobileNet_V2_Weights.IMAGENET1K_V2"])
def test_torchvisions_weights_are_taken_from_the_hubs_folder(hub: Path, name: str) -> None:
    torch.save(WEIGHTS, hub / "mobilenet_v2-7ebf99e0.pth")
    assert_same(read_weights(from_torchvision(name)), WEIGHTS)


def test_weights_that_cannot_be_fetched_say_where_to_put_them(hub: Path) -> None:
    url, place = "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth", hub / "mobilenet_v2-b0353104.pth"
    with pytest.raises(
        ModelError, match=rf"cannot be fetched .*; put {url} at {re.escape(str(place))} yourself$"
    ) as caught:
        read_weights(from_torchvision("IMAGENET1K_V1"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        from_torchvision("DEFAULT"),
        from_torchvision("IMAGENET1K_V1"),
        from_torchvision("/anywhere/mobilenet_v2-b0353104.pth"),
        from_torchvision("ResNet18_Weights.DEFAULT", "mobilenet_v3_small"),
    ],
)
def test_torchvisions_weights_bring_the_normalisation_of_imagenet(model: Model) -> None:
    """Even for a file that is not there any more: a finished trial is judged without it."""
    assert published_normalisation(model) == IMAGENET


@pytest.mark.parametrize(
    "model",
    [
        from_torchvision("/anywhere/mobilenet_v2.pth"),
        from_torchvision("/anywhere/mobilenet_v2-b0353104.pth", "resnet18"),
        from_mlp("/anywhere/mobilenet_v2-b0353104.pth"),
        Imported(build="os:getcwd", pretrained=Pretrained(weights="/anywhere/mobilenet_v2-b0353104.pth")),
        Mlp(build="mlp"),
    ],
)
def test_other_weights_bring_none(model: Model) -> None:
    assert published_normalisation(model) is None
    assert weights_preprocess(model) is None


def test_a_package_brings_its_weights_and_its_preprocessing(tmp_path: Path) -> None:
    preprocess = ArrayPreprocess("image", (1, 4, 4), 255.0, mean=(0.25,), std=(0.5,))
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    (tmp_path / "package.json").write_text(json.dumps({"preprocess": preprocess.to_dict()}))
    assert sorted(read_weights(from_mlp(tmp_path))) == sorted(WEIGHTS)
    assert weights_preprocess(from_mlp(tmp_path)) == preprocess
    (tmp_path / "package.json").write_text("{")
    with pytest.raises(ModelError, match=r"package\.json: cannot be read \(JSONDecodeError"):
        weights_preprocess(from_mlp(tmp_path))


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path))
    torch.save(WEIGHTS, tmp_path / "w.pt")
    assert_same(read_weights(from_mlp("~/w.pt")), WEIGHTS)
