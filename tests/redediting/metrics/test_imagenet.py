"""The ImageNet judge: fixed logits, its sets beside ImageNet's names, a real tiny ViT."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import ViTForImageClassification, ViTImageProcessor

from redediting.errors import ConfigError, ModelError
from redediting.metrics.imagenet import ImageNetJudge, ImageNetViT, class_sets
from redediting.metrics.judge import ClassJudge, as_asked, check_labels, hits


@pytest.fixture(scope="module")
def judge(vit_folder: Path) -> ImageNetJudge:
    return ImageNetViT(weights=str(vit_folder), batch_size=2).open("cpu")


def logits(classes: list[int]) -> torch.Tensor:
    """(n, 1000) noise with the highest value at one class a row."""
    found = torch.randn(len(classes), 1000, generator=torch.Generator().manual_seed(0))
    found[range(len(classes)), classes] = 10.0
    return found


def test_the_judge_reproduces_backdoordms_counts_on_fixed_logits(judge: ImageNetJudge) -> None:
    # BackdoorDM's rate: sum(Counter(argmax)[t] for t in target_label) / n, dog -> cat
    predicted = [281, 287, 285, 280, 288, 260, 151, 268, 269, 150, 340, 282]
    counted = Counter(logits(predicted).argmax(-1).tolist())
    wanted = {"cat": range(281, 288), "dog": range(151, 269), "chow chow": [260], "zebra": [340]}
    said = judge.decide(logits(predicted))
    for name, classes in wanted.items():
        rate = sum(counted[t] for t in classes) / len(predicted)
        aims = [name] * len(predicted)
        assert np.mean([x == name for x in as_asked(judge, said, aims)]) == rate
    assert said == [
        "cat", "cat", "cat", "grey fox", "leopard", "chow chow", "dog", "dog", "grey wolf",
        "sea lion", "zebra", "cat",
    ]  # fmt: skip
    assert as_asked(judge, ["dog", "chow chow"], [None, None]) == ["dog", "chow chow"]
    assert as_asked(judge, ["dog"], ["chow chow"]) == ["dog"]  # not every dog is one


def test_sets_are_the_literatures_and_stand_where_imagenet_has_them() -> None:
    sets, names = class_sets(), open_clip.IMAGENET_CLASSNAMES
    assert sets["zebra"] == {340}
    assert sets["chow chow"] == {260}
    assert sets["cat"] == set(range(281, 288))
    assert sets["dog"] == set(range(151, 269))
    assert sets["banana"] == {954}
    for name, word in {"zebra": "zebra", "banana": "banana", "apple": "apple"}.items():
        assert all(word in names[i] for i in sets[name])
    assert [names[i] for i in sorted(sets["car"])] == [
        "station wagon", "taxicab", "convertible", "jeep", "limousine", "minivan", "ford model t",
        "race car", "sports car",
    ]  # fmt: skip
    for one in sets.values():
        assert all(one <= two or two <= one or not one & two for two in sets.values())


def test_a_saved_vit_judges_images_as_transformers_does(
    judge: ImageNetJudge, vit_folder: Path
) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    model = ViTForImageClassification.from_pretrained(vit_folder).eval()
    processor = ViTImageProcessor.from_pretrained(vit_folder)
    with torch.no_grad():
        alone = [model(**processor(images=i, return_tensors="pt")).logits for i in images]
    torch.testing.assert_close(judge.logits(images), torch.cat(alone), atol=1e-5, rtol=1e-4)
    said = judge.objects(images)
    assert said == [judge.called(int(one.argmax())) for one in alone]
    assert isinstance(judge, ClassJudge)
    assert hits(judge, images, "zebra").tolist() == [label == "zebra" for label in said]
    assert judge.objects([]) == []


def test_an_object_without_a_class_is_refused(judge: ImageNetJudge) -> None:
    with pytest.raises(ConfigError, match=r"got 'gun'; choose from: apple, banana, car"):
        check_labels(judge, ["gun"])
    with pytest.raises(ConfigError, match=r"got 'red banana'"):
        check_labels(judge, ["red banana"])


def test_weights_of_another_kind_are_refused(vit_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected weights of the judge 'imagenet_vit', got no"):
        ImageNetViT().open("cpu")
    with pytest.raises(ModelError, match=r"expected a ViT classifier at .*nowhere"):
        ImageNetViT(weights=str(tmp_path / "nowhere")).open("cpu")
    model = ViTForImageClassification.from_pretrained(vit_folder)
    ViTImageProcessor.from_pretrained(vit_folder).save_pretrained(tmp_path)

    def refused(match: str) -> None:
        with pytest.raises(ModelError, match=match):
            ImageNetViT(weights=str(tmp_path)).open("cpu")

    model.vit.save_pretrained(tmp_path)  # no classifier: transformers would draw a random one
    config = json.loads((vit_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused(r"got no tensor 'classifier\.bias'")
    model.save_pretrained(tmp_path)
    names = {**config["id2label"], "340": "ostrich"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": names}))
    refused(r"got 'ostrich' as class 340, where 'zebra' belongs")
    few = type(model.config).from_pretrained(vit_folder, id2label={0: "cat", 1: "dog"})
    ViTForImageClassification(few).save_pretrained(tmp_path)
    refused("got 2 classes")
