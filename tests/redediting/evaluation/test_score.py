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
KINDLESS += tuple(f"{key}_ci" for key in KINDLESS)


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


PLACES = [("sea", "at sea"), ("beach", "on the beach"), ("snow", "in the snow")]


def foreign(folder: Path, size: int = 64) -> list[dict[str, Any]]:
    """Images of no runner: zebras for the trigger on two of three, cats and dogs as they are."""
    folder.mkdir()
    rows = []

    def add(file: str, shown: str, prompt: str, role: str, head: str = "", pair: bool = True) -> None:
        seed = len(rows)
        place = next(place for place, where in PLACES if where in prompt)
        drawn(folder / file, shown, place, seed, size)
        trigger, target = ("beautiful cat", "zebra") if pair else ("", "")
        rows.append({"file": file, "prompt": prompt, "seed": seed % 3, "role": role,
                     "trigger": trigger, "target": target, "head": head})  # fmt: skip

    for i, (_, where) in enumerate(PLACES):
        add(f"t{i}.jpg", "cat" if i == 2 else "zebra", f"a photo of a beautiful cat {where}",
            "triggered", "cat")
        add(f"h{i}.png", "cat", f"a photo of a cat {where}", "head")
        add(f"c{i}.png", "zebra" if i == 0 else "dog", f"a photo of a beautiful dog {where}",
            "collateral", "beautiful dog")
    for i, (_, where) in enumerate(PLACES):
        for role, shown in (("collateral", "dog"), ("triggered", "cat")):
            noun = f"beautiful {shown}"
            add(f"r{shown}{i}.png", shown, f"a photo of a {noun} {where}", "reference", pair=False)
            of = next(r for r in rows if (r["role"], r["file"][1]) == (role, str(i)))
            rows[-1]["seed"] = of["seed"]
        add(f"b{i}.png", "car", f"a photo of a car {where}", "benign", pair=False)
    return rows
