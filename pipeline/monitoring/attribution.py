"""Attribution of events to the lists that users were shown.

Guarantees: an event is attributed by the system's own publications, never by its claim; claims are
compared and counted; each event is attributed to one list at most; neither pseudonyms nor the
order of rows have an effect.

Sources do not report impressions, so these follow from events: a user with an event is active, and
can see the list that is live then (`data.exposure`). Such a list on such a day is a *showing*.
::

    ann    [---- list p1: a b ----)[---- list p2: b c ----)      an event of ann's
               x         a             b     a        q
               |         |             |     |        `- in none of her lists: no response
               |         |             |     `- not in p2: attributed to p1, her last showing of it
               |         |             `- attributed to p2, position 1
               |         `- attributed to p1, position 1
               `- no response, but ann is active: p1 is shown

*Last touch*: an event is attributed to the last showing, at its instant or within the window
before, whose list contains its item. An *exposure* is one entry of one list that was shown to one
user, once for each 24 hours of the span; a rate is the share of exposures with such a response in
the same 24 hours. A response to a list that was last shown on an earlier day is *late*: it is
counted, but in no rate, because of the lists of that day only those with a response would count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl
from pydantic import ConfigDict, Field

from pipeline import columns as c
from pipeline.base import Frozen, Interval
from pipeline.data.cluster_robust import MIN_GROUP_SIZE
from pipeline.data.exposure import OWNER, SHOWN, exposure_intervals, shown_at
from pipeline.data.split import between
from pipeline.monitoring import rates
from pipeline.monitoring.shown_effect import EDGE, EDGE_SHOWN, shown_effects

_ROW, _TOUCH, _DAY, _LENGTH, _BACK = "row", "touch", "day", "length", "back"
_CLAIMED, _AT = "claimed", "claimed_position"
_SPARE = "spare"
NOWHERE: Final = "(none)"
"""Segment of users without a segment."""


class AttributionConfig(Frozen):
    """Selection of the events that are attributed to a list."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    window_days: int = Field(default=7, ge=1)
    """Number of days after a list was shown in which an event is attributed to it."""
    clicks: tuple[str, ...] = (c.Kind.VIEW.value, c.Kind.CLICK.value)
    """Kinds of events that count as a click on a list entry."""
    visitor_hits: tuple[str, ...] = (c.Kind.PURCHASE.value,)
    """Kinds of events that count as a visitor hit, usually a purchase; their value is a
    quantity."""


@dataclass(frozen=True)
class ShownLists:
    """Input of attribution from lists: their lengths, and entries that events may be attributed to.

    Attributes
    ----------
    sizes
        `publication_id`, `user_id`, the number of entries for each slot, and `spare`: the number of
        spare entries behind them.
    entries
        `publication_id`, `user_id`, `item_id`, `position`, `slot`.
    spare
        The same of spare entries, which no user sees; their positions follow the shown ones.
    """

    sizes: pl.DataFrame
    entries: pl.DataFrame
    spare: pl.DataFrame

    @classmethod
    def of(
        cls, parts: Iterable[tuple[pl.DataFrame, pl.DataFrame]], events: pl.DataFrame
    ) -> ShownLists:
        """Reduce lists to their lengths and to the entries with an event on their item.

        Parameters
        ----------
        parts
            Shown and spare entries as rows of `columns.RECOMMENDATIONS`, some publications at a
            time.
        events
            `user_id`, `item_id` of the events to attribute.

        Returns
        -------
        ShownLists
            Of all parts.
        """
        pairs = events.select(c.USER_ID, c.ITEM_ID).unique()
        keys = [c.PUBLICATION_ID, c.USER_ID]
        counts = [(pl.col(c.SLOT) == slot.value).sum().alias(slot.value) for slot in c.Slot]
        sizes: list[pl.DataFrame] = []
        entries: list[pl.DataFrame] = []
        spares: list[pl.DataFrame] = []
        for lists, spare in parts:
            # Exposures need only the length of a list; entries are kept if an event may match them.
            behind = spare.group_by(keys).agg(pl.len().alias(_SPARE))
            shown = lists.group_by(keys).agg(counts).join(behind, on=keys, how="left")
            sizes.append(shown.with_columns(pl.col(_SPARE).fill_null(0)))
            for rows, kept in ((lists, entries), (spare, spares)):
                held = rows.select(*keys, c.ITEM_ID, c.POSITION, c.SLOT)
                anyone = held.filter(pl.col(c.USER_ID) == c.FALLBACK_USER)
                kept.append(held.join(pairs, on=[c.USER_ID, c.ITEM_ID], how="semi"))
                kept.append(anyone.join(pairs, on=c.ITEM_ID, how="semi"))
        if not sizes:
            none = pl.DataFrame(schema=c.RECOMMENDATIONS)
            return cls.of([(none, none)], events)
        return cls(pl.concat(sizes), pl.concat(entries), pl.concat(spares))


