"""What methods about videos make of one, written with lists from their descriptions: slow, in float64.

A video is a list of frames, a frame a list of vectors. The result says what every token that stays becomes: by its
place in the video, the weights of the old tokens in its sum.
"""

import math

from fake_context import cosine, mean


def likeness_of_frames(frames):
    means = [mean(frame) for frame in frames]
    return [cosine(a, b) for a, b in zip(means, means[1:], strict=False)]


def plain_segments(likeness, threshold, least):
    """Lists of successive frames."""
    cuts = {i for i, c in enumerate(likeness) if c < threshold}
    for i in sorted(range(len(likeness)), key=lambda i: (likeness[i], i)):
        if len(cuts) + 1 < least:
            cuts.add(i)
    found = [[0]]
    for i in range(len(likeness)):
        if i in cuts:
            found.append([])
        found[-1].append(i + 1)
    return found


def plain_peaks(points, count, neighbours):
    """`{centre: members}` of the clusters of some vectors; each member list has the centre."""
    n, dim = len(points), len(points[0]) if points else 0
    far = [[math.dist(p, q) / math.sqrt(dim) for q in points] for p in points]
    near = [sorted(row)[: min(neighbours, n)] for row in far]
    dense = [math.exp(-sum(d * d for d in row) / len(row)) for row in near]
    widest = max(map(max, far), default=0)
    gap = []
    for i in range(n):
        higher = [far[i][j] for j in range(n) if (dense[j], -j) > (dense[i], -i)]
        gap.append(min(higher, default=widest))
    centres = sorted(sorted(range(n), key=lambda i: (-dense[i] * gap[i], i))[:count])
    members = {c: [] for c in centres}
    for i in range(n):
        if centres:
            members[i if i in members else min(centres, key=lambda c: (far[i][c], c))].append(i)
    return members


