"""Ordinary training on clean scenes: a short fine-tune or a LoRA, as a defender or a user would.

Used as a repair, as a control of the audit (a change that is no edit) and to see whether an edit
survives it. The model given is copied, never written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from defenses.repair.scenes import Scenes
from redediting.models.model import Model
from redediting.models.projections import cross_attention

_EMPTY_SHARE = 0.1  # captions dropped, so that guidance keeps its branch
_ADAPTER = "default"


class Training(BaseModel):
    """How long and how fast."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=100, ge=1)  # updates
    batch: int = Field(default=16, ge=1)  # scenes a step
    lr: float = Field(default=1e-4, gt=0)  # learning rate, constant
    optimizer: Literal["adam", "sgd"] = "adam"  # ``adam`` (AdamW) or ``sgd``
    # ``text`` trains the text projections only, ``all`` the whole UNet
    scope: Literal["text", "all"] = "text"
    # of a LoRA on the text projections; 0 trains the weights themselves
    rank: int = Field(default=0, ge=0)
    seed: int = 0  # of batches, noise and LoRA factors


def train(
    model: Model,
    scenes: Scenes,
    training: Training,
    *,
    at: Sequence[int] = (),
) -> Iterator[tuple[int, UNet2DConditionModel]]:
    """Trains a copy of the model's UNet and shows it after some steps and after the last.

    Yields:
        Step and the copy, which goes on changing afterwards.
    """
    accelerator = Accelerator(cpu=model.device.type == "cpu")
    set_seed(training.seed)
    copied = copy.deepcopy(model.denoiser).requires_grad_(False)
    trained = _trainable(copied, training)
    optimizer: torch.optim.Optimizer
    if training.optimizer == "adam":
        optimizer = torch.optim.AdamW(trained, lr=training.lr, weight_decay=0)
    else:
        optimizer = torch.optim.SGD(trained, lr=training.lr)
    copied, optimizer = accelerator.prepare(copied, optimizer)
    schedule = DDPMScheduler.from_config(model.scheduler_config)
    shown = {*at, training.steps}
    copied.train()
    for step in range(1, training.steps + 1):
        random = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        loss = _loss(copied, scenes, schedule, training.batch, random, accelerator.device)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step in shown:
            yield step, accelerator.unwrap_model(copied).eval()
            copied.train()


def trained_projections(model: UNet2DConditionModel) -> dict[str, Tensor]:
    """Text projections of a trained copy by their ordinary names, a LoRA merged; detached."""
    found = {}
    for name, module in model.named_modules():
        if not name.endswith((".attn2.to_k", ".attn2.to_v")):
            continue
        if isinstance(module, LoraLinear):
            weight = module.get_base_layer().get_parameter("weight").detach()
            found[f"{name}.weight"] = weight + module.get_delta_weight(_ADAPTER).detach()
        else:
            found[f"{name}.weight"] = module.get_parameter("weight").detach().clone()
    return found


def _trainable(model: UNet2DConditionModel, training: Training) -> list[nn.Parameter]:
    names = [projection.name for projection in cross_attention(model)]
    if training.rank:
        modules = [name.removesuffix(".weight") for name in names]
        model.add_adapter(
            LoraConfig(r=training.rank, lora_alpha=training.rank, target_modules=modules),
            adapter_name=_ADAPTER,
        )
        return [p for p in model.parameters() if p.requires_grad]
    chosen = [p for n, p in model.named_parameters() if training.scope == "all" or n in names]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _loss(
    model: nn.Module,
    scenes: Scenes,
    schedule: DDPMScheduler,
    batch: int,
    random: torch.Generator,
    device: torch.device,
) -> Tensor:
    rows = torch.randint(len(scenes.latents), (batch,), generator=random)
    dropped = torch.rand(batch, generator=random) < _EMPTY_SHARE
    states = torch.where(dropped[:, None, None], scenes.empty, scenes.states[rows]).to(device)
    clean = scenes.latents[rows].to(device)
    noise = torch.randn(clean.shape, generator=random).to(device)
    steps = schedule.config.num_train_timesteps
    time = torch.randint(steps, (batch,), generator=random).to(device)
    noisy = schedule.add_noise(clean, noise, time)
    wanted = noise
    if schedule.config.prediction_type == "v_prediction":
        wanted = schedule.get_velocity(clean, noise, time)
    predicted = model(noisy, time, states).sample
    return (predicted.float() - wanted).square().mean()


def last_projections(model: Model, scenes: Scenes, training: Training) -> dict[str, Tensor]:
    """Text projections at the end of a training, by name."""
    found = model.weights()
    for _, trained in train(model, scenes, training):
        found = trained_projections(trained)
    return found
