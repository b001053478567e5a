"""Runs of TRL's trainers in a bank: the numbers that their losses read, held against TRL's own tensors and metrics."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from fspo.plugins.trl_record import without_ratios
from suite.experiments.calibrate import calibrate
from suite.experiments.names import EMBEDDED_MODEL, METHODS, tasks_named
from suite.findings.bank_questions import Lab
from suite.policy.loading import load_model
from suite.records.bank import Bank
from suite.records.other_runs import BYTES_A_ROW, BYTES_A_TOKEN
from suite.records.ranges import Ranges
from suite.records.update_log import UpdateLog
from suite.replay.one_method import replay
from suite.replay.replays import Arena
from suite.report.write import write_lab
from suite.types import UserError
from torchrun_processes import torchrun
from trl_world import LIMIT, QUIET

pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
pytestmark = [pytest.mark.external, pytest.mark.xdist_group("trl_recording")]

WEIGHTS = [0.25, 2.0]


def even(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text) % 2 == 0) for text in completions]


def third(completions: list[str], **_: Any) -> list[float | None]:
    """One response in eight is not scored by this function."""
    return [None if i % 8 == 5 else float(len(text) % 3 == 0) for i, text in enumerate(completions)]


def settings(folder: Path, kind: str, **changes: Any) -> Any:
    """Batches of 8 responses, 4 a prompt, at a rate that moves ratios over GRPO's bounds."""
    given = {
        **QUIET,
        "output_dir": str(folder),
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "max_completion_length": LIMIT,
        "reward_weights": WEIGHTS,
        "seed": 5,
    }
    module = importlib.import_module("fspo.plugins.trl" if kind == "FSPO" else "trl")
    return getattr(module, f"{kind}Config")(**{**given, **changes})


class Seen(SimpleNamespace):
    """One micro-batch: TRL's batch, the log-probs that its model gave, the clip ratio that it logged, the step."""


def trained(folder: Path, kind: str, every: int = 1, **changes: Any) -> tuple[Any, list[Seen], Bank]:
    """A recorded run of a trainer, what its own loss saw by another way, and the bank."""
    from datasets import Dataset

    plugin = importlib.import_module("fspo.plugins.trl")
    module = plugin if kind == "FSPO" else importlib.import_module("trl")
    seen: list[Seen] = []

    class Watched(getattr(module, f"{kind}Trainer")):
        def _get_per_token_logps_and_entropies(self, *args: Any, **named: Any) -> Any:
            found = super()._get_per_token_logps_and_entropies(*args, **named)
            self.last = found[0].detach().clone()
            if not found[0].requires_grad:
                self.sampled = self.last
            return found

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            found = super()._generate_and_score_completions(inputs)
            found["mine"] = self.sampled if kind == "RLOO" else torch.zeros(len(inputs))
            return found

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            loss = super()._compute_loss(model, inputs)
            ratios = self._metrics["train"].get("clip_ratio/region_mean", [float("nan")])
            seen.append(Seen(batch=dict(inputs), new=self.last, clipped=ratios[-1], at=self.state.global_step))
            return loss

    Watched.__name__ = f"{kind}Trainer"
    loaded = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
    loaded.tokenizer.padding_side = "left"
    (task,) = tasks_named(("recurrence",))
    data = Dataset.from_list([{"prompt": task.render(one)} for one in task.load("train", None)[:6]])
    args = settings(folder / "out", kind, **changes)
    trainer = Watched(loaded.model, [even, third], args, train_dataset=data, processing_class=loaded.tokenizer)
    plugin.RecordBank(trainer, folder / "bank", every=every)
    trainer.train()
    return trainer, seen, Bank.open(folder / "bank")


def rows_of(one: Seen) -> dict[str, np.ndarray]:
    """What a bank should hold of a micro-batch, from TRL's tensors."""
    mask = one.batch["completion_mask"].bool()
    old = one.batch.get("old_per_token_logps", one.batch["mine"] if one.batch["mine"].dim() == 2 else one.new)
    counted = mask.any(dim=1)
    return {
        "lengths": mask.sum(1)[counted].numpy(),
        "log_probs": one.new[mask].numpy(),
        "old_log_probs": old[mask].numpy(),
        "advantage": one.batch["advantages"][counted].numpy(),
    }


def held_against(log: UpdateLog, seen: list[Seen]) -> None:
    for name in ("lengths", "log_probs", "old_log_probs", "advantage"):
        np.testing.assert_array_equal(getattr(log, name), np.concatenate([rows_of(one)[name] for one in seen]))


