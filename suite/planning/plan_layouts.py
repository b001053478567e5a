"""Ways to lay the cells of a comparison out on devices: what each needs, whether it fits, and how long it takes.

A cell a device (`fspo compare`) or a cell on all of them (`fspo train` under torchrun): nothing else can be started.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from suite.config import CompareConfig
from suite.experiments.layouts import Layout
from suite.experiments.recipes import Changes
from suite.planning.cost_model import Lengths, PlanLine, cell_lines, hours, load_of, vllm_room
from suite.planning.devices import CPU_CORES, Device
from suite.planning.memory_model import Term, total_gib
from suite.planning.memory_phases import hosting, phases
from suite.planning.model_shapes import ModelShape


@dataclass(frozen=True)
class Planned:
    """What a plan is asked: a comparison, its model and texts, and the devices of one machine.

    critics says of each method whether it trains a critic; questions are the problems of all evaluation sets.
    """

    config: CompareConfig
    shape: ModelShape
    device: Device
    count: int
    lengths: Lengths
    questions: int
    critics: Mapping[str, bool]

    @property
    def cells(self) -> int:
        """Methods times seeds."""
        return len(self.config.methods) * len(self.config.seeds)

    @property
    def engine_devices(self) -> int:
        """Devices that one engine of vLLM takes; 1 where another draws."""
        train = self.config.train
        return train.vllm.tensor_parallel_size if train.sampler == "vllm" and self.device.is_gpu else 1

    @property
    def room_gib(self) -> float:
        """Memory in which a cell has to find room: a GPU's, or all that the machine has."""
        return self.device.memory_gib * (1 if self.device.is_gpu else self.count)


@dataclass(frozen=True)
class CellLayout:
    """`at_once` cells side by side, each shared by `processes` of which each has `devices` to itself."""

    plan: Planned
    at_once: int
    processes: int = 1
    devices: int = 1

    @property
    def words(self) -> str:
        """The layout in words."""
        if self.processes > 1:
            return f"a cell on {self.processes} devices, one after another (torchrun)"
        if not self.plan.device.is_gpu:
            return f"{self.at_once} cells side by side in one memory (fspo compare)"
        each = "a device" if self.devices == 1 else f"{self.devices} devices"
        return f"a cell on {each}, {self.at_once} side by side (fspo compare)"

    def phases(self, critic: bool) -> dict[str, list[Term]]:
        """What each phase of a cell needs of a device."""
        plan = self.plan
        return phases(plan.shape, load_of(plan.config, plan.shape, plan.device, plan.lengths, critic, self.processes))

    def gib(self, critic: bool) -> float:
        """What a cell needs of a device in its largest phase."""
        return max(map(total_gib, self.phases(critic).values()))

    @property
    def need_gib(self) -> float:
        """What the largest of the cells needs of a device, or all that are side by side of a machine without any."""
        return max(self.gib(critic) for critic in self.plan.critics.values()) * self._in_one_memory

    @property
    def _in_one_memory(self) -> int:
        return 1 if self.plan.device.is_gpu else self.at_once

    @property
    def obstacles(self) -> list[str]:
        """Why it cannot be started; empty where it can."""
        plan, found = self.plan, []
        if self.need_gib > plan.room_gib:
            found.append(f"{self.need_gib:.1f} of {plan.room_gib:.0f} GiB")
        train = plan.config.train
        if self.processes > 1:
            rows = train.problems_per_step * train.samples_per_problem // train.mini_batches
            if rows < self.processes:
                found.append(f"{rows} responses in an optimizer step for {self.processes} processes")
            if plan.engine_devices > 1:
                found.append("train.vllm.tensor_parallel_size is for one process: torchrun starts an engine a process")
        if train.sampler == "vllm" and plan.device.is_gpu:
            least = vllm_room(plan.config, plan.shape, plan.lengths)
            share = train.vllm.gpu_memory_utilization * plan.device.memory_gib
            if least > share:
                found.append(f"vLLM's share of {share:.1f} GiB does not hold its weights and a response: {least:.1f}")
        return found

    @property
    def fits(self) -> bool:
        """Whether it can be started."""
        return not self.obstacles

    def lines(self, method: str) -> list[PlanLine]:
        """The phases of a cell with their seconds."""
        plan = self.plan
        facts = plan.config, plan.shape, plan.device, plan.lengths, plan.questions, plan.critics[method]
        return cell_lines(*facts, self.processes)

    @property
    def cell_hours(self) -> float:
        """Hours of all cells, added up."""
        return len(self.plan.config.seeds) * sum(hours(self.lines(method)) for method in self.plan.config.methods)

    @property
    def hours(self) -> float:
        """Hours until the last cell ends. Cells side by side on a CPU share its cores."""
        if not self.plan.device.is_gpu:
            return self.cell_hours / self.plan.count
        return self.cell_hours * -(-self.plan.cells // self.at_once) / self.plan.cells

    @property
    def device_hours(self) -> float:
        """Hours of devices that work."""
        return self.cell_hours * self.processes * self.devices

    def host(self) -> list[Term]:
        """What the host holds beside the devices, for the largest of the cells."""
        plan = self.plan
        critic = any(plan.critics.values())
        load = load_of(plan.config, plan.shape, plan.device, plan.lengths, critic, self.processes)
        return hosting(plan.shape, load, self.at_once)

    def command(self, recipe: str, changes: Changes) -> str:
        """What starts it, with the changes that the plan was made with; `recipe` is how the recipe was named."""
        config = self.plan.config
        if self.processes == 1:
            words = ["fspo", "compare", recipe, "--workers", str(self.at_once)]
        else:
            method = "fspo" if "fspo" in config.methods else config.methods[0]
            words = ["torchrun", "--nproc-per-node", str(self.processes), "--no-python", "fspo", "train", recipe]
            words += ["--method", method, "--seed", str(config.seeds[0])]
        named = [one for one in changes.set if one != "train.sampler=auto"]  # processes together cannot choose
        if self.processes > 1 and len(named) < len(changes.set):
            changes = replace(changes, set=(*named, f"train.sampler={config.train.sampler}"))
        return shlex.join([*words, *changes.words()])


def cell_layouts(plan: Planned) -> list[CellLayout]:
    """The layouts there are: as many cells side by side as `fspo compare` starts there, and one on all devices."""
    each = plan.engine_devices
    if not plan.device.is_gpu:
        cores = CPU_CORES * plan.count
        one = CellLayout(plan, 1)
        return [CellLayout(plan, max(1, min(plan.cells, cores, int(plan.room_gib // one.need_gib))))]
    found = []
    if plan.count >= each:
        vllm = plan.config.train.sampler == "vllm"
        here = Layout.of(plan.cells, None, tuple(map(str, range(plan.count))), each, alone=vllm)
        found.append(CellLayout(plan, here.workers, devices=each))
    if plan.count > 1:
        found.append(CellLayout(plan, 1, processes=plan.count))
    return found


def best(layouts: Sequence[CellLayout]) -> CellLayout | None:
    """The first that fits, None where none does: cells side by side send each other nothing, and end in a report."""
    return next((layout for layout in layouts if layout.fits), None)