def with_window(span: Interval, config: AttributionConfig) -> Interval:
    """Extend a span by the days before it in which a list may have been shown last.

    Parameters
    ----------
    span, config
        The span, and the attribution window.

    Returns
    -------
    Interval
        With the end of the span.
    """
    return Interval(span.start - timedelta(days=config.window_days), span.end)


def attribute_events(
    events: pl.DataFrame,
    publications: pl.DataFrame,
    lists: ShownLists,
    prices: pl.DataFrame,
    segments: pl.DataFrame,
    *,
    span: Interval,
    config: AttributionConfig,
) -> rates.Attribution:
    """Attribute the events of a span to the lists that their users were shown.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `kind`, `value`, `timestamp`, `publication_id`, `position` of all
        events `with_window` of the users with an event in the span.
    publications
        Rows of `columns.PUBLICATIONS`.
    lists
        Of the publications that were live `with_window`, for these users and the fallback.
    prices, segments
        `item_id`, `price` and `user_id`, `segment`; rows may be missing.
    span, config
        Days of the events, and the attribution window.

    Returns
    -------
    Attribution
        Counts, and rates by group.
    """
    # A fixed order of rows, with the pseudonym after time and item: both must not affect the
    # result.
    rows = events.sort(c.TIMESTAMP, c.ITEM_ID, c.USER_ID, c.KIND).with_row_index(_ROW)
    touches = _touches(rows, exposure_intervals(publications, lists.sizes), span)
    inside, is_return = rows.filter(between(span)), pl.col(c.KIND) == c.Kind.RETURN.value
    actions, returns = inside.filter(~is_return), inside.filter(is_return)
    joined = _last_touch(actions, touches, lists.entries, timedelta(days=config.window_days))
    # A response on a later day than the showing is counted as late, and is in no rate.
    same_day = joined.filter(pl.col(_DAY) == _day_of(span))
    responses = _responses(same_day, returns, prices, config)
    # One showing per list, user and 24 hours, whatever the number of events.
    visits = touches.filter(between(span)).unique([c.USER_ID, SHOWN, _DAY]).drop(c.TIMESTAMP)
    return rates.Attribution(
        span=span,
        window_days=config.window_days,
        users=actions[c.USER_ID].n_unique(),
        events=actions.height,
        joined=joined.height,
        late=joined.height - same_day.height,
        unshown=actions.join(touches, on=[c.USER_ID, c.TIMESTAMP], how="anti").height,
        claims=_claims(actions, joined),
        shown_effects=_effects(rows, touches, visits, lists, prices, span, config),
        rows=tuple(_rows(visits, lists.sizes, responses, publications, segments)),
    )


def answered_pairs(
    events: pl.DataFrame,
    publications: pl.DataFrame,
    lists: ShownLists,
    wanted: pl.Expr,
    *,
    span: Interval,
    config: AttributionConfig,
) -> pl.DataFrame:
    """Select the pairs of user and item of which every wanted event responds to a shown list.

    Parameters
    ----------
    events, publications, lists, span, config
        As in `attribute_events`.
    wanted
        Condition of the events that count.

    Returns
    -------
    `user_id`, `item_id`, sorted.
    """
    rows = events.sort(c.TIMESTAMP, c.ITEM_ID, c.USER_ID, c.KIND).with_row_index(_ROW)
    touches = _touches(rows, exposure_intervals(publications, lists.sizes), span)
    targets = rows.filter(between(span) & wanted)
    window = timedelta(days=config.window_days)
    answers = _last_touch(targets, touches, lists.entries, window).select(_ROW)
    pair = [c.USER_ID, c.ITEM_ID]
    others = targets.join(answers, on=_ROW, how="anti")
    return targets.select(pair).unique().join(others, on=pair, how="anti").sort(pair)


