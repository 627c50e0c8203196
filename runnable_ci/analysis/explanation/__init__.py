"""Why a run ended as it did, in one small document."""
