"""A pipeline that a program defines: steps in a loop, functions as objects. `python pipeline.py` runs it.

It writes runnable.toml, which is all that a retry, a job and a reader of the run need.
"""

import sys

import models

from runnable_ci import Pipeline

pipeline = Pipeline("program", parameters={"rows": 12})
load = pipeline.step("load", python=models.load, returns=["points"])
fitted = [
    pipeline.step(
        f"fit_{degree}",
        run=f'python models.py {degree} "$points" >> "$RUNNABLE_OUTPUT"',
        needs=[load],
        returns=[f"error_{degree}"],
    )
    for degree in (0, 1)
]
pipeline.step("best", python=models.best, needs=fitted, returns={"error": "metric"})

if __name__ == "__main__":
    pipeline.run(*sys.argv[1:])
