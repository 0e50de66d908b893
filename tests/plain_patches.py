"""What leaves inside a vision tower, from the specifications: lists of numbers, no tensor, one picture at a time."""

import math


def alike(u, v, tolerance):
    return max(abs(a - b) for a, b in zip(u, v, strict=True)) <= tolerance


def plain_pixelprune(pixels, height, width, tolerance, anchored):
    """Places that stay; `pixels`: one list of numbers per token, in the order of reading."""
    known, kept = list(pixels), []
    for i in range(height):
        for j in range(width):
            here = i * width + j
            left, above, corner = here - 1, here - width, here - width - 1
            if here == 0:
                kept.append(here)
                continue
            if i == 0:
                guess = known[left]
            elif j == 0:
                guess = known[above]
            else:
                vertical = alike(known[corner], known[left], tolerance)
                vertical = vertical and not alike(known[corner], known[above], tolerance)
                guess = known[above] if vertical else known[left]
            if alike(pixels[here], guess, tolerance):
                known[here] = guess if anchored else pixels[here]
            else:
                kept.append(here)
    return kept


def softmax(numbers):
    top = max(numbers)
    powers = [math.exp(x - top) for x in numbers]
    return [p / sum(powers) for p in powers]


def plain_flow(attention, values, own):
    """FlowCut's score of one layer: `attention` of the class token to each patch, averaged over heads; `values`
    `[heads][patches][dim]` and the class token's `own` `[heads][dim]`."""
    heads, patches = len(values), len(values[0])
    flow = [0.0] * patches
    for head in range(heads):
        products = [sum(a * b for a, b in zip(own[head], v, strict=True)) for v in values[head]]
        for j, share in enumerate(softmax(products)):
            flow[j] += share / heads
    size = []
    for j in range(patches):
        mean = [sum(values[h][j][d] for h in range(heads)) / heads for d in range(len(own[0]))]
        size.append(sum(map(abs, mean)))
    return [(attention[j] / sum(attention) + flow[j] / sum(flow)) * size[j] for j in range(patches)]


def plain_cut(attention, budget, layer, made):
    """How many patches FlowCut takes away after a layer."""
    left, rest = len(attention), made - 1 - layer
    if left <= budget or rest % 2 or (layer == 0 and rest):
        return 0
    if rest == 0:
        return left - budget
    shares = [a / sum(attention) for a in attention]
    entropy = -sum(p * math.log(p) for p in shares if p > 0)
    return round((left - budget) / math.sqrt(rest) * (1 - (entropy / math.log(left)) ** 2))


def plain_windows(hidden, height, width, side, flat):
    """MustDrop's windows that are merged, each a list of places; `hidden`: one vector per token."""
    found = []
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            own = [(top + i) * width + left + j for i in range(side) for j in range(side)]
            pairs = [cosine(hidden[a], hidden[b]) for a in own for b in own if a != b]
            if sum(pairs) / len(pairs) >= flat:
                found.append(own)
    return found


def cosine(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))


def plain_filter(rows, key, total, largest):
    """Places that MustDrop keeps; `rows`: attention of each text token to the visual ones."""
    sums = [sum(column) for column in zip(*rows, strict=True)]
    tops = [max(column) for column in zip(*rows, strict=True)]
    return [j for j in range(len(sums)) if not (sums[j] < total * sum(sums) and tops[j] < largest) or j in key]
