"""What one run may take from another: results with all that they refer to, and the index of them in a registry."""
