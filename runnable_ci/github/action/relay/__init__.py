"""The relay: a job whose time ends before its run does hands it to a further job."""