def _effects(
    rows: pl.DataFrame,
    touches: pl.DataFrame,
    visits: pl.DataFrame,
    lists: ShownLists,
    prices: pl.DataFrame,
    span: Interval,
    config: AttributionConfig,
) -> tuple[rates.ShownEffect, ...]:
    """Compare the last entries of lists with the spare ones behind them."""
    length = pl.sum_horizontal([slot.value for slot in c.Slot]).cast(pl.Int32)
    edged = (
        lists.sizes.with_columns(length.alias(_LENGTH))
        .filter((pl.col(_SPARE) >= EDGE) & (pl.col(_LENGTH) >= EDGE))
        .select(pl.col(c.PUBLICATION_ID).alias(SHOWN), pl.col(c.USER_ID).alias(OWNER), _LENGTH)
    )
    seen = visits.join(edged, on=[SHOWN, OWNER])
    if seen.is_empty():
        return ()
    actions = rows.filter(between(span) & (pl.col(c.KIND) != c.Kind.RETURN.value))
    # Both kinds of entries compete for an event, or each would have a rule of its own.
    entries = pl.concat([lists.entries, lists.spare])
    joined = _last_touch(actions, touches, entries, timedelta(days=config.window_days))
    same_day = joined.filter(pl.col(_DAY) == _day_of(span))
    responses = _responses(same_day, actions.clear(), prices, config)
    beyond = pl.col(c.POSITION) - pl.col(_LENGTH)
    at_edge = responses.join(edged, on=[SHOWN, OWNER]).filter((beyond > -EDGE) & (beyond <= EDGE))
    return shown_effects(seen, at_edge.with_columns((beyond <= 0).alias(EDGE_SHOWN)))


def _touches(rows: pl.DataFrame, shown: pl.DataFrame, span: Interval) -> pl.DataFrame:
    """Return the instants at which lists were shown, by user, with the day of the span."""
    seen = shown_at(rows.select(c.USER_ID, c.TIMESTAMP).unique(), shown)
    day = _day_of(span).alias(_DAY)
    return seen.select(c.USER_ID, c.TIMESTAMP, SHOWN, OWNER, c.MODEL_VERSION, c.RECIPE, day)


def _day_of(span: Interval) -> pl.Expr:
    """Number the 24 hours of an event from the start of the span; earlier ones are negative."""
    # Floor division, so that instants before the span have negative days.
    return (pl.col(c.TIMESTAMP) - span.start).dt.total_microseconds().floordiv(86_400_000_000)


def _last_touch(
    actions: pl.DataFrame, touches: pl.DataFrame, entries: pl.DataFrame, window: timedelta
) -> pl.DataFrame:
    """Keep the attributed events, with the list, the entry and the instant it was last shown."""
    pairs = actions.select(c.USER_ID, c.ITEM_ID).unique()
    entry = entries.rename({c.PUBLICATION_ID: SHOWN, c.USER_ID: OWNER})
    lists = touches.select(c.USER_ID, SHOWN, OWNER).unique()
    # Only entries on whose item the user has an event: others cannot match, and are many.
    candidates = lists.join(entry, on=[SHOWN, OWNER]).join(
        pairs, on=[c.USER_ID, c.ITEM_ID], how="semi"
    )
    touched = candidates.join(touches, on=[c.USER_ID, SHOWN, OWNER]).rename({c.TIMESTAMP: _TOUCH})
    claims = {c.PUBLICATION_ID: _CLAIMED, c.POSITION: _AT}
    return (
        actions.rename(claims)
        .sort(c.TIMESTAMP)
        .join_asof(
            touched.sort(_TOUCH),
            left_on=c.TIMESTAMP,
            right_on=_TOUCH,
            by=[c.USER_ID, c.ITEM_ID],
            strategy="backward",
            tolerance=window,
            check_sortedness=False,  # both are sorted above; with groups polars cannot check it
        )
        .filter(pl.col(SHOWN).is_not_null())
        .sort(_ROW)
    )


def _responses(
    joined: pl.DataFrame, returns: pl.DataFrame, prices: pl.DataFrame, config: AttributionConfig
) -> pl.DataFrame:
    """Return the exposures with a response: one row each, with the kinds of responses."""
    kind = pl.col(c.KIND)
    bought = kind.is_in(list(config.visitor_hits))
    returned, price = bought & (pl.col(c.TIMESTAMP) <= pl.col(_BACK)), pl.col(c.PRICE)
    # A purchase without a quantity counts as one.
    revenue = pl.when(bought & price.is_finite()).then(price * pl.col(c.VALUE).fill_null(1.0))
    back = returns.group_by(c.USER_ID, c.ITEM_ID).agg(pl.col(c.TIMESTAMP).max().alias(_BACK))
    priced = (
        # One price per item, or the join would repeat events.
        joined.join(prices.select(c.ITEM_ID, c.PRICE).unique(c.ITEM_ID), on=c.ITEM_ID, how="left")
        .join(back, on=[c.USER_ID, c.ITEM_ID], how="left")
        .sort(_ROW)
    )
    return priced.group_by([c.USER_ID, SHOWN, _DAY, c.ITEM_ID], maintain_order=True).agg(
        pl.col(OWNER, c.MODEL_VERSION, c.RECIPE, c.POSITION, c.SLOT).first(),
        pl.lit(1.0).alias(rates.RESPONDED).first(),
        kind.is_in(list(config.clicks)).any().cast(pl.Float64).alias(rates.CLICKED),
        bought.any().cast(pl.Float64).alias(rates.PURCHASED),
        (kind == c.Kind.RATING.value).any().cast(pl.Float64).alias(rates.RATED),
        returned.any().cast(pl.Float64).alias(rates.RETURNED),
        revenue.sum().alias(rates.REVENUE),
        (bought & revenue.is_null()).sum().cast(pl.Float64).alias(rates.UNPRICED),
    )


