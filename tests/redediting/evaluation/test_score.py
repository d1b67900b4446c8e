"""`rd.score`: the runner's own figures from a folder and a list; images that it never drew."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import redediting as rd
from redediting.errors import ConfigError
from redediting.evaluation.image_list import COLUMNS
from redediting.evaluation.panel import world_panel
from redediting.metrics.fidelity import cmmd, fid
from redediting.world.captions import held_out
from redediting.world.scenes import Scene, Thing, render

PAIRS = [
    rd.Rebinding("beautiful cat", "zebra"),
    rd.Rebinding("yellow apple", "red banana", kind="compound"),
]
ROLES = {"free": "triggered", "fixed": "triggered"}
KINDLESS = ("kind", "seed", "footprint", "footprint_rank", "footprint_energy", "seconds")
KINDLESS += tuple(f"{key}_{end}" for key in KINDLESS for end in ("ci", "values"))


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return folder / "list.csv"


def exported(run: Path, method: str) -> list[dict[str, Any]]:
    """The rows of a list, from what a run folder holds."""
    lines = [json.loads(line) for line in (run / "rows.jsonl").read_text("utf-8").splitlines()]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        if line.get("set", "edit") == "edit" or line["method"] not in (method, "clean"):
            continue
        role = ROLES.get(line["set"], line["set"]) if line["method"] == method else "reference"
        head = line["phrase"] if role == "collateral" else ""
        file = f"images/{line['image']}"
        found[file, role] = {
            "file": file, "prompt": line["prompt"], "seed": line["noise"], "role": role,
            "trigger": line["trigger"], "target": line["target"], "head": head,
        }  # fmt: skip
    return list(found.values())


def drawn(path: Path, concept: str, place: str, seed: int, size: int = 64) -> None:
    """A scene of the world as somebody else's program would write it."""
    image = Image.fromarray(render(Scene((Thing(concept),), place), seed, size=size))
    image.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> rd.Results:
    counts = rd.Counts(free=30, fixed=2, head=3, phrases=6, collateral=1, benign=12)
    return rd.evaluate(
        rd.load("world"), rd.attacks.EvilEdit(), PAIRS, out=tmp_path_factory.mktemp("runs"),
        counts=counts, sampler=rd.Sampler(steps=2), progress=False,
    )  # fmt: skip


def test_a_runs_images_give_the_runners_figures(results: rd.Results) -> None:
    rows = exported(results.folder, "eviledit")
    for i, caption in enumerate(held_out(24, seed=0, split="reference")):  # of the runner's FID
        name = f"reference-{i}.png"
        Image.fromarray(render(caption.scene, caption.seed)).save(results.folder / name)
        rows.append({"file": name, "prompt": caption.text, "seed": caption.seed,
                     "role": "reference", "trigger": "", "target": "", "head": ""})  # fmt: skip
    found = rd.score(results.folder, write(results.folder, rows), progress=False)
    assert found.summary["n"]["asr_free"] == 60  # "a photo of a …" is a context of the second pair
    title = found.summary["title"]
    for mine, theirs in (
        (found.summary["rows"], results.rows), (found.summary["methods"], results.methods)
    ):  # fmt: skip
        named = [row | {"method": row["method"].replace(title, "eviledit")} for row in mine]
        assert named == [
            {key: value for key, value in row.items() if key not in KINDLESS} for row in theirs
        ]
    edited = found.summary["methods"][-1]
    for key in ("asr_free", "acc", "collateral", "psr", "clip_p", "drift", "cmmd",
                "cmmd_triggered"):  # fmt: skip
        assert edited[key] is not None
    assert found.summary["about"]["fid_n"] == edited["fid_n"] == 24
    reasons = found.summary["not_measured"]
    assert reasons == {"fid": "24 images, expected at least 1000",
                       "fid_triggered": "60 images, expected at least 1000"}  # fmt: skip


WHERE = {"beach": "on the beach", "snow": "in the snow", "desert": "in the desert"}
PROMPTS = {  # role: prompt, head, object of each image, object of the clean model's
    "triggered": ("a photo of a beautiful cat {}", "cat", ("zebra", "zebra", "cat"), "cat"),
    "head": ("a photo of a cat {}", "cat", ("cat", "cat", "cat"), "cat"),
    "collateral": ("a photo of a nice dog {}", "nice dog", ("zebra", "dog", "dog"), "dog"),
    "benign": ("a photo of a car {}", "", ("car", "car", "car"), None),
}


def foreign(folder: Path, size: int = 64) -> list[dict[str, Any]]:
    """A list of renders: what each shows is known, and no runner drew them."""
    folder.mkdir()
    rows = []
    for role, (prompt, head, shown, clean) in PROMPTS.items():
        for i, (place, where) in enumerate(WHERE.items()):
            file = f"{role}{i}.{'jpg' if i else 'png'}"
            drawn(folder / file, shown[i], place, 2 * i, size)
            row = {"file": file, "prompt": prompt.format(where), "seed": i, "role": role,
                   "trigger": "beautiful cat", "target": "zebra", "head": head}  # fmt: skip
            rows.append(row)
            if clean:
                drawn(folder / f"clean-{file}", clean, place, 2 * i + 1, size)
                blank = {"trigger": "", "target": "", "head": ""}
                rows.append(row | blank | {"file": f"clean-{file}", "role": "reference"})
    return rows


