"""Our own settings, from environment variables `RUNNABLE_CI_…`; nothing else reads those."""

from runnable_ci.config.loading import load
from runnable_ci.config.settings import (
    GITHUB_TOKEN,
    INPUT_PREFIX,
    SAFE_STORES,
    SECRETS,
    SECRETS_SETTING,
    Settings,
    Untracked,
)

__all__ = [
    "GITHUB_TOKEN",
    "INPUT_PREFIX",
    "SAFE_STORES",
    "SECRETS",
    "SECRETS_SETTING",
    "Settings",
    "Untracked",
    "load",
]
