"""The rivals: one file a method, one entry here."""

from baselines.grpo import GRPO
from baselines.gspo import GSPO
from baselines.ppo import PPO
from baselines.rloo import RLOO
from suite.types import Method

METHODS: dict[str, Method] = {"ppo": PPO, "rloo": RLOO, "grpo": GRPO, "gspo": GSPO}
