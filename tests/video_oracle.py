"""What methods about videos put in place of the tokens they keep, for the oracles: worked out again by plain lists."""

import torch
from plain_videos import plain_fastvid, plain_flashvid, plain_folding, plain_holitom, plain_prunevid

import seeless as sl


def units_of(strategy, model, inputs):
    """Per image or video: `(row, places among the row's visual tokens, frames, importance)`."""
    seen = []

    class Spy(sl.EntryStrategy):
        tower = type(strategy).tower
        patches_only = True

        def select(self, ctx):
            frames = ctx.whole_frames()[0]
            for i, unit in enumerate(ctx.sources.group.units):
                own = ctx.vision_attention()[i].double().mean(0).tolist() if self.tower else None
                seen.append((unit.row, torch.from_numpy(unit.tokens), frames, own))
            return sl.Keep(torch.ones(ctx.index.shape, dtype=torch.bool))

    with torch.no_grad(), sl.apply(model, Spy(keep=10**6, newlines=True)):
        model(**inputs)
    return seen


PLAIN = {
    "fastvid": plain_fastvid,
    "flashvid": plain_flashvid,
    "holitom": plain_holitom,
    "prunevid": plain_prunevid,
}


def merged_videos(strategy, turn, model, inputs):
    """The oracles' arguments. Decided when the embeddings come; what comes later (DeepStack) is summed up alike."""
    units, decided = units_of(strategy, model, inputs), []

    def decide(embeds):
        for row, tokens, frames, importance in units:
            columns = turn.columns[row][tokens]
            x = embeds[row, columns].detach().double().view(frames, len(columns) // frames, -1).tolist()
            per_frame = None if importance is None else torch.tensor(importance).view(frames, -1).tolist()
            sums = PLAIN[strategy.name](strategy, x, per_frame)
            kept = set(turn.columns[row][turn.report.stages[0].kept[row]].tolist())
            assert kept & set(columns.tolist()) == {int(columns[place]) for place in sums}
            decided.append((row, columns, sums))

    def merge(embeds):
        if not decided:
            decide(embeds)
        result = embeds.clone()
        for row, columns, sums in decided:
            for place, weights in sums.items():
                result[row, columns[place]] = sum(weight * embeds[row, columns[i]] for i, weight in weights.items())
        return result

    later = {} if strategy.name != "holitom" else {turn.report.stages[1].layer: folded(turn, units)}
    return {"merged": merge, "at_layers": later}


def folded(turn, units):
    """How HoliTom merges at its second stage, from what the report says is kept there and before."""
    before, now = turn.report.stages

    def at(states):
        found = []
        for row, tokens, _, _ in units:
            own = set(tokens.tolist())
            alive = [place for place in before.kept[row].tolist() if place in own]
            kept = [alive.index(place) for place in now.kept[row].tolist() if place in own]
            columns = turn.columns[row][alive]
            found.append((row, columns, plain_folding(states[row, columns].detach().double().tolist(), kept)))

        def merge(old):
            new = old.clone()
            for row, columns, sums in found:
                for place, weights in sums.items():
                    new[row, columns[place]] = sum(w * old[row, columns[i]] for i, w in weights.items())
            return new

        return merge

    return at
