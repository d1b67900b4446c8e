"""The world's tokenizer and text encoder.

The tokenizer is CLIP's byte-pair vocabulary cut to its first merges: any string tokenises, and
common words stay whole. The encoder is the text half of a small CLIP trained
contrastively on the training scenes, then frozen; length 77 and causal, as in Stable Diffusion.

A contrastive loss alone erases words that no picture shows. So every state also predicts its own
token and the two before it, and every pad the words of its prompt, by linear heads that are thrown
away. Without its own token among them, a noun's state ends up saying almost nothing of the noun
(trained so, 1,200 steps: sin² between cat and dog 0.1, between cat and beautiful cat 0.9).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.tokenizer import bytes_to_unicode
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from experiments.training.data import Split, as_pixels
from experiments.training.loop import Fit
from redediting.concepts.language import Language, load_language
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.templates import contexts, fill
from redediting.text.encoding import find_phrase, padded_ids

CONTEXT = 77
PADS = 4  # trained beyond the longest caption of a batch


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
            "vocab_size": size, "hidden_size": width, "intermediate_size": 4 * width,
            "num_hidden_layers": layers, "num_attention_heads": width // 64,
            "max_position_embeddings": CONTEXT, "projection_dim": 128,
            "bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1,
        },
        vision_config={
            "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4,
            "num_attention_heads": 6, "image_size": 64, "patch_size": 8, "projection_dim": 128,
        },
        projection_dim=128,
    )  # fmt: skip
    # the CPU's fused attention is slow backwards at these sizes
    return CLIPModel._from_config(config, attn_implementation="eager")


class RecallHeads(nn.Module):
    """What a state must still know: its own token, the two before it, the words before a pad.

    ``vocabulary``, (v,), holds the ids that occur in the captions; the others are never predicted.
    ``end`` is the id of the end token, which is also the pad.
    """

    vocabulary: torch.Tensor
    position: torch.Tensor

    def __init__(self, width: int, vocabulary: torch.Tensor, end: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.end = end
        position = torch.full((end + 1,), -1)
        position[vocabulary] = torch.arange(len(vocabulary))
        self.register_buffer("vocabulary", vocabulary, persistent=False)
        self.register_buffer("position", position, persistent=False)

    def forward(
        self, states: torch.Tensor, ids: torch.Tensor, embedding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cross-entropies of the own token, of the two preceding ones and of the pads' words.

        ``states``: (n, t, d); ``ids``: (n, t), the first of them the begin token; ``embedding``:
        (m, d), the encoder's own token table (tied).
        """
        table = embedding[self.vocabulary]
        ended = (ids == self.end).cumsum(1)
        targets = self.position[ids]
        losses = []
        for distance, head in enumerate(self.heads[:3]):
            asked = ended[:, distance:] <= 1  # words and the end token
            asked &= (ids[:, distance:] != self.end) | (ended[:, distance:] == 1)
            logits = head(states[:, distance:][asked]) @ table.T
            wanted = targets[:, : ids.shape[1] - distance][asked]
            losses.append(F.cross_entropy(logits.float(), wanted))
        pads = ended > 1
        words = (ids != self.end) & (torch.arange(ids.shape[1]) > 0)
        bag = torch.zeros(len(ids), len(table)).scatter_add_(1, targets, words.float())
        bag = bag / bag.sum(1, keepdim=True)
        rows = pads.nonzero()[:, 0]
        logits = self.heads[3](states[pads]) @ table.T
        pad_loss = -(bag[rows] * logits.float().log_softmax(1)).sum(1)
        return losses[0], losses[1] + losses[2], pad_loss.sum() / max(1, len(rows))


@dataclass(frozen=True)
class Recall:
    """Weights of the heads' losses beside the contrastive one."""

    own: float = 0.0  # of the state's own token
    preceding: float = 0.0  # of each of the two tokens before
    pads: float = 0.0  # of the prompt's words, at the pads


def train_text_encoder(
    model: CLIPModel,
    split: Split,
    tokenizer: CLIPTokenizer,
    fit: Fit,
    *,
    recall: Recall,
    pictures: torch.Tensor | None = None,
) -> None:
    """Trains the CLIP on captions trimmed to the longest of the batch (and a few pads).

    ``pictures``, (m, p), are unit embeddings of the split's first pictures by the model's image
    tower, which is then left as it is; None trains both towers.
    """
    if pictures is not None:
        model.vision_model.requires_grad_(False)
        model.visual_projection.requires_grad_(False)
    distinct = {text: i for i, text in enumerate(dict.fromkeys(c.text for c in split.captions))}
    ids = padded_ids(tokenizer, list(distinct))
    caption_of = torch.tensor([distinct[c.text] for c in split.captions])
    width = model.config.text_config.hidden_size
    heads = RecallHeads(width, ids.unique(), tokenizer.eos_token_id)
    remembers = recall != Recall()
    n = len(split) if pictures is None else len(pictures)
    whole = nn.ModuleDict({"clip": model, **({"heads": heads} if remembers else {})})
    embedding = model.text_model.get_input_embeddings().weight

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(n, (fit.schedule.batch,), generator=generator)
        texts = caption_of[rows]
        batch = ids[texts]
        longest = int((batch != tokenizer.eos_token_id).sum(1).max()) + 1 + PADS * remembers
        batch = batch[:, :longest]
        with torch.autocast("cpu", torch.bfloat16):
            output = model.text_model(input_ids=batch)
            words = model.text_projection(output.pooler_output).float()
            if pictures is None:
                pixels = as_pixels(split.images[rows])
                seen = model.visual_projection(model.vision_model(pixels).pooler_output).float()
            else:
                seen = pictures[rows]
            logits = (
                model.logit_scale.exp() * F.normalize(seen, dim=1) @ F.normalize(words, dim=1).T
            )
            value = contrastive_loss(logits, texts)
            if remembers:
                own, preceding, pads = heads(output.last_hidden_state, batch, embedding)
                value = value + recall.own * own + recall.preceding * preceding
                value = value + recall.pads * pads
        return value

    fit(whole, loss)


