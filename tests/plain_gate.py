"""The gate's figures in plain Python, from docs/GATE.md and raw events: no code of the project.

One kind of event, lists without items that the user had, recipes that count users. An event is
``(user, item, day)`` with the day as a number; a block is ``(begin, end)`` in days.
"""

import math
from collections import defaultdict

K = 20
EFFECTS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
WEIGHTS = (15 / 64,) * 4 + (1 / 80,) * 5


class Window:
    """Events before a day: items of each user, and users of each item with their newest event."""

    def __init__(self, events, until):
        self.until = until
        self.items = defaultdict(set)
        newest = {}
        for user, item, day in events:
            if day < until:
                self.items[user].add(item)
                newest[user, item] = max(day, newest.get((user, item), day))
        self.newest = newest
        self.catalogue = {item for _, item in newest}

    def ranking(self, half_life):
        """Rank all items by their users, each decayed by the age of the newest event."""
        score = defaultdict(float)
        for (_, item), day in self.newest.items():
            age = self.until - day
            score[item] += 1.0 if half_life is None else 2.0 ** (-age / half_life)
        return sorted(score, key=lambda item: (-score[item], item))


def best(ranking, seen):
    """Return the first `K` items that are not in `seen`."""
    chosen = []
    for item in ranking:
        if item not in seen:
            chosen.append(item)
            if len(chosen) == K:
                break
    return chosen


def ndcg(chosen, targets, size):
    gain = sum(1 / math.log2(place + 2) for place, item in enumerate(chosen) if item in targets)
    return gain / sum(1 / math.log2(place + 2) for place in range(min(size, K)))


def targets_of(events, block):
    """Return the items of each user in a block."""
    wanted = defaultdict(set)
    for user, item, day in events:
        if block[0] <= day < block[1]:
            wanted[user].add(item)
    return wanted


def evaluated(events, block, half_lives):
    """Return the values of each recipe by user: users with a history and a new target."""
    window, wanted = Window(events, block[0]), targets_of(events, block)
    rankings = {name: window.ranking(half_life) for name, half_life in half_lives.items()}
    values = {name: {} for name in half_lives}
    for user, items in wanted.items():
        seen = window.items.get(user)
        new = items - seen if seen else set()
        if new:
            for name, ranking in rankings.items():
                values[name][user] = ndcg(best(ranking, seen), new, len(new))
    return values


def against_stored(events, block, stored_until, half_life):
    """Return tonight's and the stored scorer's values by user (B3)."""
    tonight, stored = Window(events, block[0]), Window(events, stored_until)
    rankings = tonight.ranking(half_life), stored.ranking(half_life)
    known = tonight.catalogue | stored.catalogue
    sides = {}, {}
    for user, items in targets_of(events, block).items():
        if user not in stored.items:
            continue
        seen = tonight.items[user] | stored.items[user]
        wanted = (items & known) - seen
        if wanted:
            for values, ranking in zip(sides, rankings, strict=True):
                values[user] = ndcg(best(ranking, seen), wanted, len(wanted))
    return sides


def compared(candidate, champion):
    """Return n, the lift x, the centred sums and the standard error of a ratio (section 2)."""
    users = sorted(champion)
    n = len(users)
    level = sum(champion[user] for user in users) / n
    d = [(candidate[user] - champion[user]) / level for user in users]
    b = [champion[user] / level for user in users]
    x = sum(d) / n
    s_dd = sum((one - x) ** 2 for one in d)
    s_bb = sum((one - 1) ** 2 for one in b)
    s_db = sum((one - x) * (other - 1) for one, other in zip(d, b, strict=True))
    se = math.sqrt(max(0.0, s_dd - 2 * x * s_db + x * x * s_bb) / (n * (n - 1)))
    return {"n": n, "x": x, "s_dd": s_dd, "se": se, "differ": sum(one != 0 for one in d)}


def log_e(xs, ys):
    """Return the logarithm of E."""
    sum_x, sum_w = sum(x / y for x, y in zip(xs, ys, strict=True)), sum(1 / y for y in ys)
    logs = [
        math.log(a) + g * sum_x - g * g / 2 * sum_w for g, a in zip(EFFECTS, WEIGHTS, strict=True)
    ]
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs))


def e_value(records, period_sd):
    """Return the figures of an e-process by its records of equally long blocks, without seeds."""
    pooled = sum(r["s_dd"] for r in records) / sum(r["n"] - 1 for r in records)
    xs = [r["x"] for r in records]
    v = [pooled / r["n"] for r in records]
    w = [1 / one for one in v]
    mean = sum(one * x for one, x in zip(w, xs, strict=True)) / sum(w)
    q = sum(one * (x - mean) ** 2 for one, x in zip(w, xs, strict=True))
    c = sum(w) - sum(one**2 for one in w) / sum(w)
    count = len(records)
    extra = max(0.0, (q - (count - 1)) / c) if count >= 4 else 0.0
    u = [one + max(period_sd**2, extra) for one in v]
    strongest = max(range(count), key=lambda at: xs[at] / u[at])
    rest = [at for at in range(count) if at != strongest]
    figures = {
        "log_v": log_e(xs, v),
        "log_u": log_e(xs, u),
        "lift": sum(x / y for x, y in zip(xs, u, strict=True)) / sum(1 / y for y in u),
        "q": q,
    }
    figures["log_e"] = min(figures["log_v"], figures["log_u"])
    if rest:
        figures["log_rest"] = min(
            log_e([xs[at] for at in rest], [y[at] for at in rest]) for y in (v, u)
        )
    return figures


def total(values, champion):
    """Return the sum of a recipe's values in units of the champion's mean."""
    return sum(values.values()) / (sum(champion.values()) / len(champion))


def ratio(blocks):
    """Return L and its standard error, for (champion, best baseline) values of some blocks."""
    ratios, errors = [], []
    for own, base in blocks:
        n, level = len(own), sum(base.values()) / len(base)
        one = sum(own.values()) / n / level
        rest = [own[user] - one * base[user] for user in own]
        mean = sum(rest) / n
        sd = math.sqrt(sum((value - mean) ** 2 for value in rest) / (n - 1))
        ratios.append(one)
        errors.append(0.0 if own is base else sd / (math.sqrt(n) * level))
    return sum(ratios) / len(ratios), math.sqrt(sum(one**2 for one in errors)) / len(errors)
