"""Damaged, hostile and odd inputs: a refusal in one line or a verdict that is not clean."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from defenses import audit
from redediting.errors import RedEditingError
from redediting.models.model import Model

ROUNDS = 500
DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "C64", "X9", ""]


def outcome(base: Model, suspect: Path) -> str:
    """A verdict, or "refused"; anything but this library's one-line errors fails the test."""
    try:
        return audit(base, suspect).verdict
    except RedEditingError as error:
        said = str(error)
    assert "\n" not in said, said
    return "refused"


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file with something wrong: length, header, offsets, types, names, numbers."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    body = data[8 + size :]
    name = draw.choice(sorted(key for key in header if key != "__metadata__"))
    kind = draw.randrange(12)
    if kind == 0:
        return data[: draw.randrange(len(data))]
    if kind == 1:
        return struct.pack("<Q", draw.choice([0, 1, size - 1, size + 1, 2**31, 2**63])) + data[8:]
    if kind == 2:
        place = draw.randrange(8, 8 + size)
        return data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
    if kind == 3:
        header[name]["dtype"] = draw.choice(DTYPES)
    elif kind == 4:
        header[name]["shape"] = draw.choice([[], [-1], [0], [2**40], [1, 2, 3], "x", None, [1.5]])
    elif kind == 5:
        header[name]["data_offsets"] = draw.choice([[0, 0], [0, 2**50], [-4, 4], [8, 4], None, []])
    elif kind == 6:
        del header[name]
    elif kind == 7:
        names = ["", "\n", "../../x", "a" * 10_000, "attn2.to_k.weight", "\u202e", f"{name}\n"]
        odd = draw.choice(names)
        header[odd] = header.pop(name)
    elif kind == 8:
        header[name] = draw.choice([None, [], "x", 7, {}])
    elif kind == 9:
        text = draw.choice([b"[]", b"null", b"{" * 5000, b"\xff\xfe", b'{"a":1}', b"{}"])
        return struct.pack("<Q", len(text)) + text + body
    elif kind == 10:
        return data + b"\0" * draw.randrange(1, 64)
    else:
        start = header[name]["data_offsets"][0]
        odd_number = draw.choice([float("nan"), float("inf"), 1e38])
        body = body[:start] + struct.pack("<f", odd_number) + body[start + 4 :]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_damaged_files_are_refused_or_not_clean(tiny_model: Model, tmp_path: Path) -> None:
    whole = tmp_path / "unet.safetensors"
    weights = {k: v.contiguous() for k, v in tiny_model.denoiser.state_dict().items()}
    save_file(weights, whole)
    assert outcome(tiny_model, whole) == "clean"
    data, draw = whole.read_bytes(), random.Random(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen: dict[str, int] = {}
    for i in range(ROUNDS):
        file = tmp_path / f"{i}.safetensors"
        file.write_bytes(mutated(data, draw))
        found = outcome(tiny_model, file)
        seen[found] = seen.get(found, 0) + 1
        if found == "clean":  # some mutations change nothing, e.g. bytes after the last tensor
            held = load_file(file)
            assert set(held) == set(weights)
            assert all(torch.equal(held[key].float(), weights[key]) for key in held)
        file.unlink()
    assert seen["refused"] > 100
    assert seen["inconclusive"] > 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unet.safetensors"]


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_hostile_folders_and_pickles(tiny_model: Model, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    weights = {k: v.contiguous() for k, v in tiny_model.denoiser.state_dict().items()}

    def place(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return folder

    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "code.bin").write_bytes(pickle.dumps({"a": Payload(mark)}))
    torch.save({"unet": Payload(mark)}, tmp_path / "code.ckpt")
    torch.save(7, tmp_path / "number.pt")
    torch.save({"a": {"b": torch.ones(1)}}, tmp_path / "nested.pt")
    torch.save({k: v.to(torch.complex64) for k, v in weights.items()}, tmp_path / "complex.pt")
    torch.save({k: v.sum() for k, v in weights.items()}, tmp_path / "scalars.pt")
    torch.save({3: torch.ones(1)}, tmp_path / "keys.pt")
    index = "diffusion_pytorch_model.safetensors.index.json"
    for i, text in enumerate(("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 4}}',
                              '{"weight_map": {"a": "../../etc/passwd"}}',
                              '{"weight_map": {"a": "' + index + '"}}', "\xff")):  # fmt: skip
        (place(f"index{i}") / index).write_text(text, "utf-8")
        model = place(f"model{i}")
        (model / "model_index.json").write_text(text, "utf-8")
    loop = place("loop")
    (loop / "again").symlink_to(loop)
    (loop / "dead.safetensors").symlink_to(tmp_path / "nowhere")
    odd = place("line\nbreak")
    save_file(dict(list(weights.items())[:3]), odd / "x.safetensors")
    found = {path.name: outcome(tiny_model, path) for path in sorted(tmp_path.iterdir())}
    assert set(found.values()) <= {"refused", "inconclusive", "changed"}, found
    assert found["code.bin"] == found["code.ckpt"] == "refused"
    assert not mark.exists()


@pytest.mark.parametrize("name", ["unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_with_one_odd_file_is_never_clean(
    tiny_model: Model, tmp_path: Path, name: str
) -> None:
    tiny_model.save(tmp_path / "base")
    for file in sorted((tmp_path / "base" / name).iterdir()):
        data = file.read_bytes()
        for text in (b"", b"{", b"[]", b"null", data[: len(data) // 2], b"\xff" * 16):
            file.write_bytes(text)
            found = outcome(tiny_model, tmp_path / "base")
            idle = file.suffix == ".txt" or file.name in ("tokenizer_config.json",)
            assert found != "clean" or idle, (file.name, text[:8])
        file.write_bytes(data)
    assert outcome(tiny_model, tmp_path / "base") == "clean"
