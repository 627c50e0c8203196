"""What an attempt read and made, and what of that is different now."""
