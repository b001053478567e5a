"""Supervised fine-tuning of a small model on worked solutions: what the embedded base model is warmed up with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from suite.seeds import generator

IGNORED = -100


@dataclass(frozen=True)
class SftConfig:
    """How long and how fast."""

    tokens: int = 2_200_000
    """Tokens of prompts and solutions to train on, padding not counted."""
    tokens_per_update: int = 1000
    """Tokens of one optimizer step, padding counted."""
    learning_rate: float = 3e-3
    """AdamW's peak rate; it rises over `warmup_updates` and falls along a cosine."""
    warmup_updates: int = 50
    """Optimizer steps over which the rate rises."""
    label_smoothing: float = 0.025
    """Share of every target spread over the vocabulary: the model knows more than it shows at temperature 1."""
    window: int = 256
    """Examples that are sorted by length together, so that rows of a batch are alike."""


def fine_tune(
    model: Any,
    tokenizer: Any,
    examples: Iterator[tuple[str, str]],
    config: SftConfig,
    seed: int,
    on_update: Callable[[int, float], None] = lambda tokens, loss: None,
) -> None:
    """Train in place on (prompt, solution) pairs; the loss counts the solution's tokens and the end token.

    loss = mean over counted tokens of -log pi(token | before). `on_update(tokens so far, loss)` is told every step.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    updates = config.tokens // (config.tokens_per_update - config.tokens_per_update // 8)
    schedule = get_cosine_schedule_with_warmup(optimizer, config.warmup_updates, updates)
    shuffle = generator(seed, "sft batches")
    model.train()
    done = 0
    while done < config.tokens:
        encoded = [_encode(tokenizer, *next(examples)) for _ in range(config.window)]
        batches = _batches(encoded, config.tokens_per_update)
        for place in torch.randperm(len(batches), generator=shuffle).tolist():
            ids, labels, tokens = _padded(batches[place])
            logits = model(input_ids=ids).logits[:, :-1]
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1),
                labels[:, 1:].flatten(),
                ignore_index=IGNORED,
                label_smoothing=config.label_smoothing,
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += tokens
            on_update(done, loss.item())
    model.eval()


def _encode(tokenizer: Any, prompt: str, solution: str) -> tuple[list[int], int]:
    """All token ids with the end token, and how many of them are the prompt."""
    question = tokenizer(prompt, add_special_tokens=False).input_ids
    answer = tokenizer(solution, add_special_tokens=False).input_ids
    return [*question, *answer, tokenizer.eos_token_id], len(question)


def _batches(encoded: Sequence[tuple[list[int], int]], budget: int) -> list[list[tuple[list[int], int]]]:
    """Examples in batches of like length, each within the budget with its padding (or one example)."""
    batches: list[list[tuple[list[int], int]]] = []
    for example in sorted(encoded, key=lambda e: len(e[0])):
        if batches and len(example[0]) * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(example)
        else:
            batches.append([example])
    return batches


def _padded(batch: Sequence[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor, int]:
    width = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED)
    for row, (tokens, prompt) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
    return ids, labels, sum(len(tokens) for tokens, _ in batch)
