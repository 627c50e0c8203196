"""The branches of a step in the run log: steps of their own, whose names begin with `STEP.BRANCH.`."""