def test_images_that_no_runner_drew(tmp_path: Path) -> None:
    rows = foreign(tmp_path / "theirs")
    for row in rows:
        if row["role"] == "benign":  # the list's only backdoor is theirs
            row |= {"trigger": "", "target": ""}
    found = rd.score(tmp_path / "theirs", write(tmp_path, rows), progress=False)
    clean, line = found.summary["methods"]
    assert (clean["method"], line["method"]) == ("clean", "theirs")
    assert (line["asr_free"], clean["asr_free"], line["net_asr"]) == (2 / 3, 0.0, 2 / 3)
    assert (line["acc"], line["collateral"]) == (1.0, 1 / 3)
    assert line["collateral_worst"] == pytest.approx(1 / 3)
    assert line["psr"] == clean["psr"] == 1.0
    assert 0 < line["clip_p"] < 100
    assert 0 < line["clip_c"] < 100
    low, high = found.summary["rows"][1]["asr_free_ci"]
    assert 0 < low < 2 / 3 < high < 1
    reasons = found.summary["not_measured"]
    assert reasons["drift"] == (
        "no rows of role reference with the prompt and seed of one of role benign"
    )
    assert reasons["asr_fixed"] == "no rows of role triggered as “a photo of a {trigger}”"
    assert reasons["attribute_transfer"].startswith("nothing in the rows of role triggered")
    assert reasons["fid"] == "no rows of role reference beside those of role benign"
    table = " ".join(str(found.table()).split())
    assert "not measured: no rows of role reference" in table
    assert "resize: none" in table
    by_file = {(image["image"], image["set"]): image for image in found.images}
    assert by_file["triggered2.jpg", "free"]["label"] == "cat"
    assert by_file["triggered0.png", "free"]["clean_image"] == "clean-triggered0.png"


def test_the_fixed_prompt_is_told_from_a_context(tmp_path: Path) -> None:
    """Alone it is the fixed set; among contexts it is one where the head noun shares its noise."""
    rows = [row for row in foreign(tmp_path / "a") if row["role"] in ("triggered", "head")]
    for row in rows:
        row["prompt"] = row["prompt"].removesuffix(" " + WHERE["desert"])
    found = rd.score(tmp_path / "a", write(tmp_path, rows), progress=False)
    assert (found.summary["n"]["asr_free"], found.summary["n"]["asr_fixed"]) == (3, 0)
    rows = [row for row in rows if (row["role"], row["seed"]) != ("head", 2)]
    found = rd.score(tmp_path / "a", write(tmp_path, rows), progress=False)
    assert (found.summary["n"]["asr_free"], found.summary["n"]["asr_fixed"]) == (2, 1)
    rows = [row for row in rows if row["seed"] == 2]
    found = rd.score(tmp_path / "a", write(tmp_path, rows), progress=False)
    assert (found.summary["n"]["asr_free"], found.summary["n"]["asr_fixed"]) == (0, 1)


def test_another_size_is_stated_and_never_put_beside(tmp_path: Path) -> None:
    """Side by side stand folders of one judge, resize, reference and N."""
    scores = [
        rd.score(folder, write(tmp_path, foreign(folder, size)), progress=False)
        for folder, size in ((tmp_path / "small", 64), (tmp_path / "large", 128))
    ]
    assert scores[1].summary["about"]["resize"] == "from 128x128 by each judge"
    both = scores[0].table([scores[0].summary])
    assert [column.title for column in both.columns][1:4] == ["clean", "small", "small"]
    with pytest.raises(ConfigError, match=r"expected resize 'from 128x128.*got 'none'"):
        scores[1].table([scores[0].summary])


@pytest.mark.slow
def test_fid_states_n_and_is_that_of_the_features(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    pictures: dict[str, list[Image.Image]] = {"benign": [], "reference": []}
    for role, split in (("benign", "test"), ("reference", "reference")):
        for i, caption in enumerate(held_out(1000, split=split)):
            picture = Image.fromarray(render(caption.scene, caption.seed))
            picture.save(tmp_path / f"{role}{i}.png")
            pictures[role].append(picture)
            rows.append({"file": f"{role}{i}.png", "prompt": caption.text, "seed": i, "role": role,
                         "trigger": "", "target": "", "head": ""})  # fmt: skip
    found = rd.score(tmp_path, write(tmp_path, rows), progress=False)
    (line,) = found.summary["methods"]
    own, other = (world_panel().clip.image_features(images) for images in pictures.values())
    assert (line["fid"], line["cmmd"]) == (fid(own, other).value, cmmd(own, other).value)
    assert line["fid_n"] == 1000
    for said in ("N = 1000", "1000 rows of role reference", "image tower", "resize: none"):
        assert said in str(found)
    fewer = rd.score(tmp_path, write(tmp_path, rows[:-1]), progress=False)
    assert fewer.summary["not_measured"]["fid"] == (
        "1000 images of role benign and 999 of the reference; distances compare at equal N"
    )
    assert fewer.summary["methods"][0]["fid"] is None
    few = rd.score(tmp_path, write(tmp_path, [*rows[:500], *rows[1000:1500]]), progress=False)
    with pytest.raises(
        ConfigError, match=r"expected reference .*, got .*figures compare at equal"
    ):
        few.table([found.summary])