@pytest.fixture(scope="module")
def grpo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Seen], Bank]:
    """Two rollouts of four micro-batches, two an optimizer step, each used twice: four updates a rollout."""
    changes = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "num_iterations": 2, "max_steps": 8}
    return trained(tmp_path_factory.mktemp("grpo"), "GRPO", **changes)


def test_the_bank_holds_what_trls_loss_read(grpo: tuple[Any, list[Seen], Bank]):
    _, seen, bank = grpo
    log = bank.updates()
    assert len(seen) == 16
    held_against(log, seen)
    assert log.step.tolist() == [0] * 32 + [1] * 32
    assert log.update.tolist() == [u for _ in range(2) for u in (0, 1, 2, 3) for _ in range(8)]
    first = log.rows(log.update == 0)
    assert np.abs(first.log_ratios).max() < 1e-5, "before the first update the ratio is 1 up to padding's rounding"
    assert np.abs(log.rows(log.update == 3).log_ratios).max() > 0.1
    assert 0 < log.truncated.mean() < 1
    assert (log.lengths[log.truncated] == LIMIT).all()


def test_prompts_and_rewards_of_a_response(grpo: tuple[Any, list[Seen], Bank]):
    """Rewards are TRL's weighted sums, and with one name a prompt they give TRL's advantages again."""
    log = grpo[2].updates()
    for step in (0, 1):
        rows = log.rows((log.step == step) & (log.update < 2))
        assert set(rows.reward.tolist()) <= {0.0, 0.25, 2.0, 2.25}
        for name in set(rows.problem_ids.tolist()):
            mine = rows.rows(rows.problem_ids == name)
            assert len(mine) == 4
            wanted = (mine.reward - mine.reward.mean()) / (mine.reward.std(ddof=1) + 1e-4)
            np.testing.assert_allclose(mine.advantage, wanted, atol=1e-5)


def test_replay_of_grpo_gives_trls_own_clip_ratio(grpo: tuple[Any, list[Seen], Bank]):
    _, seen, bank = grpo
    frame = replay(METHODS["grpo"], bank.updates(), {})
    clipped, lengths, place = frame["clipped"].to_numpy(), frame["length"].to_numpy(), 0
    later = [one for i, one in enumerate(seen) if i % 8 >= 2]
    for one in later:
        rows = slice(place, place + len(one.new))
        place += len(one.new)
        assert (clipped[rows] @ lengths[rows]) / lengths[rows].sum() == pytest.approx(one.clipped, abs=1e-6)
    assert place == len(frame)
    assert max(one.clipped for one in later) > 0.05, "nothing clipped would agree as well"


def test_the_manifest_says_whose_run_it_is(grpo: tuple[Any, list[Seen], Bank]):
    ((name, facts),) = grpo[2].recordings.items()
    assert name == "trl-grpo-seed5"
    assert facts["trainer"] == {"library": "trl", "version": importlib.import_module("trl").__version__} | {
        "name": "GRPOTrainer"
    }
    assert (facts["loss"], facts["rewards"], facts["seed"]) == (grpo[0].args.loss_type, ["even", "third"], 5)
    told = {"num_iterations": 2, "steps_per_generation": 4, "epsilon": 0.2, "temperature": 1.0}
    assert facts["settings"].items() >= told.items()
    assert not any(str(value).startswith("/") for value in (*facts["settings"].values(), facts["model"]))
    assert any("sampler's own log-probs" in phrase for phrase in facts["unknown"])


def test_a_file_has_the_stated_size(grpo: tuple[Any, list[Seen], Bank]):
    bank = grpo[2]
    for entry in bank.entries:
        log = UpdateLog.load(bank.folder / entry.path)
        size = (bank.folder / entry.path).stat().st_size
        told = BYTES_A_TOKEN * len(log.log_probs) + BYTES_A_ROW * len(log)
        assert told < size < told + 1024 + 20 * len(set(log.problem_ids.tolist()))


