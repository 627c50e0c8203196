"""What attempts and runs say at their end, beside the loop."""
