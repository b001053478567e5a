"""The rivals: one file a method (variants of one paper may share one), one entry here."""

from baselines.cispo import CISPO
from baselines.ctpo import CTPO
from baselines.dapo import DAPO
from baselines.dppo import DPPO_KL, DPPO_TV
from baselines.dr_grpo import DR_GRPO
from baselines.gmpo import GMPO
from baselines.grpo import GRPO
from baselines.grpo_opsm import GRPO_OPSM
from baselines.gspo import GSPO, GSPO_WIDE
from baselines.gspo_sqrt import GSPO_SQRT
from baselines.gspo_token import GSPO_TOKEN
from baselines.icepop import ICEPOP
from baselines.luspo import LUSPO
from baselines.maxrl import MAXRL
from baselines.ppo import PPO
from baselines.reinforce import REINFORCE
from baselines.rloo import RLOO
from baselines.sapo import SAPO
from baselines.vespo import VESPO
from suite.types import Method

METHODS: dict[str, Method] = {
    "ppo": PPO,
    "rloo": RLOO,
    "reinforce": REINFORCE,
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "cispo": CISPO,
    "sapo": SAPO,
    "gspo": GSPO,
    "gspo_wide": GSPO_WIDE,
    "gspo_token": GSPO_TOKEN,
    "gspo_sqrt": GSPO_SQRT,
    "luspo": LUSPO,
    "gmpo": GMPO,
    "vespo": VESPO,
    "dppo_tv": DPPO_TV,
    "dppo_kl": DPPO_KL,
    "ctpo": CTPO,
    "icepop": ICEPOP,
    "maxrl": MAXRL,
    "grpo_opsm": GRPO_OPSM,
}
