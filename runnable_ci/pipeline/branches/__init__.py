"""Steps that become branches: by a matrix, a loop, or the steps of another file."""
