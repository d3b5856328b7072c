"""Tokens to money: what one model call cost, in whole nano-dollars.

Prices come from the list inside the installed genai-prices, so nothing is ever fetched. They are estimated
call by call, never over a sum: a long context has its own price, and prices change with the date.
"""

from __future__ import annotations

from datetime import datetime

from .models import TokenUsage

NANO = 10**9
LONGEST_MODEL_NAME = 256


def estimate(model: str, usage: TokenUsage, at: datetime) -> int | None:
    """The cost in nano-dollars at that time, or None where it is not known; unknown is never 0.

    Not known is: a model that the list does not name or has no token price for, or a usage that cannot be
    (more tokens from the cache than came in). About 80 us; the first call imports the list, about 160 ms.
    """
    # The list remembers each name it was asked for, so names of any length would grow the process.
    if len(model) > LONGEST_MODEL_NAME:
        return None

    from genai_prices import Usage, calc_price

    try:
        price = calc_price(
            Usage(
                input_tokens=usage["input"],
                output_tokens=usage["output"],
                cache_read_tokens=usage["cache_read"],
                cache_write_tokens=usage["cache_write"],
            ),
            model,
            genai_request_timestamp=at,
        )
    except (LookupError, ValueError):
        return None
    rates = price.model_price
    # Some models are on the list without a price, or with one per page or second: they would cost 0.
    if (usage["input"] and rates.input_mtok is None) or (usage["output"] and rates.output_mtok is None):
        return None
    return round(price.total_price * NANO)
