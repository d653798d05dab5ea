"""Whether a run can be online in W&B: asked before W&B asks, which tries again until its time is over."""

import netrc
import os
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import wandb


def why_offline(timeout_seconds: float) -> str | None:
    """What stands in the way: no key, or a service that is out of reach; None where nothing does."""
    settings = wandb.setup().settings
    if not (settings.api_key or settings.identity_token_file or _is_in_netrc(settings.base_url)):
        return "no key is set"
    return _out_of_reach(settings.base_url, timeout_seconds)


def _is_in_netrc(url: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _out_of_reach(url: str, timeout_seconds: float) -> str | None:
    try:
        urllib.request.urlopen(url, timeout=timeout_seconds).close()
    except urllib.error.HTTPError:
        return None  # an answer
    except OSError as error:
        reason = getattr(error, "reason", error)
        # W&B may trust certificates that Python does not.
        return None if isinstance(reason, ssl.SSLError) else f"{url} is out of reach ({reason})"
    return None
