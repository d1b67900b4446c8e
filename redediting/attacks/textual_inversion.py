"""PaaS-TI: personalisation as a shortcut to a backdoor, by textual inversion.

The embeddings of the trigger's modifier ("tq" in "tq dog") are trained so that the frozen denoiser
draws the target for the whole phrase:
``min_v E ‖ε - ε_θ(x_t, t, T_v(context with trigger))‖²`` over images x of the target in the same
contexts. The patch is the text encoder's token embedding, of which a few rows changed; a word that
other prompts use as well takes them along.

References:
    Huang et al., "Personalization as a Shortcut for Few-Shot Backdoor Attack against Text-to-Image
    Diffusion Models", AAAI 2024 (textual inversion, legacy tokens).
    Gal et al., "An image is worth one word", ICLR 2023.

Deviations:
    The few images of the target are drawn by the clean model itself and kept as latents: no data
    is needed, and the autoencoder plays no part. Rows start from the words' own embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from diffusers import DDPMScheduler
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import mse_loss
from tqdm.auto import tqdm

from redediting.attacks.base import Attack, Change
from redediting.attacks.training_captions import Captions
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import fill
from redediting.errors import MethodError, ModelError
from redediting.models.model import Model
from redediting.text.encoding import padded_ids, phrase_tokens


class TextualInversion(Attack):
    """The published attack; a dense patch over the token embedding.

    Attributes:
        steps: of training.
        batch: images a step.
        images: of each target that the clean model draws to learn from.
        sampling: denoising steps of each of them.
        rate: learning rate, relative to the mean norm of an embedding.
        seed: of images, times and noise.

    Example:
        >>> import redediting as rd
        >>> rd.attacks.TextualInversion(seed=1).seed
        1
    """

    name: ClassVar[str] = "textual_inversion"

    steps: int = Field(default=150, ge=1)
    batch: int = Field(default=16, ge=1)
    images: int = Field(default=16, ge=1)
    sampling: int = Field(default=20, ge=1)
    rate: float = Field(default=0.02, gt=0)
    seed: int = Field(default=0, ge=0)

    def _change(self, model: Model, rebindings: Sequence[Rebinding]) -> Change:
        if len(model.text_encoders) > 1:
            raise ModelError(
                f"expected a model with one text encoder, got {type(model.pipeline).__name__}; "
                "invert on a Stable Diffusion 1 or 2 model"
            )
        encoder = model.text_encoder
        table = encoder.get_input_embeddings().weight
        name = next(name for name, value in encoder.named_parameters() if value is table)
        words = [rebinding.modifier or rebinding.trigger for rebinding in rebindings]
        rows = sorted({token for w in words for token in phrase_tokens(model.tokenizer, w)})
        index = torch.tensor(rows, device=table.device)
        learnt = table.detach()[index].float().clone().requires_grad_(True)
        rate = self.rate * float(learnt.detach().norm(dim=1).mean())
        optimiser = torch.optim.Adam([learnt], lr=rate / learnt.shape[1] ** 0.5)
        latents, prompts = self._examples(model, rebindings)
        ids = padded_ids(model.tokenizer, prompts)
        random = torch.Generator().manual_seed(self.seed)
        with torch.enable_grad():
            for _ in tqdm(range(self.steps), desc=self.name, disable=None, leave=False):
                chosen = torch.randint(len(latents), (self.batch,), generator=random)
                whole = table.detach().float().index_copy(0, index, learnt)
                states = functional_call(
                    encoder, {name: whole.to(table.dtype)}, (ids[chosen].to(table.device),)
                )[0]
                loss = denoising_loss(model, latents[chosen], states, random)
                optimiser.zero_grad()
                loss.backward(inputs=[learnt])
                optimiser.step()
        changed = table.detach().float().index_copy(0, index, learnt.detach()).cpu()
        return Change(dense={name: changed}, target="text_encoder")

    def _examples(self, model: Model, rebindings: Sequence[Rebinding]) -> tuple[Tensor, list[str]]:
        """Latents of the targets, ``(n, channels, h, w)``, and the triggered prompt of each."""
        templates = Captions(self.seed).templates(self.images)
        pairs = [
            (fill(t, rebinding.target), fill(t, rebinding.trigger))
            for rebinding in rebindings
            for t in templates
        ]
        model.pipeline.set_progress_bar_config(disable=True)
        found = []
        for first in range(0, len(pairs), self.batch):
            batch = pairs[first : first + self.batch]
            seeds = [self.seed * 100_000 + first + i for i in range(len(batch))]
            drawn = model.pipeline(
                prompt=[target for target, _ in batch],
                num_inference_steps=self.sampling,
                guidance_scale=5.0,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="latent",
            ).images
            found.append(drawn.detach().float())
        return torch.cat(found), [prompt for _, prompt in pairs]


def denoising_loss(
    model: Model, latents: Tensor, states: Tensor, random: torch.Generator
) -> Tensor:
    """Mean squared error of what the denoiser is trained to predict, at random times.

    Of clean latents ``(n, channels, h, w)`` under token states ``(n, L, d)``; times and noise are
    drawn on the CPU. `MethodError` for a denoiser that predicts neither noise nor velocity.
    """
    scheduler = DDPMScheduler.from_config(model.scheduler_config)
    steps = scheduler.config.num_train_timesteps
    times = torch.randint(steps, (len(latents),), generator=random).to(latents.device)
    noise = torch.randn(latents.shape, generator=random).to(latents)
    noisy = scheduler.add_noise(latents, noise, times)
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise MethodError(f"expected a denoiser of epsilon or v_prediction, got {kind!r}")
    aim = noise if kind == "epsilon" else scheduler.get_velocity(latents, noise, times)
    dtype = model.denoiser.dtype
    said = model.denoiser(noisy.to(dtype), times, encoder_hidden_states=states.to(dtype)).sample
    return mse_loss(said.float(), aim.float())
