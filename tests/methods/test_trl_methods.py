"""Every critic-free method inside TRL's trainer: an optimizer step on TRL's own batches is the suite's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from suite.experiments.names import METHODS
from suite.types import CreditInput, Method, State

pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
from trl_world import gradient_of, our_step, rewards, same_gradient, settings, trainer_of

pytestmark = [pytest.mark.external, pytest.mark.slow, pytest.mark.xdist_group("trl_methods")]

NAMES = [name for name, method in METHODS.items() if "values" not in method.needs]
BEFORE: State = {"drift": -1e-3, "sigma": 0.02}
"""Running estimates from earlier steps, for the methods that read some."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One rollout batch, two optimizer steps of two micro-batches each: the policy has left the old log-probs."""
    args = settings(tmp_path_factory.mktemp("trl"), gradient_accumulation_steps=2, max_steps=2, seed=5)
    trainer = trainer_of(args)
    trainer.train()
    return trainer


def step_of(trainer: Any, method: Method, state: State) -> tuple[float, Any]:
    """Loss and gradient of one more optimizer step with this method, through TRL's own training step."""
    trainer.method, trainer.method_state, trainer._step = method, state, 2
    trainer.model.zero_grad()
    loss = 0.0
    for is_last in (False, True):
        trainer.accelerator.gradient_state._set_sync_gradients(is_last)
        loss += float(trainer.training_step(trainer.model_wrapped, None, None))
    return loss, gradient_of(trainer.model)


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_step_is_the_suites(name: str, trained: Any):
    method = METHODS[name]
    state = BEFORE if method.reads_state(method.hyper) else {}
    loss, gradient = step_of(trained, method, state)
    weights = dict(trained.model.named_parameters())
    report, wanted, after = our_step(weights, trained._buffered_inputs, method, state)
    assert loss == pytest.approx(-report.objective, abs=3e-6)
    same_gradient(gradient, wanted)
    assert trained.method_state == pytest.approx(dict(after), rel=1e-3)
    assert max(float(x.abs().max()) for x in wanted.values()) > 1e-5, "nothing to compare"


def test_the_halves_differ_in_tokens(trained: Any):
    """Otherwise a mean of means would be a mean over tokens."""
    tokens = [int(batch["completion_mask"].sum()) for batch in trained._buffered_inputs]
    assert len(tokens) == 2
    assert tokens[0] != tokens[1]


def wanted_advantages(method: Method, texts: list[str], asked: list[Any]) -> list[float]:
    """The method's rule on the rewards of the texts themselves, each compared with the others of its prompt."""
    groups = torch.tensor([asked.index(prompt) for prompt in asked])
    seen = CreditInput(torch.tensor(rewards(texts)), groups, torch.ones(len(texts), 1, dtype=torch.bool))
    return method.credit(seen, method.hyper).advantages[:, 0].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_advantages_are_the_methods(name: str, trained: Any):
    trained.method = METHODS[name]
    found = trained._advantages(torch.ones(16, 1, dtype=torch.bool)).tolist()
    wanted = wanted_advantages(METHODS[name], list(trained._logs["completion"]), list(trained._logs["prompt"]))
    assert found == pytest.approx(wanted, abs=1e-6)
    assert list(trained._logs["advantages"]) == found, "what the table of completions shows"


def test_every_response_was_trained_with_its_own_advantage(trained: Any):
    batches = trained._buffered_inputs
    texts = [t for b in batches for t in trained._tokenizer.batch_decode(b["completion_ids"], skip_special_tokens=True)]
    asked = [ids for b in batches for ids in b["prompt_ids"].tolist()]
    found = torch.cat([b["advantages"] for b in batches]).tolist()
    assert len(set(found)) > 4
    assert found == pytest.approx(wanted_advantages(METHODS["fspo"], texts, asked), abs=1e-6)
