"""Which code ran: git, the state of a work tree, and its difference from the commit."""
