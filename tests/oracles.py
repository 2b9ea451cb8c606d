"""Slow, literal versions of METHODS sections 1 and 2: one loop per symbol, one line per equation."""

import math

import torch
import torchvision.transforms.v2.functional as tv


def crop(image, box, size, flip):
    """One part: cut, resized by torchvision, mirrored. image (3, H, W) float; returns (3, size, size)."""
    x0, y0, x1, y1 = box
    part = tv.resize(image[None, :, y0:y1, x0:x1], [size, size], tv.InterpolationMode.BICUBIC, antialias=True)[0]
    return part.flip(-1) if flip else part


def membership_feature(feature_map, part_vectors, gaussian, kind):
    """The feature of one image. feature_map (L, D), part_vectors (N, D), gaussian (N, L): a list of floats."""
    length, uniform_energies, gaussian_energies = len(feature_map), [], []
    for i, part in enumerate(part_vectors.tolist()):
        s = [sum(p * x for p, x in zip(part, position)) for position in feature_map.tolist()]
        top = max(s)
        log_sum = top + math.log(sum(math.exp(v - top) for v in s))
        log_q = [v - log_sum for v in s]
        u = sum((1 / length) * (math.log(1 / length + 1e-6) - log_q[n]) for n in range(length))
        target = gaussian[i].tolist()
        g = sum(target[n] * (math.log(target[n] + 1e-6) - log_q[n]) for n in range(length))
        uniform_energies.append(u)
        gaussian_energies.append(g)
    u, g = sorted(uniform_energies, reverse=True), sorted(gaussian_energies, reverse=True)
    return {"uniform": u, "gaussian": g, "both": u + g}[kind]


def gaussian_distribution(values):
    """G_i from L values of N(0, 1): sorted, their own normal density at each, renormalised."""
    values = sorted(values)
    mean = sum(values) / len(values)
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    density = [math.exp(-((v - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)) for v in values]
    return torch.tensor([d / sum(density) for d in density])


def auc(scores, member):
    """The share of member, non-member pairs that are ranked rightly, ties counting half."""
    pairs = [(a, b) for a, m in zip(scores, member) if m for b, k in zip(scores, member) if not k]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