def weighted(frames, weights, size):
    """The sum of some tokens by their weights."""
    total = [0.0] * len(frames[0][0])
    for place, weight in weights.items():
        total = [a + weight * b for a, b in zip(total, frames[place // size][place % size], strict=True)]
    return total


def whole(frames):
    size = len(frames[0])
    return {place: {place: 1.0} for place in range(len(frames) * size)}


def plain_flashvid(strategy, frames, importance):
    """methods-2.md 27.1; `importance`: a list of numbers per frame."""
    size, visual = len(frames[0]), len(frames) * len(frames[0])
    share = strategy.keep if isinstance(strategy.keep, float) else min(1.0, strategy.keep / visual)
    budget = math.ceil(size * share * strategy.expansion)
    if budget >= size:
        return whole(frames)
    picks = math.ceil(budget * strategy.diverse)
    result = {}
    for own in plain_segments(likeness_of_frames(frames), strategy.segment_similarity, strategy.segments):
        means = [mean(frames[f]) for f in own]
        chosen = {
            f: plain_diverse(frames[f], importance[f], picks, means if strategy.version == "v2" else None) for f in own
        }
        for f in own:
            result.update({f * size + j: {f * size + j: 1.0} for j in chosen[f]})
        trees = plain_trees(strategy, frames, own, chosen, budget)
        left = {f: [j for j in range(size) if j not in chosen[f] and (f, j) in trees] for f in own}
        total, wanted = sum(map(len, left.values())), (budget - picks) * len(own)
        for f in own:
            count = -(-len(left[f]) * wanted // total) if wanted < total else len(left[f])
            values = [weighted(frames, trees[f, j], size) for j in left[f]]
            for centre, members in plain_peaks(values, count, max(1, min(7, count))).items():
                cluster = {}
                for i in members:
                    for place, weight in trees[f, left[f][i]].items():
                        cluster[place] = cluster.get(place, 0.0) + weight / len(members)
                result[f * size + left[f][centre]] = cluster
    return result


def plain_diverse(frame, importance, count, means):
    """The tokens of a frame that are chosen, `means` those of its segment's frames in version 2."""
    size = len(frame)
    factor = list(importance)
    if means is not None:
        dots = [[sum(a * b for a, b in zip(x, m, strict=True)) for m in means] for x in frame]
        factor = [a * sum(own) / len(own) for a, own in zip(factor, dots, strict=True)]
    delta = [[(1 - cosine(frame[i], frame[j])) * 1e6 * factor[j] for j in range(size)] for i in range(size)]
    if size == 1:
        return [0]
    chosen = [max(range(size), key=lambda j: (sorted(delta[i][j] for i in range(size))[1], -j))]
    while len(chosen) < count:
        left = [j for j in range(size) if j not in chosen]
        chosen.append(max(left, key=lambda j: (min(delta[i][j] for i in chosen), -j)))
    return chosen


def plain_trees(strategy, frames, own, chosen, budget):
    """`{(frame, place): weights}` of what is left of a segment when tokens have joined others of the frame before."""
    size = len(frames[0])
    best = {}
    for before, f in zip(own, own[1:], strict=False):
        for j in [j for j in range(size) if j not in chosen[f]]:
            likes = [-1.0 if i in chosen[before] else cosine(frames[f][j], frames[before][i]) for i in range(size)]
            parent = max(range(size), key=lambda i: (likes[i], -i))
            best[f, j] = likes[parent], (before, parent)
    ranked = sorted(best, key=lambda token: (-best[token][0], token))[: len(own) * (size - budget)]
    joins = {token: best[token][1] for token in ranked if best[token][0] > strategy.similarity}
    sums = {(f, j): {f * size + j: 1.0} for f in own for j in range(size)}
    children = dict.fromkeys(sums, 0)
    for f in reversed(own):
        for j in range(size):
            if (f, j) in joins:
                parent = joins[f, j]
                for place, weight in sums.pop((f, j)).items():
                    sums[parent][place] = sums[parent].get(place, 0.0) + weight
                children[parent] += 1
    for token, parts in sums.items():
        divisor = 1 + children[token] if strategy.as_released else len(parts)
        sums[token] = {place: weight / divisor for place, weight in parts.items()}
    return sums


def plain_static_windows(above):
    """Windows `(first, last)` and what they save, by trying every partition. `above`: per pair of frames, bools."""

    def saved(a, b):
        return (b - a) * sum(all(above[f][j] for f in range(a, b)) for j in range(len(above[0]))) if b > a else 0

    found = {0: (0, [])}
    for end in range(1, len(above) + 2):
        for begin in range(end - 1, -1, -1):  # a frame alone first, then shorter windows
            total = found[begin][0] + saved(begin, end - 1)
            if end not in found or total > found[end][0]:
                found[end] = total, [*found[begin][1], (begin, end - 1)]
    total, windows = found[len(above) + 1]
    return windows, total


def plain_holitom(strategy, frames, importance):
    """methods-2.md 25.1; `importance`: a list of numbers per frame."""
    size, visual = len(frames[0]), len(frames) * len(frames[0])
    share = strategy.keep if isinstance(strategy.keep, float) else min(1.0, strategy.keep / visual)
    above = [
        [cosine(a, b) > strategy.similarity for a, b in zip(f, g, strict=True)]
        for f, g in zip(frames, frames[1:], strict=False)
    ]
    windows, saved = plain_static_windows(above)
    share = min(share * visual / (visual - saved), 1)
    result, counts = {}, []
    for a, b in windows:
        static = [j for j in range(size) if b > a and all(above[f][j] for f in range(a, b))]
        counts.append(round(len(static) * share))
        counts.append(sum(math.ceil((size - len(static)) * share) for _ in range(a, b + 1)))
    one = int(sum(counts) == 0)  # of the first window
    for a, b in windows:
        static = [j for j in range(size) if b > a and all(above[f][j] for f in range(a, b))]
        over = {j: {f * size + j: 1 / (b - a + 1) for f in range(a, b + 1)} for j in static}
        count = round(len(static) * share) + (one if a == 0 else 0)
        points = [weighted(frames, over[j], size) for j in static]
        for centre, members in plain_peaks(points, count, max(1, min(7, count))).items():
            others = [i for i in members if i != centre]
            beta = strategy.beta if others else 1.0
            sums = {place: beta * w for place, w in over[static[centre]].items()}
            for i in others:
                for place, w in over[static[i]].items():
                    sums[place] = (1 - beta) / len(others) * w
            result[a * size + static[centre]] = sums
        for f in range(a, b + 1):
            dynamic = [j for j in range(size) if j not in static]
            ranked = sorted(dynamic, key=lambda j: (-importance[f][j], j))
            result.update({f * size + j: {f * size + j: 1.0} for j in ranked[: math.ceil(len(dynamic) * share)]})
    return result


def plain_folding(states, kept):
    """methods-2.md 25.2: what every kept token becomes, one merger after the other."""
    sums = {i: {i: 1.0} for i in kept}
    for j in [j for j in range(len(states)) if j not in kept]:
        most = max(kept, key=lambda i: (cosine(states[j], states[i]), -i))
        sums[most] = {place: weight / 2 for place, weight in sums[most].items()} | {j: 0.5}
    return sums


def plain_fastvid(strategy, frames, importance, vectors=None):
    """methods-2.md 24.1; `importance`: a list of numbers per frame; `vectors` of frames, their means unless given."""
    size, visual = len(frames[0]), len(frames) * len(frames[0])
    share = strategy.keep if isinstance(strategy.keep, float) else min(1.0, strategy.keep / visual)
    budget = max(1, int(size * share))
    if budget == size:
        return whole(frames)
    context = int(budget * strategy.context)
    vectors = vectors or [mean(frame) for frame in frames]
    likeness = [cosine(a, b) for a, b in zip(vectors, vectors[1:], strict=False)]
    result = {}
    for own in plain_segments(likeness, strategy.segment_similarity, strategy.segments):
        rest = {}
        for f in own:
            ranked = sorted(range(size), key=lambda j: (-importance[f][j], j))
            result.update({f * size + j: {f * size + j: 1.0} for j in ranked[: budget - context]})
            rest[f] = sorted(ranked[budget - context :])
        anchor_frames = own[::-1][:: strategy.step]
        for f in anchor_frames:
            quota = min(context * len(own) // len(anchor_frames), len(rest[f]))
            anchors = [rest[f][i] for i in plain_peaks([frames[f][j] for j in rest[f]], quota, 4)]
            came = {j: [] for j in anchors}
            for g in own if anchors else []:
                for j in rest[g]:
                    came[max(anchors, key=lambda i: (cosine(frames[g][j], frames[f][i]), -i))].append(g * size + j)
            for j, others in came.items():
                weight = max(strategy.beta, 1 / (len(others) + 1))
                sums = {f * size + j: weight}
                for place in others:
                    sums[place] = sums.get(place, 0.0) + (1 - weight) / len(others)
                result[f * size + j] = sums
    return result


def plain_runs(labels):
    """Windows of frames `(first, last)` from the labels of their clusters, methods-2.md 26.1 step 2."""

    def runs(values):
        found = []
        for i, value in enumerate(values):
            if found and values[found[-1][-1]] == value:
                found[-1].append(i)
            else:
                found.append([i])
        return found

    longest = {}
    for run in runs(labels):
        longest[labels[run[0]]] = max(longest.get(labels[run[0]], 0), len(run))
    now = [None] * len(labels)
    for run in runs(labels):
        if len(run) == longest[labels[run[0]]] > 1:
            for i in run:
                now[i] = labels[i]
    for stretch in [run for run in runs([value is None for value in now]) if now[run[0]] is None]:
        beside = [i for i in (stretch[0] - 1, stretch[-1] + 1) if 0 <= i < len(now)]
        around = [next(run for run in runs(now) if i in run) for i in beside]
        sides = [(len(run), now[run[0]]) for run in around]
        label = max(sides, key=lambda side: side[0])[1] if sides else 0  # the first of equals
        for i in stretch:
            now[i] = label
    return [(run[0], run[-1]) for run in runs(now)]


def plain_prunevid(strategy, frames, importance=None):
    """methods-2.md 26.1."""
    return prunevid_groups(strategy, frames)[0]


def prunevid_groups(strategy, frames):
    """What stays and becomes what, and which groups of places the second stage chooses in."""
    size = len(frames[0])
    peaks = plain_peaks([mean(frame) for frame in frames], max(1, int(len(frames) * strategy.windows)), 7)
    labels = [next(c for c, members in peaks.items() if f in members) for f in range(len(frames))]
    result, groups = {}, []

    def cluster(tokens):  # of (place, weights)
        count = int(len(tokens) * strategy.clusters) if len(tokens) > 14 else len(tokens)
        values = [weighted(frames, weights, size) for _, weights in tokens]
        found = plain_peaks(values, count, 7)
        groups.append([tokens[c][0] for c in found])
        for c, members in found.items():
            sums = {}
            for i in members:
                for place, weight in tokens[i][1].items():
                    sums[place] = weight / len(members)
            result[tokens[c][0]] = sums

    for a, b in plain_runs(labels):
        own = range(a, b + 1)
        pairs = [(f, g) for f in own for g in own if f != g]
        static = [
            j
            for j in range(size)
            if pairs and sum(cosine(frames[f][j], frames[g][j]) for f, g in pairs) / len(pairs) > strategy.similarity
        ]
        cluster([(a * size + j, {f * size + j: 1 / len(own) for f in own}) for j in static])
        for f in own:
            cluster([(f * size + j, {f * size + j: 1.0}) for j in range(size) if j not in static])
    return result, groups


def plain_asked_for(strategy, groups, scores):
    """Which of the places in some groups stay; `scores` by place."""
    kept = []
    for group in groups:
        kept += sorted(group, key=lambda place: (-scores[place], place))[: int(len(group) * strategy.later)]
    best = min((place for group in groups for place in group), key=lambda place: (-scores[place], place))
    return sorted(kept or [best])