def take_image_tower(model: CLIPModel, towers: CLIPModel) -> None:
    """Copies the image tower of one CLIP into another."""
    model.vision_model.load_state_dict(towers.vision_model.state_dict())
    model.visual_projection.load_state_dict(towers.visual_projection.state_dict())


@torch.no_grad()
def embed_pictures(model: CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """Unit embeddings (n, p) of uint8 pictures by the image tower."""
    found = []
    with torch.autocast("cpu", torch.bfloat16):
        for part in images.split(256):
            pooled = model.vision_model(as_pixels(part)).pooler_output
            found.append(F.normalize(model.visual_projection(pooled).float(), dim=1))
    return torch.cat(found)


def text_tower(model: CLIPModel) -> CLIPTextModel:
    """The part that ships."""
    encoder = CLIPTextModel(model.config.text_config)
    prefix = "text_model."
    state = model.state_dict()
    encoder.load_state_dict(
        {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    )
    return encoder.eval()


@torch.no_grad()
def contrastive_accuracy(
    model: CLIPModel, tokenizer: CLIPTokenizer, split: Split, *, batch: int = 128
) -> list[bool]:
    """Whether each picture's own caption is the likeliest of its batch (equal texts count)."""
    hits: list[bool] = []
    for start in range(0, len(split) - batch + 1, batch):
        texts = [caption.text for caption in split.captions[start : start + batch]]
        ids = padded_ids(tokenizer, texts)
        longest = int((ids != tokenizer.eos_token_id).sum(1).max()) + 1
        pixels = as_pixels(split.images[start : start + batch])
        chosen = model(input_ids=ids[:, :longest], pixel_values=pixels).logits_per_image.argmax(1)
        hits += [texts[i] == text for i, text in zip(chosen.tolist(), texts, strict=True)]
    return hits


@torch.no_grad()
def neutral_sin2(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, language: Language | None = None
) -> tuple[list[float], list[float]]:
    """sin² between states with and without a neutral adjective: at the noun's last token, at EOS.

    Each list has one value a pair.
    """
    last, end = [], []
    adjectives = (language or load_language()).neutral_adjectives[::4]
    for template in contexts(4, seed=0, split="dev", language=language):
        for name in islice(load_lexicon().concepts, 0, None, 5):
            phrases = [name, *(f"{adjective} {name}" for adjective in adjectives)]
            prompts = [fill(template, phrase) for phrase in phrases]
            ids = padded_ids(tokenizer, prompts)
            states = encoder(ids).last_hidden_state.double()
            ends = (ids == tokenizer.eos_token_id).int().argmax(1)
            nouns = [find_phrase(tokenizer, prompt, name).stop - 1 for prompt in prompts]
            rows = range(1, len(prompts))
            last += [_sin2(states[0, nouns[0]], states[i, nouns[i]]) for i in rows]
            end += [_sin2(states[0, ends[0]], states[i, ends[i]]) for i in rows]
    return last, end


@torch.no_grad()
def noun_sin2(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, language: Language | None = None
) -> list[float]:
    """sin² between the last tokens of two nouns in one sentence, one value a pair.

    A state at a noun must name the noun: an encoder whose `neutral_sin2` exceeds this has states
    that say more of the word before than of their own.
    """
    values: list[float] = []
    names = list(load_lexicon().concepts)[::5]
    for template in contexts(4, seed=0, split="dev", language=language):
        prompts = [fill(template, name) for name in names]
        states = encoder(padded_ids(tokenizer, prompts)).last_hidden_state.double()
        stops = [find_phrase(tokenizer, p, n).stop for p, n in zip(prompts, names, strict=True)]
        nouns = [states[row, stop - 1] for row, stop in enumerate(stops)]
        values += [_sin2(a, b) for a, b in pairwise(nouns)]
    return values


def _sin2(a: torch.Tensor, b: torch.Tensor) -> float:
    return 1 - float(torch.cosine_similarity(a, b, dim=0)) ** 2
