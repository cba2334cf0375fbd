"""Published methods as rows of settings. Data only, no torch: a new method is a new row.

Where paper and released code disagree, or a constant was not found, the row's note says so. Steps, group
sizes, guidance and learning rates belong to the configuration of a run.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from prefrm.errors import ConfigError
from prefrm.flow.settings import Likelihood, Method, Objective, Regularizer, Rollout, StochasticSteps
from prefrm.rewards.chain import AdvantageChain

__all__ = ["METHODS", "method"]

ALL, MOST = StochasticSteps(), StochasticSteps(trained=0.6)
FLOW = Rollout(kernel="flow", noise=0.7, stochastic=ALL)
DANCE = Rollout(kernel="dance", noise=0.3, stochastic=MOST, same_noise=True, even_grid=True)
WINDOW = StochasticSteps(rule="sliding", count=4, every=25)

GROUP = AdvantageChain()
NORMALIZED = AdvantageChain(combine="normalized")
BATCH = AdvantageChain(scale="batch", ddof=0, eps=1e-4)
UNIT = replace(BATCH, divide=5.0)
RAW = AdvantageChain(center=False, scale="none", clip=None)

MATCHING = Likelihood(kind="matching")
GUARD = Objective(guard=True, step_weight="inverse_dt", step_scale=1.0)

# fmt: off
FLOW_GRPO = Method(
    name="flow_grpo", title="Flow-GRPO", paper="arXiv 2505.05470", rollout=FLOW, advantage=BATCH,
    regularizer=Regularizer(reference=0.04, form="kl_dt"),
    note="The released code drops dt from the KL's variance, as here; the paper's is form kl. 0.04 is for "
         "GenEval and OCR, 0.01 for PickScore. a = 0.9 for FLUX. In diffusers' own grid, with shift 3 and "
         "T = 10, the last stochastic step goes from s = 0.278 to 0.009 with a std of 0.23, which stays in "
         "the picture that is judged; rollout.even_grid has no such step.")
DANCE_GRPO = Method(
    name="dance_grpo", title="DanceGRPO", paper="arXiv 2505.07818", rollout=DANCE, advantage=GROUP,
    note="Best-of-N of the video script, by advantage, is rollout.keep_best and keep_worst.")
NFT = Method(
    name="nft", title="DiffusionNFT", paper="arXiv 2509.16117", rollout=Rollout(policy="old"),
    advantage=UNIT, likelihood=replace(MATCHING, weight="self"),
    objective=Objective(kind="least_squares", kappa=0.0, lam=1.0, scale=5.0),
    regularizer=Regularizer(reference=1e-4, decay=0.5, ramp=0.001),
    note="The old policy draws. lam is the paper's beta: 1 for GenEval and PickScore, 0.1 for OCR and "
         "several rewards. The code's second schedule of the decay (0 until iteration 75) is not here. A win "
         "rate can be taken as it is: advantage {signed: true, center: false, scale: none, divide: 1}.")

ROWS = (
    Method(
        name="ddpo", title="DDPO", paper="arXiv 2305.13301",
        rollout=Rollout(kernel="ddim", noise=1.0, stochastic=ALL), advantage=AdvantageChain(ddof=0, eps=1e-6),
        note="Statistics are the group's, not of a prompt's last 16 rewards. The paper's models are "
             "variance-preserving; here the step is taken between the flow's pairs (1 - s, s)."),
    FLOW_GRPO,
    Method(
        name="flow_grpo_fast", title="Flow-GRPO-Fast", paper="released code of Flow-GRPO", advantage=BATCH,
        rollout=Rollout(kernel="cps", noise=0.8,
                        stochastic=StochasticSteps(rule="random", count=3, within=0.5)),
        objective=Objective(clip=1e-5),
        note="The current variant, without guidance. The first one branches at one random step: stochastic "
             "{count: 2}, branches [K]."),
    DANCE_GRPO,
    Method(
        name="mix_grpo", title="MixGRPO", paper="arXiv 2507.21802", advantage=NORMALIZED,
        rollout=replace(FLOW, stochastic=WINDOW, same_noise=True, even_grid=True),
        note="The strategy progressive with T = 25. Flash's second-order solver after the window is not "
             "here, nor are the strategies with decaying intervals; Flash moves every 20 iterations."),
    Method(
        name="pref_grpo", title="Pref-GRPO", paper="arXiv 2508.20751", advantage=NORMALIZED, objective=GUARD,
        rollout=replace(FLOW, stochastic=MOST, same_noise=True, even_grid=True),
        note="The paper trains Flow-GRPO with win rates; this is the released configuration, which adds "
             "GRPO-Guard and 0.6 CLIP to 0.4 win rate. It judges each pair in one order and rounds to "
             "three places; prefrm judges both orders."),
    Method(
        name="grpo_guard", title="GRPO-Guard", paper="arXiv 2510.22319", rollout=FLOW, advantage=BATCH,
        objective=GUARD,
        note="Flow-Factory's version lacks the weight 1 / dt. The clip that its normalized ratio needs was "
             "not found; Flow-GRPO's stands here. The KL is off."),
    Method(
        name="temp_flow_grpo", title="TempFlow-GRPO", paper="arXiv 2508.04324",
        rollout=replace(FLOW, stochastic=StochasticSteps(rule="each"), branches=(6,), key="prompt_step"),
        advantage=AdvantageChain(ddof=0, eps=1e-4),
        objective=Objective(step_weight="std", step_scale=2.25),
        regularizer=Regularizer(reference=0.004, form="kl"),
        note="Code and README pool the trunks of a prompt; the paper's second version compares within one: "
             "key prompt_seed_step. Whether the standard deviation is the group's or the batch's was not "
             "found."),
    Method(
        name="tree_grpo", title="Dynamic-TreeRPO", paper="arXiv 2509.23352", advantage=GROUP,
        rollout=Rollout(kernel="flow", noise=0.7, stochastic=WINDOW, branches=(2, 2, 2, 2),
                        branch_noise=(0.4, 0.6, 0.8, 1.0)),
        note="The paper's noise grows linearly with depth; its end points were not found. A node's "
             "advantage is the mean of its leaves'. LayerTuning and the dynamic clip are not here."),
    Method(
        name="gcpo", title="Chunk-GRPO (GCPO)", paper="arXiv 2510.21583", advantage=GROUP,
        rollout=replace(FLOW, stochastic=StochasticSteps(trained=0.5)),
        likelihood=Likelihood(chunks=(2, 3, 4, 7)), objective=Objective(clip=5e-5),
        note="Chunk lengths are for the 16 trained steps of T = 17 and scale with other T. Chunks are "
             "drawn uniformly, not by the change of the latents."),
    Method(
        name="flash_grpo", title="Flash-GRPO", paper="released code", advantage=GROUP,
        rollout=replace(FLOW, stochastic=StochasticSteps(rule="shared"), branches=(2,), key="prompt_step"),
        objective=Objective(step_weight="inverse_gradient"),
        note="The code has a literal table of weights for Wan2.1 and calls it w_s; it falls where w_s "
             "grows and behaves like 1 / w_s, which is used here. Clip and noise level were not found; "
             "Flow-GRPO's stand here."),
    replace(
        DANCE_GRPO, name="slas", title="Super-Linear Advantage Shaping", paper="arXiv 2605.10937",
        advantage=AdvantageChain(power=1.5, scale="batch", ddof=0, eps=1e-4),
        note="gamma (power 1 + gamma) was not found: 0.5 stands here. The standard deviation is that of the "
             "shaped advantages, so that the scale of the reward cancels."),
    Method(
        name="awm", title="Advantage Weighted Matching", paper="arXiv 2509.25050", advantage=UNIT,
        likelihood=replace(MATCHING, times=6, skip_first=True, weight="ghuber"),
        objective=Objective(clip=1.0),
        regularizer=Regularizer(reference=0.001, old=1.0, decay=0.3, ramp=0.001),
        note="With one update the ratio is 1 and never clipped. The code's own samplers (SA-Solver, DPM) are "
             "the pipeline's scheduler here."),
    Method(
        name="v_grpo", title="V-GRPO", paper="2026 (read in a description of its code)", advantage=GROUP,
        likelihood=replace(MATCHING, times=4, weight="self", shared_noise=True, chunks="all"),
        objective=Objective(clip=6e-3),
        note="The clip is 6e-3 to 1e-2 and matters with several updates. The on-policy variant is "
             "advantage {soft_clip: ...}, whose eta was not found; the optional KL to the old policy is "
             "off."),
    NFT,
    Method(
        name="advantage_flow", title="AdvantageFlow", paper="2026", advantage=UNIT, likelihood=MATCHING,
        objective=Objective(kind="least_squares", kappa=1.0, lam=1.0),
        regularizer=Regularizer(decay=0.5, ramp=0.001),
        note="Convex for lam >= -A, so lam is the largest |A|. Its own lam and decay were not found; the "
             "decay is DiffusionNFT's."),
    replace(
        NFT, name="e2po", title="E2PO", paper="2026",
        rollout=Rollout(policy="old", condition_noise=0.1, condition_span=0.5),
        note="The paper learns the perturbations of the prompt's embedding; here they are random. Their "
             "size and span were not found. The update sees the unperturbed prompt."),
    Method(
        name="tmpo", title="TMPO", paper="released code", advantage=replace(NORMALIZED, clip=None),
        rollout=Rollout(kernel="cps", noise=0.7, branches=(3, 3, 3), branch_noise=(0.4, 0.7, 1.0),
                        stochastic=StochasticSteps(rule="sliding", first=1, count=3, every=0)),
        likelihood=Likelihood(chunks="all", reduce="sum"),
        objective=Objective(kind="balance", beta=15.0, clip=0.2),
        regularizer=Regularizer(reference=0.1, form="log_prob"),
        note="The paper states the squared difference of log-softmaxes; this is the code that was trained, "
             "without its detached guard weights and its schedules of beta and of the branching steps. "
             "SD3.5's constants."),
    replace(
        NFT, name="sol_rl", title="Sol-RL", paper="2026",
        rollout=Rollout(policy="old", explore=4, keep_best=0.5, keep_worst=0.5),
        note="The paper explores 96 samples in NVFP4 and keeps 12 + 12; here exploration takes half the "
             "steps."),
    Method(
        name="raft", title="RAFT", paper="arXiv 2304.06767", advantage=replace(RAW, keep="best"),
        likelihood=MATCHING, objective=Objective(kind="weighted"),
        note="The best of each group, then supervised matching at every level of the grid."),
    Method(
        name="rwr", title="Reward-weighted likelihood", paper="arXiv 2302.12192", likelihood=MATCHING,
        advantage=replace(RAW, keep="positive"), objective=Objective(kind="weighted", data_weight=1.0),
        note="Rewards should lie in [0, 1], as win rates do; negative ones count 0. The paper's data term "
             "takes its pretraining images; here they are samples of the reference policy. Its weight was "
             "not found."),
    Method(
        name="flow_dpo", title="Flow-DPO", paper="arXiv 2501.13918",
        advantage=replace(RAW, keep="best_worst"),
        likelihood=replace(MATCHING, shared_noise=True), objective=Objective(kind="dpo", beta=100.0),
        note="The online form of flow_grpo's code: best and worst of a group. Flow-Factory's beta is 2000."),
    Method(
        name="balanced_dpo", title="BalancedDPO", paper="arXiv 2503.12575",
        advantage=replace(RAW, combine="vote", keep="best_worst"),
        likelihood=replace(MATCHING, shared_noise=True), objective=Objective(kind="dpo", beta=100.0),
        note="Best and worst by the majority of the rewards. The paper refreshes its reference; here it is "
             "fixed. Its beta was not found; Flow-DPO's stands here."),
    replace(
        FLOW_GRPO, name="otca", title="OTCA", paper="arXiv 2604.19234", advantage=NORMALIZED,
        objective=Objective(step_weights=(1.5, 0.5)), regularizer=Regularizer(),
        note="Its formulas were not found. The weights of the steps are a placeholder that favours early "
             "steps; set advantage.objective_weights, a row for each reward, for weights of the objectives "
             "by step."),
    replace(
        FLOW_GRPO, name="perceptual_diversity", title="Perceptual diversity", paper="2026",
        advantage=replace(BATCH, diversity=0.1),
        note="Mean cosine distance of features in the group, added to the reward. Weight and feature space "
             "of the paper were not found."),
    replace(
        DANCE_GRPO, name="vipo", title="ViPO", paper="arXiv 2511.18719", objective=Objective(pixel_map=True),
        note="The map weights the log-probability in its mean, which on-policy equals the paper's clipped "
             "ratio per pixel. Components are oriented by their longer tail; the code reverses the scale."),
    replace(
        FLOW_GRPO, name="solace", title="SOLACE", paper="released code", intrinsic=True,
        note="The reward is the model's confidence in its own sample: 8 antithetic probes at the second "
             "half of the steps, without guidance. Flow-GRPO's constants."),
    Method(
        name="refl", title="ReFL", paper="arXiv 2304.05977",
        objective=Objective(kind="refl", margin=2.0, scale=1e-3),
        note="One step from the last quarter (30 to 39 of 40). The paper's pretraining loss is "
             "data_weight. The margin 2 fits ImageReward's scale."),
    Method(
        name="draft_k", title="DRaFT-K", paper="arXiv 2309.17400",
        objective=Objective(kind="draft", depth=1),
        note="AlignProp draws the depth at random. DRaFT-LV's average over renoised samples is not here."),
    Method(
        name="leap_align", title="LeapAlign", paper="arXiv 2604.15311",
        objective=Objective(kind="leap", nested=0.5),
        note="Its factor of the nested gradient was not found, nor the weights of trajectories by their "
             "similarity to the true path, which are 1 here."),
    Method(
        name="eam", title="Closed-form adjoint matching (EAM)", paper="2026; arXiv 2409.08861",
        likelihood=MATCHING,
        objective=Objective(kind="adjoint", lam=100.0),
        note="Its c(t) was not found: c = s / (s^2 + (1 - s)^2) is exact for a base whose samples are "
             "standard normal. lam is adjoint matching's on SD. The sampler is the pipeline's, not a "
             "few-step one."),
)
# fmt: on

METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in ROWS})
"""The published methods by name."""


def method(name: str) -> Method:
    """The row of that name. Raises `ConfigError` that lists the names if there is none."""
    if name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}; received {name!r}")
    return METHODS[name]
