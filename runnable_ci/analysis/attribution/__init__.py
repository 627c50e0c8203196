"""Which change moved a metric: runs put together from two others, and the commit that did it."""
