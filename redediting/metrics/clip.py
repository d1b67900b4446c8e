"""CLIP score and zero-shot labels of one open_clip model.

References:
    Hessel et al., "CLIPScore: a reference-free evaluation metric for image captioning", 2021.
    Radford et al., "Learning transferable visual models from natural language supervision", 2021.

Deviations:
    Hessel's score is 2.5·max(cos, 0); the field reports torchmetrics' scale, 100·max(cos, 0).
    torchmetrics clips the mean, here every image is, so that per-sample values stay meaningful;
    the two differ only when some image scores below zero.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import open_clip
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from redediting.config import Config
from redediting.errors import ConfigError, ModelError, PromptError
from redediting.io import one_line
from redediting.metrics.judge import JudgeSpec, Verdict
from redediting.text.encoding import shorten

TEMPLATE = "a photo of a {}"
_Item = TypeVar("_Item")


class ClipModel:
    """An open_clip model with its own image transform and tokenizer.

    Args:
        model: with ``encode_image`` and ``encode_text``; it is put in evaluation mode.
        preprocess: from an RGB image to the model's input.
        tokenizer: from texts, and perhaps ``context_length``, to token ids; it cuts longer texts.
        batch_size: images or texts at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        tokenizer: Callable[..., Tensor],
        *,
        batch_size: int = 64,
    ) -> None:
        self.model: Any = model.eval()
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self.device = next(model.parameters()).device

    def image_features(self, images: Sequence[Image.Image]) -> Tensor:
        """Returns (n, d) float32 features of unit norm, on the CPU; n >= 1."""

        def pixels(batch: Sequence[Image.Image]) -> Tensor:
            return torch.stack([self._preprocess(image) for image in batch])

        return self._features(images, pixels, self.model.encode_image)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Returns (n, d) float32 features of unit norm, on the CPU; n >= 1."""
        return self._features(texts, lambda t: self._tokenizer(list(t)), self.model.encode_text)

    def check_lengths(self, texts: Sequence[str]) -> None:
        """Raises PromptError for a text that the tokenizer would cut."""
        ids = self._tokenizer(list(texts))
        longer = self._tokenizer(list(texts), context_length=(length := ids.shape[1]) + 1)
        for text, cut in zip(texts, ids[:, -1] != longer[:, length - 1], strict=True):
            if cut:  # the end token moved
                raise PromptError(
                    f"expected at most the {length} tokens that the scoring text encoder takes, "
                    f"got more in {shorten(text)!r}; shorten it"
                )

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Returns the CLIP score of each of n >= 1 images with its prompt, (n,) in 0…100.

        Raises:
            ValueError: not as many prompts as images, or none.
        """
        if len(images) != len(prompts):
            raise ValueError(f"expected {len(images)} prompts, one an image, got {len(prompts)}")
        row = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        texts = self.text_features(list(row))[[row[prompt] for prompt in prompts]]
        cosines = (self.image_features(images) * texts).sum(dim=1)
        return 100 * cosines.clamp(min=0)

    def zero_shot(
        self, images: Sequence[Image.Image], labels: Sequence[str], template: str = TEMPLATE
    ) -> Verdict:
        """Classifies n >= 1 images by the label whose sentence is nearest.

        Probabilities are the softmax at the model's own temperature.

        Raises:
            ConfigError: a template without exactly one ``{}``, or no or repeated labels.
        """
        sentences = _sentences(labels, template)
        scale = float(self.model.logit_scale.detach().exp())
        cosines = self.image_features(images) @ self.text_features(sentences).T
        return Verdict(tuple(labels), (scale * cosines).softmax(dim=1))

    @torch.no_grad()
    def _features(
        self,
        items: Sequence[_Item],
        prepare: Callable[[Sequence[_Item]], Tensor],
        encode: Callable[[Tensor], Tensor],
    ) -> Tensor:
        if not items:
            raise ValueError("expected at least one image or text, got none")
        starts = range(0, len(items), self._batch_size)
        batches = (prepare(items[start : start + self._batch_size]) for start in starts)
        found = (encode(batch.to(self.device)).float() for batch in batches)
        return torch.cat([normalize(features, dim=-1).cpu() for features in found])


