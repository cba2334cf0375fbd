"""The published updates in plain torch, which use nothing of the package, on one worked example.

The example: a network of 72 parameters, two trained steps of the grid 1, 0.7, 0.4, 0, and two groups of K = 3
samples. The policy has moved a little since the rollout, so that ratios differ from 1 and some are clipped.
"""

import math
from collections.abc import Callable

import torch

GRID = (1.0, 0.7, 0.4, 0.0)
SHAPE = (6, 2, 2, 2)
KEYS = (0, 0, 0, 1, 1, 1)
REWARDS = {
    "a": (0.2, 0.9, 0.4, 0.7, 0.1, 0.6),
    "b": (0.5, 0.3, 0.8, 0.2, 0.4, 0.9),
    "c": (0.1, 0.2, 0.3, 0.9, 0.8, 0.7),
}
SEVERAL = ("balanced_dpo", "otca", "mix_grpo", "pref_grpo", "tmpo")


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


torch.manual_seed(0)
THETA = 0.4 * draw(8, 9)
ROLLOUT, OLD, REFERENCE = (THETA + size * draw(8, 9) for size in (2e-4, 0.05, 0.1))
START, NOISE, SAMPLES, DATA = draw(*SHAPE), (draw(*SHAPE), draw(*SHAPE)), draw(*SHAPE), draw(*SHAPE)
MAP = torch.rand(6, 1, 2, 2, dtype=torch.float64)
FEATURES = draw(6, 5)


def net(theta, x, s):
    flat = torch.cat([x.flatten(1), torch.full((len(x), 1), float(s), dtype=x.dtype)], dim=1)
    return torch.tanh(flat @ theta.T).reshape(x.shape)


def average(x):
    return x.flatten(1).mean(1)


# The published steps: (mean, std) of step i.
def flow_step(x, v, i, a):
    s, dt = GRID[i], GRID[i + 1] - GRID[i]
    g = a * math.sqrt(s / (1 - (GRID[1] if s == 1 else s)))
    return x * (1 + g**2 / (2 * s) * dt) + v * (1 + g**2 * (1 - s) / (2 * s)) * dt, g * math.sqrt(-dt)


def dance_step(x, v, i, eta):
    s, dt = GRID[i], GRID[i + 1] - GRID[i]
    score = -(x - (x - s * v) * (1 - s)) / s**2
    return x + dt * v - 0.5 * eta**2 * score * dt, eta * math.sqrt(-dt)


def cps_step(x, v, i, a):
    s, s_next = GRID[i], GRID[i + 1]
    std = s_next * math.sin(a * math.pi / 2)
    return (1 - s_next) * (x - s * v) + math.sqrt(s_next**2 - std**2) * (x + (1 - s) * v), std


def ddim_step(x, v, i, eta):
    s, s_next = GRID[i], GRID[i + 1]
    std = eta * s_next / s * math.sqrt(s**2 - ((1 - s) / (1 - s_next) * s_next) ** 2)
    return (1 - s_next) * (x - s * v) + math.sqrt(s_next**2 - std**2) * (x + (1 - s) * v), std


STEP = {"flow": flow_step, "dance": dance_step, "cps": cps_step, "ddim": ddim_step}


def log_prob(kernel, x_next, mean, std, weights=1.0):
    squares = -((x_next - mean) ** 2)
    normal = squares / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return average((squares if kernel == "cps" else normal) * weights)


def path(kernel, levels, first=0):
    """The recorded states of the rollout, Euler steps before `first`."""
    states = [START]
    for i in range(2):
        mean, std = STEP[kernel](states[i], net(ROLLOUT, states[i], GRID[i]), i, levels[i])
        euler = states[i] + (GRID[i + 1] - GRID[i]) * net(ROLLOUT, states[i], GRID[i])
        states.append(mean + std * NOISE[i] if i >= first else euler)
    return states


# The published advantages, of one reward or of several.
def groups(rewards):
    return torch.tensor(rewards, dtype=torch.float64).reshape(2, 3)


