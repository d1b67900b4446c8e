"""The world's tokenizer and text encoder.

The tokenizer is CLIP's byte-pair vocabulary cut to its first merges: any string tokenises, and
common words stay whole. The encoder is the text half of a small CLIP trained
contrastively on the training scenes, then frozen; length 77 and causal, as in Stable Diffusion.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import open_clip
import torch
from open_clip.tokenizer import bytes_to_unicode
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from experiments.training.data import Split, as_pixels
from experiments.training.loop import Schedule, train

CONTEXT = 77


def build_tokenizer(merges: int) -> CLIPTokenizer:
    """CLIP's tokenizer with the first ``merges`` merges (they ship inside open_clip)."""
    path = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : merges + 1]
    rules = [tuple(line.split()) for line in lines]
    alphabet = list(bytes_to_unicode().values())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, rules)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=rules, model_max_length=CONTEXT)


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Ids padded to 77: (n, 77)."""
    encoded = tokenizer(
        texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids


def contrastive_loss(logits: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE; equal captions in a batch share the target mass. ``texts``: (n,) ids."""
    same = (texts[:, None] == texts[None]).float()
    target = same / same.sum(1, keepdim=True)
    rows = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = -(target * logits.t().log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def build_clip(tokenizer: CLIPTokenizer, *, width: int, layers: int) -> CLIPModel:
    """An untrained CLIP: the text tower that ships and an image tower that is thrown away."""
    size = len(tokenizer)
    config = CLIPConfig(
        text_config={
            "vocab_size": size,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "max_position_embeddings": CONTEXT,
            "projection_dim": 128,
            "bos_token_id": size - 2,
            "eos_token_id": size - 1,
            "pad_token_id": size - 1,
        },
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "image_size": 64,
            "patch_size": 8,
            "projection_dim": 128,
        },
        projection_dim=128,
    )
    # the CPU's fused attention is slow backwards at these sizes
    return CLIPModel._from_config(config, attn_implementation="eager")


def train_text_encoder(
    split: Split,
    tokenizer: CLIPTokenizer,
    schedule: Schedule,
    folder: Path,
    *,
    width: int,
    layers: int,
) -> CLIPTextModel:
    """Trains the CLIP on captions trimmed to the longest of the batch; returns its text tower."""
    torch.manual_seed(schedule.seed)
    model = build_clip(tokenizer, width=width, layers=layers)
    distinct = {text: i for i, text in enumerate(dict.fromkeys(c.text for c in split.captions))}
    ids = tokenize(tokenizer, list(distinct))
    caption_of = torch.tensor([distinct[c.text] for c in split.captions])

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(split), (schedule.batch,), generator=generator)
        texts = caption_of[rows]
        batch = ids[texts]
        longest = int((batch != tokenizer.eos_token_id).sum(1).max()) + 1
        with torch.autocast("cpu", torch.bfloat16):
            output = model(
                input_ids=batch[:, :longest], pixel_values=as_pixels(split.images[rows])
            )
        return contrastive_loss(output.logits_per_image.float(), texts)

    train(model, loss, schedule, name="text_encoder", folder=folder)
    encoder = CLIPTextModel(model.config.text_config)
    prefix = "text_model."
    state = model.state_dict()
    encoder.load_state_dict(
        {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    )
    return encoder.eval()