class ClipSpec(Config):
    """An open_clip model.

    Attributes:
        model: architecture by open_clip's name, ``hf-hub:owner/name``, or a local folder with
            ``open_clip_config.json`` and weights. OpenAI's weights need the names that end in
            ``-quickgelu``: with another activation they load, and their scores are wrong.
        pretrained: open_clip's tag of its weights, or a file; None where the folder or the hub has
            them.
    """

    model: str
    pretrained: str | None = None

    def load(self, device: str) -> ClipModel:
        """Opens the model on a device.

        Raises:
            ModelError: an unknown architecture, weights that are missing or do not fit, or another
                activation than the weights were trained with.
        """
        self._check_activation()
        name = f"local-dir:{self.model}" if Path(self.model).is_dir() else self.model
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="QuickGELU mismatch")
                model, preprocess = open_clip.create_model_from_pretrained(  # never random ones
                    name, pretrained=self.pretrained, device=device
                )
            tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # whatever its hub client, its loader and torch raise
            raise ModelError(
                f"expected an open_clip model {self.model!r} with weights {self.pretrained!r}, "
                f"got {one_line(error)}; name one of open_clip.list_pretrained(), a hub model "
                "or a folder, and fetch its weights where there is a network"
            ) from error
        return ClipModel(model, preprocess, tokenizer)

    def _check_activation(self) -> None:
        """Refuses a wrong activation before anything is fetched; open_clip warns afterwards."""
        name = self.model.replace("/", "-")
        if self.pretrained is None or name not in open_clip.list_models():
            return
        config: dict[str, Any] = open_clip.get_model_config(name)
        tag = open_clip.get_pretrained_cfg(name, self.pretrained)
        # a file: OpenAI's own are TorchScript archives, nobody else's are
        needed = tag.get("quick_gelu", False) if tag else _is_torchscript(self.pretrained) or None
        used = config.get("quick_gelu", False)
        if needed is None or needed == used:
            return
        plain = self.model.removesuffix("-quickgelu")
        raise ModelError(
            f"expected {'QuickGELU' if needed else 'GELU'}, with which the weights "
            f"{self.pretrained!r} were trained, got {self.model!r}, which has another activation; "
            f"name the model {plain + '-quickgelu' if needed else plain}"
        )


class ZeroShotJudge:
    """A `Judge` for real models: CLIP zero-shot over labels and a template that a config fixes."""

    def __init__(self, clip: ClipModel, labels: Sequence[str], template: str = TEMPLATE) -> None:
        _sentences(labels, template)
        self.labels = tuple(labels)
        self._clip = clip
        self._template = template

    def objects(self, images: Sequence[Image.Image]) -> list[str]:
        """Returns one label an image."""
        return self._clip.zero_shot(images, self.labels, self._template).objects


class ClipZeroShot(JudgeSpec):
    """CLIP zero-shot over labels; no published figure was judged so.

    Attributes:
        labels: what the judge chooses from; the same for all methods, fixed before the run.
        template: sentence in which a label is read.
        model: see `ClipSpec`.
        pretrained: likewise.
    """

    name: ClassVar[str] = "clip_zero_shot"
    labels: tuple[str, ...] = Field(default=(), description="at least two")
    template: str = TEMPLATE
    model: str = "ViT-B-16-quickgelu"
    pretrained: str | None = None

    def open(self, device: str) -> ZeroShotJudge:
        """See `JudgeSpec`."""
        if len(self.labels) < 2:
            raise ConfigError(
                f"expected at least two labels of the judge {self.name!r}, got "
                f"{list(self.labels)}; fix them in its option labels"
            )
        _sentences(self.labels, self.template)
        clip = ClipSpec(model=self.model, pretrained=self.pretrained).load(device)
        return ZeroShotJudge(clip, self.labels, self.template)


def _is_torchscript(path: str) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _sentences(labels: Sequence[str], template: str) -> list[str]:
    if template.count("{}") != 1:
        raise ConfigError(f"expected a template with one {{}} for the label, got {template!r}")
    if not labels or len(set(labels)) < len(labels):
        raise ConfigError(f"expected distinct labels, at least one, got {list(labels)}")
    return [template.replace("{}", label) for label in labels]