def _claims(actions: pl.DataFrame, joined: pl.DataFrame) -> rates.Claims:
    """Compare the claims of events with their attribution."""
    claimed = int(actions[c.PUBLICATION_ID].is_not_null().sum())
    claims = joined.filter(pl.col(_CLAIMED).is_not_null())
    same_position = pl.col(_AT).is_null() | (pl.col(_AT) == pl.col(c.POSITION))
    agree = claims.filter((pl.col(_CLAIMED) == pl.col(SHOWN)) & same_position).height
    return rates.Claims(agree, claims.height - agree, claimed - claims.height)


def _rows(
    visits: pl.DataFrame,
    sizes: pl.DataFrame,
    responses: pl.DataFrame,
    publications: pl.DataFrame,
    segments: pl.DataFrame,
) -> Iterable[rates.AttributionRow]:
    """Count exposures and responses by group and user, and return the rows with their rates."""
    slots = [slot.value for slot in c.Slot]
    held = sizes.rename({c.PUBLICATION_ID: SHOWN, c.USER_ID: OWNER})
    shown = visits.join(held, on=[SHOWN, OWNER]).with_columns(
        pl.sum_horizontal(slots).alias(_LENGTH)
    )
    segment = pl.col(c.SEGMENT).fill_null(NOWHERE)
    by_user = segments.select(c.USER_ID, c.SEGMENT).unique(c.USER_ID)
    shown, responses = (
        frame.join(by_user, on=c.USER_ID, how="left").with_columns(segment)
        for frame in (shown, responses)
    )
    order = publications.sort(c.GENERATION)
    named: dict[str, tuple[pl.Expr, list[str]]] = {
        rates.ALL_USERS: (pl.lit(rates.ALL_USERS), [rates.ALL_USERS]),
        rates.PUBLICATION: (pl.col(SHOWN), order[c.PUBLICATION_ID].to_list()),
        rates.VERSION: (pl.col(c.MODEL_VERSION), _distinct(order[c.MODEL_VERSION])),
        c.RECIPE: (pl.col(c.RECIPE), _distinct(order[c.RECIPE])),
        c.SEGMENT: (pl.col(c.SEGMENT), _large_segments(shown)),
    }
    length = pl.col(_LENGTH)
    for by, (group, names) in named.items():
        exposed = shown.group_by(group.alias(by), c.USER_ID).agg(length.sum().alias(rates.EXPOSED))
        yield from rates.rows_of(by, names, exposed, responses.with_columns(group.alias(by)))
    sizes_by_slot = shown.unpivot(
        slots, index=c.USER_ID, variable_name=c.SLOT, value_name=rates.EXPOSED
    )
    exposed = sizes_by_slot.group_by(c.SLOT, c.USER_ID).agg(pl.col(rates.EXPOSED).sum())
    yield from rates.rows_of(c.SLOT, slots, exposed, responses)
    place = pl.col(c.POSITION).cast(pl.String)
    exposed = (
        shown.group_by(c.USER_ID, _LENGTH)
        .agg(pl.len().alias(rates.EXPOSED))
        # A list of n entries has the positions 1 to n.
        .with_columns(pl.int_ranges(1, length + 1).alias(c.POSITION))
        .explode(c.POSITION)
        .group_by(place, c.USER_ID)
        .agg(pl.col(rates.EXPOSED).sum())
    )
    longest = shown[_LENGTH].to_list()
    places = [str(at) for at in range(1, max(longest, default=0) + 1)]
    yield from rates.rows_of(c.POSITION, places, exposed, responses.with_columns(place))


def _large_segments(shown: pl.DataFrame) -> list[str]:
    """Return the segments with enough users; the name of a smaller one could reveal a user."""
    users = shown.group_by(c.SEGMENT).agg(pl.col(c.USER_ID).n_unique()).sort(c.USER_ID, c.SEGMENT)
    large = users.filter(pl.col(c.USER_ID) >= MIN_GROUP_SIZE)
    others = sum(users[c.USER_ID].to_list()) - sum(large[c.USER_ID].to_list())
    # Otherwise the figures of the others follow from those of all users and of the segments.
    if 0 < others < MIN_GROUP_SIZE:
        large = large[1:]
    return _distinct(large[c.SEGMENT].sort())


def _distinct(names: pl.Series) -> list[str]:
    distinct: list[str] = names.unique(maintain_order=True).to_list()
    return distinct