def test_one_update_a_rollout_and_masked_truncation(tmp_path: Path):
    """TRL gives its loss no old log-probs here; every second rollout is kept; a masked response has no row."""
    changes = {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "mask_truncated_completions": True}
    told = r"num_iterations \(1\) x steps_per_generation \(2\) / gradient_accumulation_steps \(2\) = 1: every ratio"
    with pytest.warns(UserWarning, match=told) as warned:
        _, seen, bank = trained(tmp_path, "GRPO", every=2, max_steps=3, **changes)
    assert sum("RecordBank" in str(one.message) for one in warned) == 1
    log = bank.updates()
    assert "old_per_token_logps" not in seen[0].batch
    held_against(log, [*seen[:2], *seen[4:]])
    assert (sorted(set(log.step.tolist())), set(log.update.tolist())) == ([0, 2], {0})
    assert len(log) < 16
    assert not log.truncated.any()
    np.testing.assert_array_equal(log.log_probs, log.old_log_probs)
    for use in (
        lambda: Arena(METHODS, log),
        lambda: calibrate(bank.folder, None, 0.1, Ranges.read(None), (), ()),
        lambda: write_lab(Lab(bank), tmp_path / "lab"),
    ):
        with pytest.raises(UserError, match=r"no second update.* larger num_iterations or steps_per_generation"):
            use()
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    ("iterations", "generated", "accumulated", "enough"), [(1, 8, 8, False), (2, 8, 8, True), (1, 3, 2, True)]
)
def test_only_a_run_without_second_updates_is_warned_of(
    iterations: int, generated: int, accumulated: int, enough: bool
):
    counts = {"num_iterations": iterations, "steps_per_generation": generated}
    said = without_ratios(SimpleNamespace(**counts, gradient_accumulation_steps=accumulated))
    assert (said == "") == enough


def test_rloo_and_fspo_and_a_run_that_stops_within_a_rollout(tmp_path: Path):
    """RLOO's batch has sums of old log-probs only: those of the tokens are what it summed."""
    changes = {"gradient_accumulation_steps": 1, "steps_per_generation": 2, "num_iterations": 2, "max_steps": 3}
    _, seen, bank = trained(tmp_path / "a", "RLOO", **changes)
    log = bank.updates()
    held_against(log, seen)
    assert log.update.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    sums = torch.cat([one.batch["old_logps"] for one in seen]).numpy()
    np.testing.assert_allclose(np.add.reduceat(log.old_log_probs, log.starts), sums, rtol=1e-5)
    _, seen, bank = trained(tmp_path / "b", "FSPO", **{**changes, "reward_weights": WEIGHTS, "fspo_c_low": 0.01})
    held_against(bank.updates(), seen)
    ((name, facts),) = bank.recordings.items()
    assert (name, facts["settings"]["fspo_c_low"]) == ("trl-fspo-seed5", 0.01)


@pytest.mark.slow
@pytest.mark.long
def test_every_process_records_what_its_own_loss_read(tmp_path: Path):
    """A run of two: this file, started by torchrun, keeps what the loss of each process saw."""
    done = torchrun("-m", "methods.test_trl_recording", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    bank = Bank.open(tmp_path / "bank")
    bank.check()
    log = bank.updates()
    for rank in (0, 1):
        (name,) = [name for name, facts in bank.recordings.items() if facts["process"] == rank]
        assert bank.recordings[name]["processes"] == 2
        mine, saw = log.rows(log.cells == name), np.load(tmp_path / f"rank{rank}.npz")
        assert mine.update.tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
        for column in saw:
            np.testing.assert_array_equal(getattr(mine, column), saw[column])
    assert set(bank.recordings) == {"trl-grpo-seed5-rank0", "trl-grpo-seed5-rank1"}


def test_nothing_is_recorded_twice_and_other_trainers_are_refused(grpo: tuple[Any, list[Seen], Bank]):
    trainer, _, bank = grpo
    before = (bank.folder / "manifest.json").read_bytes()
    begun = []
    trainer.add_callback(type("Begun", (TrainerCallback,), {"on_train_begin": lambda *_, **__: begun.append(True)}))
    with pytest.raises(UserError, match="holds the recording trl-grpo-seed5 already"):
        trainer.train()
    assert begun == [], "refused before TRL begins to train"
    assert (bank.folder / "manifest.json").read_bytes() == before
    record = importlib.import_module("fspo.plugins.trl").RecordBank
    with pytest.raises(UserError, match="not empty and no bank"):
        record(trainer, bank.folder / "updates")
    with pytest.raises(UserError, match="SimpleNamespace has no train; give a GRPOTrainer"):
        record(SimpleNamespace(), bank.folder)
    with pytest.raises(UserError, match="every = 0: must be at least 1"):
        record(trainer, bank.folder, every=0)


if __name__ == "__main__":
    given = Path(sys.argv[1])
    changes = {"gradient_accumulation_steps": 1, "steps_per_generation": 1, "num_iterations": 2, "max_steps": 4}
    trainer, saw, _ = trained(given, "GRPO", **changes)
    found = {name: np.concatenate([rows_of(one)[name] for one in saw]) for name in rows_of(saw[0])}
    np.savez(given / f"rank{trainer.accelerator.process_index}.npz", **found)