def by_group(rewards=REWARDS["a"], ddof=1, eps=1e-8, limit=5.0):
    r = groups(rewards)
    return (
        ((r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True, correction=ddof) + eps))
        .clamp(-limit, limit)
        .flatten()
    )


def by_batch(rewards=REWARDS["a"]):
    r = groups(rewards)
    return ((r - r.mean(1, keepdim=True)) / (r.std(correction=0) + 1e-4)).clamp(-5, 5).flatten()


def summed():
    return sum(by_group(r, limit=math.inf) for r in REWARDS.values()).clamp(-5, 5)


def superlinear():
    r = groups(REWARDS["a"])
    shaped = torch.sign(r - r.mean(1, keepdim=True)) * (r - r.mean(1, keepdim=True)).abs() ** 1.5
    return (shaped / (shaped.std(correction=0) + 1e-4)).flatten().clamp(-5, 5)


def diverse():
    unit = FEATURES / FEATURES.norm(dim=1, keepdim=True)
    distance = [
        (2 - sum(float(unit[n] @ unit[m]) for m in range(6) if m != n and m // 3 == n // 3)) / 2
        for n in range(6)
    ]
    return by_batch([r + 0.1 * d for r, d in zip(REWARDS["a"], distance, strict=True)])


def ratio(
    advantage,
    kernel="flow",
    noise=0.7,
    clip=1e-4,
    *,
    guard=False,
    weight: Callable[[int, float], float] = lambda i, std: 1.0,
    kl=None,
    share=None,
    weights=1.0,
    only=None,
):
    """The clipped ratio family: each (sample, step) has a loss, and their mean is taken."""

    def loss(theta, trained):
        levels = noise if isinstance(noise, tuple) else (noise, noise)
        states, total = path(kernel, levels), []
        for i in range(2):

            def step(parameters, i=i):
                return STEP[kernel](states[i], net(parameters, states[i], GRID[i]), i, levels[i])

            (mean, std), old, reference = step(theta), step(ROLLOUT)[0], step(REFERENCE)[0]
            change = log_prob(kernel, states[i + 1], mean, std, weights) - log_prob(
                kernel, states[i + 1], old, std, weights
            )
            if guard:
                change = std * (change + average((mean - old) ** 2) / (2 * std**2))
            rho = torch.exp(change)
            terms = torch.maximum(-advantage * rho, -advantage * rho.clamp(1 - clip, 1 + clip)) * weight(
                i, std
            )
            if kl:
                terms = terms + kl(average((mean - reference) ** 2), std, GRID[i] - GRID[i + 1])
            total.append(terms[trained[:, i]])
        return torch.cat(total).mean()

    return loss


def inverse_dt(i, std):
    return 1 / (GRID[i] - GRID[i + 1])


def inverse_w(i, std):
    """Flash-GRPO's weight w / mean(w) with w the inverse of its comment's formula."""
    sizes = []
    for k in range(2):
        s, dt = GRID[k], GRID[k + 1] - GRID[k]
        g = 0.7 * math.sqrt(s / (1 - (GRID[1] if s == 1 else s)))
        sizes.append(math.sqrt(-dt) / g + g * math.sqrt(-dt) * (1 - s) / (2 * s))
    inverse = [1 / size for size in sizes]
    return inverse[i] / (sum(inverse) / 2)


def flow_grpo_kl(weight):
    # The code divides by g^2, where std^2 = g^2 |dt|.
    return lambda square, std, dt: weight * square / (2 * (std / math.sqrt(dt)) ** 2)


def per_level(levels, term):
    """Losses at noised samples, with the noise of the level, in the order (level, sample)."""

    def loss(theta, trained):
        total = []
        for i in levels:
            t, eps = GRID[i], NOISE[i]
            x = (1 - t) * SAMPLES + t * eps
            total.append(term(lambda p, x=x, t=t: net(p, x, t), x, t, eps - SAMPLES, theta))
        return torch.cat(total).mean()

    return loss


def nft(term_weight=5.0):
    r = by_batch().div(5).clamp(-1, 1) / 2 + 0.5

    def term(v, x, t, target, theta):
        old, new = v(OLD), v(theta)

        def scaled(velocity):
            x0 = x - t * velocity
            return average((x0 - SAMPLES) ** 2) / average((x0 - SAMPLES).abs()).detach().clamp(min=1e-5)

        # v+ = b v + (1 - b) v_old and v- = (1 + b) v_old - b v with b = 1.
        policy = (r * scaled(new) + (1 - r) * scaled(2 * old - new)) * term_weight
        return policy + 1e-4 * average((new - v(REFERENCE)) ** 2)

    return per_level((0, 1), term)


def awm(v, x, t, target, theta):
    p, new = 0.25, v(theta)

    def ghuber(velocity):
        return -((average((velocity - target) ** 2) + 1e-10) ** p - 1e-10**p) * t / p

    rho = torch.exp(ghuber(new) - ghuber(new).detach())
    distances = 0.001 * average((new - v(REFERENCE)) ** 2) + average((new - v(OLD)) ** 2)
    return -by_batch() / 5 * rho + distances


def v_grpo(theta, trained):
    change = 0.0
    for i in range(2):
        x, t = (1 - GRID[i]) * SAMPLES + GRID[i] * shared(i), GRID[i]

        def elbo(parameters, x=x, t=t):
            gap = x - t * net(parameters, x, t) - SAMPLES
            return -average(gap**2) / average(gap.abs()).detach()

        change = change + (elbo(theta) - elbo(ROLLOUT)) / 2
    rho, advantage = torch.exp(change), by_group()
    return torch.maximum(-advantage * rho, -advantage * rho.clamp(1 - 6e-3, 1 + 6e-3)).mean()


def shared(i):
    """The noise of the first sample of each group, for all of the group."""
    return NOISE[i][[0, 0, 0, 3, 3, 3]]


def advantage_flow(v, x, t, target, theta):
    a, new, old = by_batch() / 5, v(theta), v(OLD)
    constant = a * average((old - target) ** 2)
    return a * average((new - target) ** 2) + average((new - old) ** 2) - constant


def tmpo(theta, trained):
    """Only step 1 is stochastic on this grid; P is its log-probability, and n is 1."""
    states = path("cps", (0.4, 0.4), first=1)

    def path_log_prob(parameters):
        return log_prob("cps", states[2], *cps_step(states[1], net(parameters, states[1], GRID[1]), 1, 0.4))

    p, old, reference = path_log_prob(theta), path_log_prob(ROLLOUT), path_log_prob(REFERENCE)
    reward, total = sum(by_group(r, limit=math.inf) for r in REWARDS.values()), []
    for rows in (slice(0, 3), slice(3, 6)):
        advantage = (torch.log_softmax(15 * reward[rows], 0) - torch.log_softmax(p[rows], 0)).detach()
        change = p[rows] - old[rows]
        rho = torch.exp((change - change.mean()).clamp(-10, 10))
        policy = torch.maximum(-advantage * rho, -advantage * rho.clamp(0.8, 1.2))
        total.append(policy + 0.1 * (p[rows] - reference[rows]) ** 2)
    return torch.cat(total).mean()


def raft(v, x, t, target, theta):
    return average((v(theta) - target) ** 2)[[1, 3]]


def rwr(theta, trained):
    policy = per_level(
        (0, 1), lambda v, x, t, target, theta: torch.tensor(REWARDS["a"]) * average((v(theta) - target) ** 2)
    )(theta, trained)
    x, target = (1 - GRID[1]) * DATA + GRID[1] * NOISE[1], NOISE[1] - DATA
    return policy + 1.0 * ((net(theta, x, GRID[1]) - target) ** 2).mean()


def pairs(*best_worst):
    def loss(theta, trained):
        total = []
        for i in range(2):
            x, target = (1 - GRID[i]) * SAMPLES + GRID[i] * shared(i), shared(i) - SAMPLES
            gain = average((net(theta, x, GRID[i]) - target) ** 2) - average(
                (net(REFERENCE, x, GRID[i]) - target) ** 2
            )
            total += [-torch.log(torch.sigmoid(-100 / 2 * (gain[w] - gain[n]))) for w, n in best_worst]
        return torch.stack(total).mean()

    return loss


def utility(images):
    return -average((images - DATA) ** 2)


def euler_path():
    states = [START]
    for i in range(3):
        states.append(states[i] + (GRID[i + 1] - GRID[i]) * net(ROLLOUT, states[i], GRID[i]))
    return states


def refl(theta, trained):
    x = euler_path()[2] - GRID[2] * net(theta, euler_path()[2], GRID[2])
    return 1e-3 * torch.relu(2 - utility(x)).mean()


def draft(theta, trained):
    x = euler_path()[2]
    return -utility(x + (GRID[3] - GRID[2]) * net(theta, x, GRID[2])).mean()


def leap_align(theta, trained):
    """Two jumps with the values of the real path; half of the nested gradient passes."""
    states, (k, j, _) = euler_path(), POINTS["leap_align"]
    xj = states[k] - (GRID[k] - GRID[j]) * net(theta, states[k], GRID[k])
    xj = states[j] + (xj - xj.detach())
    half = 0.5 * xj + 0.5 * xj.detach()
    x0 = xj - GRID[j] * net(theta, half, GRID[j])
    return -utility(states[3] + (x0 - x0.detach())).mean()


def eam(v, x, t, target, theta):
    slope = -2 * (SAMPLES - DATA) / 8
    moved = v(REFERENCE) - 100 * t / (t**2 + (1 - t) ** 2) * slope
    return average((v(theta) - moved) ** 2)


POINTS = {"refl": (2, 3), "draft_k": (2, 3), "leap_align": (0, 2, 3)}

PUBLISHED = {
    "ddpo": ratio(by_group(ddof=0, eps=1e-6), "ddim", 1.0),
    "flow_grpo": ratio(by_batch(), kl=flow_grpo_kl(0.04)),
    "flow_grpo_fast": ratio(by_batch(), "cps", 0.8, 1e-5),
    "dance_grpo": ratio(by_group(), "dance", 0.3),
    "mix_grpo": ratio(summed()),
    "pref_grpo": ratio(summed(), guard=True, weight=inverse_dt),
    "grpo_guard": ratio(by_batch(), guard=True, weight=inverse_dt),
    "temp_flow_grpo": ratio(by_group(ddof=0, eps=1e-4), weight=lambda i, std: 2.25 * std,
                            kl=lambda square, std, dt: 0.004 * square / (2 * std**2)),
    "tree_grpo": ratio(by_group(), noise=(0.4, 0.6)),
    "gcpo": ratio(by_group(), clip=5e-5),
    "flash_grpo": ratio(by_group(), weight=inverse_w),
    "slas": ratio(superlinear(), "dance", 0.3),
    "awm": per_level((1,), awm),
    "v_grpo": v_grpo,
    "nft": nft(),
    "advantage_flow": per_level((0, 1), advantage_flow),
    "e2po": nft(),
    "tmpo": tmpo,
    "sol_rl": nft(),
    "raft": per_level((0, 1), raft),
    "rwr": rwr,
    "flow_dpo": pairs((1, 0), (3, 4)),
    # In the first group sample 2 beats both others by two rewards of three, and 1 beats 0.
    "balanced_dpo": pairs((2, 0), (3, 4)),
    "otca": ratio(summed(), weight=lambda i, std: (1.5, 0.5)[i]),
    "perceptual_diversity": ratio(diverse(), kl=flow_grpo_kl(0.04)),
    "vipo": ratio(by_group(), "dance", 0.3, weights=MAP),
    "solace": ratio(by_batch(), kl=flow_grpo_kl(0.04)),
    "refl": refl,
    "draft_k": draft,
    "leap_align": leap_align,
    "eam": per_level((0, 1), eam),
}  # fmt: skip
