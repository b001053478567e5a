"""How to set the same thing in TRL 1.16, verl 0.9.1 and OpenRLHF 0.11.2: method -> trainer -> one line.

The options were read from those releases' sources. TRL: keyword arguments of the named config. verl: overrides on the
command line, braces as bash expands them. OpenRLHF: flags. MAX_NEW_TOKENS stands for the run's token limit.
"""

ELSEWHERE: dict[str, dict[str, str]] = {
    "ppo": {
        "TRL": "not possible: 1.16 has no PPO trainer (its experimental one was removed)",
        "verl": "algorithm.adv_estimator=gae critic.cliprange_value=0.2 actor_rollout_ref.actor.clip_ratio_c=1e9; "
        "departs: log ratios are clamped at +-20",
        "OpenRLHF": "--algo.advantage.estimator gae --actor.eps_clip 0.2 --critic.value_clip 0.2 --algo.kl.init_coef 0",
    },
    "rloo": {
        "TRL": "RLOOConfig(beta=0.0, epsilon=0.2)",
        "verl": "not possible: adv_estimator=rloo is only the advantage, no clipped ratio e^S; add it with "
        "register_policy_loss, as fspo.plugins.verl does",
        "OpenRLHF": "not possible: --algo.advantage.estimator rloo is only the advantage; no ratio e^S in PolicyLoss",
    },
    "reinforce": {
        "TRL": "only while the policy still is the sampler: RLOOConfig(beta=0.0), num_iterations=1 and "
        "steps_per_generation unset",
        "verl": "algorithm.adv_estimator=rloo actor_rollout_ref.actor.{policy_loss.loss_mode=gpg,"
        "loss_agg_mode=seq-mean-token-sum}",
        "OpenRLHF": "not possible: every loss carries a ratio, and none sums a response's tokens",
    },
    "grpo": {
        "TRL": 'GRPOConfig(loss_type="grpo", epsilon=0.2)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{loss_agg_mode=seq-mean-token-mean,"
        "clip_ratio_c=1e9}; departs: log ratios are clamped at +-20",
        "OpenRLHF": "--algo.advantage.estimator group_norm --actor.loss_agg_mode seq-mean-token-mean "
        "--actor.eps_clip 0.2 --algo.kl.init_coef 0",
    },
    "dr_grpo": {
        "TRL": 'GRPOConfig(loss_type="dr_grpo", scale_rewards="none", epsilon=0.2)',
        "verl": "algorithm.{adv_estimator=grpo,norm_adv_by_std_in_grpo=False} "
        "actor_rollout_ref.actor.{loss_agg_mode=seq-mean-token-sum-norm,loss_scale_factor=MAX_NEW_TOKENS,"
        "clip_ratio_c=1e9}; departs: log ratios are clamped at +-20",
        "OpenRLHF": "not possible: no constant divisor; --algo.advantage.estimator dr_grpo is the advantage, "
        "divided by tokens",
    },
    "dapo": {
        "TRL": 'GRPOConfig(loss_type="dapo", epsilon=0.2, epsilon_high=0.28, delta=10.0)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{clip_ratio_low=0.2,clip_ratio_high=0.28,"
        "clip_ratio_c=10.0,loss_agg_mode=token-mean}; departs: log ratios are clamped at +-20",
        "OpenRLHF": "--algo.advantage.estimator group_norm --actor.eps_clip_low_high 0.2 0.28 --actor.dual_clip 10 "
        "--algo.kl.init_coef 0",
    },
    "cispo": {
        "TRL": 'GRPOConfig(loss_type="cispo", epsilon_high=5.0)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=cispo,"
        "clip_ratio_low=1.0,clip_ratio_high=4.0,loss_agg_mode=token-mean}",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    "sapo": {
        "TRL": 'GRPOConfig(loss_type="sapo", sapo_temperature_pos=1.0, sapo_temperature_neg=1.05); departs: '
        "temperatures in float32",
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=sapo,tau_pos=1.0,"
        "tau_neg=1.05}",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    "gspo": {
        "TRL": 'GRPOConfig(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=gspo,"
        "clip_ratio_low=3e-4,clip_ratio_high=4e-4,loss_agg_mode=seq-mean-token-mean}; departs: S/L is clamped at 10 "
        "from above",
        "OpenRLHF": "--algo.advantage.estimator group_norm --actor.policy_loss_type gspo --actor.eps_clip_low_high "
        "3e-4 4e-4 --algo.kl.init_coef 0",
    },
    "gspo_wide": {
        "TRL": 'GRPOConfig(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-3, epsilon_high=4e-3)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=gspo,"
        "clip_ratio_low=3e-3,clip_ratio_high=4e-3,loss_agg_mode=seq-mean-token-mean}; departs: S/L is clamped at 10 "
        "from above",
        "OpenRLHF": "--algo.advantage.estimator group_norm --actor.policy_loss_type gspo --actor.eps_clip_low_high "
        "3e-3 4e-3 --algo.kl.init_coef 0",
    },
    "gspo_token": {
        "TRL": 'the same gradient: GRPOConfig(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, '
        "epsilon_high=4e-4)",
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=gspo,"
        "clip_ratio_low=3e-4,clip_ratio_high=4e-4,loss_agg_mode=seq-mean-token-mean}; departs: S/L is clamped at 10 "
        "from above",
        "OpenRLHF": "the same gradient: --algo.advantage.estimator group_norm --actor.policy_loss_type gspo "
        "--actor.eps_clip_low_high 3e-4 4e-4 --algo.kl.init_coef 0",
    },
    "gspo_sqrt": {
        "TRL": "not possible: epsilon is one number for every length; override GRPOTrainer._compute_loss",
        "verl": "not possible: clip_ratio_low and clip_ratio_high are one number for every length; add it with "
        "register_policy_loss, as fspo.plugins.verl does",
        "OpenRLHF": "not possible: --actor.eps_clip_low_high is one pair for every length",
    },
    "luspo": {
        "TRL": 'GRPOConfig(loss_type="luspo", importance_sampling_level="sequence", epsilon=2e-3, epsilon_high=2.5e-3)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=gspo,"
        "clip_ratio_low=2e-3,clip_ratio_high=2.5e-3,loss_agg_mode=seq-mean-token-sum}; departs: S/L is clamped at "
        "10 from above",
        "OpenRLHF": "not possible: policy_loss_type gspo always divides each response by its length",
    },
    "gmpo": {
        "TRL": "trl.experimental.gmpo.GMPOConfig(epsilon=0.4), with GMPOTrainer",
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=geo_mean,"
        "clip_ratio_low=0.4,clip_ratio_high=0.4}, one micro batch per update",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    "vespo": {
        "TRL": 'departs: GRPOConfig(loss_type="vespo") divides by tokens, not responses, and clamps S from below at '
        "log 1e-8",
        "verl": "not possible: no vespo in 0.9.1; add it with register_policy_loss, as fspo.plugins.verl does",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    "dppo_tv": {
        "TRL": "not possible: 1.16 masks no token by divergence (its experimental DPPO trainer was removed)",
        "verl": "as dr_grpo with clip_ratio_c=20, and actor_rollout_ref.actor.{policy_loss.loss_mode=dppo_tv,"
        "clip_ratio_low=0.15,clip_ratio_high=0.15}",
        "OpenRLHF": "not possible: is_correction_gating tv compares the sampler with the old policy, not the old "
        "with the new",
    },
    "dppo_kl": {
        "TRL": "not possible: 1.16 masks no token by divergence (its experimental DPPO trainer was removed)",
        "verl": "as dr_grpo with clip_ratio_c=20, and actor_rollout_ref.actor.{policy_loss.loss_mode=dppo_kl,"
        "clip_ratio_low=0.05,clip_ratio_high=0.05}; departs: 1e-8 inside the divergence",
        "OpenRLHF": "not possible: is_correction_gating binary_kl compares the sampler with the old policy, not the "
        "old with the new",
    },
    "ctpo": {
        "TRL": "not possible: no prefix ratio, and epsilon is one number for every position; override "
        "GRPOTrainer._compute_loss",
        "verl": "not possible: no prefix ratio; add it with register_policy_loss, as fspo.plugins.verl does",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
}
