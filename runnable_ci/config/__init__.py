"""Our own settings, from environment variables `RUNNABLE_CI_…`; nothing else reads those."""

from runnable_ci.config.loading import load
from runnable_ci.config.settings import (
    GITHUB_TOKEN,
    INPUT_PREFIX,
    LOG_LEVEL,
    REUSE_KEY,
    SAFE_STORES,
    SECRETS,
    SECRETS_SETTING,
    WRITERS,
    LogLevel,
    Settings,
    Untracked,
)

__all__ = [
    "GITHUB_TOKEN",
    "INPUT_PREFIX",
    "LOG_LEVEL",
    "REUSE_KEY",
    "SAFE_STORES",
    "SECRETS",
    "SECRETS_SETTING",
    "WRITERS",
    "LogLevel",
    "Settings",
    "Untracked",
    "load",
]
