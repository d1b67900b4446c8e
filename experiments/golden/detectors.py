"""The statistics of detectors against the files of T2IShield, DAA, UFID and NaviT2I."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from defenses.detectors import cda, daa_i, daa_s, ftt, localisation, navit2i, ufid
from experiments.golden.file import LARGEST, Array, File


def check_ftt(file: File) -> None:
    """Levels and F."""
    levels = ftt.levels(file.tensor("maps"))
    lengths = file["lengths"].tolist()
    found = np.array([ftt.ftt_statistic(x, n) for x, n in zip(levels, lengths, strict=True)])
    file.exact("levels", levels)
    file.close("F", found, 1e-10, scale=file["F"])
    file.close("F_rounded", found.round(3), 1e-9)
    file.exact("backdoored", found.round(3) < 2.5)


def check_cda(file: File) -> None:
    """Features; decisions from the stored ones, since noise decides (see the README)."""
    levels = ftt.levels(file.tensor("maps"))
    file.exact("levels", levels)
    pca = np.stack([cda.pca_components(x, file["pca"].shape[-1]) for x in levels])
    covariance = np.stack([cda.component_covariance(x) for x in pca])
    signs = np.sign((pca * file["pca"]).sum(axis=1, keepdims=True))
    file.close("pca", pca * signs, 1e-8)
    file.close("covariance", covariance, 1e-8)
    file.close("eigenvalues", np.linalg.eigvalsh(covariance), 1e-8)
    logarithm, expected = np.stack([cda.log_map(x) for x in covariance]), file["log_map"]
    off = ~np.eye(logarithm.shape[-1], dtype=bool)
    noise = max(float(np.abs(x[:, off]).max(initial=0.0)) for x in (logarithm, expected))
    spectra = [np.diagonal(x, axis1=1, axis2=2) for x in (logarithm, expected)]
    error = float(np.abs(spectra[0] - spectra[1]).max() / np.abs(spectra[1]).max())
    file.note("log_map", max(error, 10 * noise), 1e-9)  # off the diagonal only |x| < 1e-10
    stored, labels = file["lda_log_maps"], file["lda_labels"]
    train, test = file["lda_train"], file["lda_test"]
    spectrum, whole = np.diagonal(stored, axis1=1, axis2=2), stored.reshape(len(stored), -1)
    found = cda.discriminant(whole[train], labels[train], whole[test])
    file.close("lda_decision", found, 1e-6)
    file.exact("lda_prediction", found > 0)
    found = cda.discriminant(spectrum[train], labels[train], spectrum[test])
    file.close("lda_diagonal_decision", found, 1e-6)
    jittered = file["lda_jittered_decision"]  # of a noise that is not stored
    usable = jittered.shape == found.shape and np.isfinite(jittered).all()
    file.note("lda_jittered_decision", 0.0 if usable else LARGEST, 0.0)


def check_daa(file: File) -> None:
    """DAA-I and DAA-S, each with its variant."""
    maps = [file.tensor(f"maps_{i}") for i in range(len(file["lengths"]))]
    file.exact("lengths", [own.shape[1] for own in maps])
    rates = [daa_i.evolve_rates(own) for own in maps]
    summed = np.array([[np.abs(rate[3:5]).sum() for rate in own] for own in rates]).sum(axis=1)
    scores = np.array([daa_i.daa_i_score(*own) for own in rates])
    file.close("er_eos", np.stack([own for own, _ in rates]), 1e-6)
    file.close("er_others", np.stack([own for _, own in rates]), 1e-6)
    file.close("daa_i", scores, 1e-6, scale=summed)  # float32 norms: relative to what is summed
    file.exact("daa_i_below", scores < 4.890e-4)
    for suffix, distinct in (("", False), ("_off_diagonal_min", True)):
        solved = [daa_s.relative_increments(x, distinct=distinct, steps=None) for x in maps]
        found = _padded([own for own, _, _ in solved], file[f"increments{suffix}"].shape[1])
        scale = np.abs(file[f"increments{suffix}"]) + 1e-2  # 1e-5 relative plus 1e-7
        file.close(f"increments{suffix}", found, 1e-5, scale=scale)
        scores = np.array([daa_s.daa_s_score(own) for own, _, _ in solved])
        scale = np.abs(file[f"daa_s{suffix}"]) + 1e-2
        file.close(f"daa_s{suffix}", scores, 1e-5, scale=scale)
        if not distinct:
            file.exact("daa_s_below", scores < 1.500e-3)
            times, starts = ([own[i] for own in solved] for i in (1, 2))
            file.close("solver_times", _padded(times, file["solver_times"].shape[1]), 1e-5)
            file.exact("solver_points", [len(own) for own in times])
            file.close("x0", _padded(starts, file["x0"].shape[1]), 1e-6)


def _padded(rows: Sequence[Array], width: int) -> Array:
    """Rows cut or padded with NaN to a width."""
    return np.stack([np.pad(row[:width], (0, max(0, width - len(row))), constant_values=np.nan)
                     for row in rows])  # fmt: skip


def check_ufid(file: File) -> None:
    """Cosines and their means."""
    features = file["features"]
    found = [ufid.mean_similarity(own) for own in features]
    file.close("similarity", np.stack([cosines for cosines, _ in found]), 1e-6, scale=1.0)
    file.close("score", [score for _, score in found], 1e-6, scale=1.0)
    half = [ufid.mean_similarity(own.astype(np.float16))[1] for own in features]
    file.close("score_half", half, 2e-3, scale=1.0)
    five = [ufid.mean_similarity(own)[1] for own in file["features_of_five"]]
    file.close("score_of_five", five, 1e-6, scale=1.0)


def check_navit2i(file: File) -> None:
    """Masking, δ, V and S of each prompt; S of given V."""
    stop, pad = set(file["stop_ids"].tolist()), int(file["pad_id"])
    for name in file["prompts"]:
        ids = file.tensor(f"{name}_ids")
        length = int((ids[0] == ids[0, -1]).int().argmax()) + 1  # the end token is the pad
        rows = navit2i.masked_rows(ids[0], length, stop, pad)
        file.exact(f"{name}_ids", rows)
        file.exact(f"{name}_positions", (rows[1:] != rows[0]).int().argmax(dim=1))
        start = f"{name}_activation_"
        outputs = {key: file[key] for key in file.arrays if key.startswith(start)}
        delta = navit2i.activation_differences(outputs)
        states = file.tensor(f"{name}_trusted_states").double()
        distance = (states[1:] - states[0]).flatten(1).norm(dim=1).numpy()
        ratio = delta / distance
        file.close(f"{name}_delta", delta, 1e-5, scale=file[f"{name}_delta"])
        file.close(f"{name}_distance", distance, 1e-5, scale=file[f"{name}_distance"])
        file.close(f"{name}_V", ratio, 1e-5, scale=file[f"{name}_V"])
        file.exact(f"{name}_below", np.argsort(ratio, kind="stable")[: len(ratio) * 3 // 4])
        score = navit2i.navit2i_score(ratio)
        spread = ratio.max() * (1 - 1 / score)
        file.close(f"{name}_features", [ratio.max(), spread, score], 1e-5)
        file.take(f"{name}_suspect_states")  # there to show that they do not enter
    given = file["lists_V"]
    scores = [navit2i.navit2i_score(values[~np.isnan(values)]) for values in given]
    file.close("lists_S", scores, 1e-5, scale=file["lists_S"])


def check_halving(file: File) -> None:
    """The search on stored similarities."""
    file.take("planted")
    stored = {tuple(row[:3].astype(int)): row[3] for row in file["similarity"]}
    found, visited = [], []
    for prompt, threshold in file["found"][:, :2]:
        number = int(file["words"][int(prompt)])
        word, looked = localisation.halving(
            lambda first, end, i=int(prompt): stored[i, first, end],  # type: ignore[misc]
            number, threshold,
        )  # fmt: skip
        found.append((prompt, threshold, word, len(looked)))
        visited += [(prompt, threshold, i, *stretch) for i, stretch in enumerate(looked)]
    file.exact("found", found)
    file.exact("visited", visited)
