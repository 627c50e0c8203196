"""What the GitHub action does around a command: `begin` decides which one, `finish` publishes and reports.

The action has a step for each: the first becomes `runnable-ci run` or `retry`, so that a cancelled job's signal reaches
the run itself; the second runs always, after the first has ended in whatever way.
"""
