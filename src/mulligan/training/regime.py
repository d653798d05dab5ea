"""What losses depend on besides the weights: under another regime a detector begins afresh."""

import json
from typing import Any


def settings_of(part: object) -> dict[str, Any]:
    """Its attributes, alike in every process: an object among them counts by its class, since its address is another
    one in each. A class that is not of mulligan is named.
    """
    kind = type(part)
    settings = {key: value if _is_plain(value) else type(value).__qualname__ for key, value in vars(part).items()}
    is_ours = kind.__module__.startswith("mulligan.")
    return settings if is_ours else {"class": f"{kind.__module__}.{kind.__qualname__}"} | settings


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
