"""Which invocations of a run had seen which, and what counts of those that had not seen each other."""
