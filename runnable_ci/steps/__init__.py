"""How each kind of step becomes a process."""
